"""Train the shipped models from scratch on freshly written documents of the world.

Shapes: B windows in a batch, T tokens in a window.
"""

import json
import logging
import math
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from secateur.pruning.world.recipes import CONTEXT, INITIAL_STD, RECIPES, Phase
from secateur.pruning.world.text import training_documents
from secateur.pruning.world.tokenizer import BEGIN, BYTE_LEVEL_MODELS, end_token, save

LOG = logging.getLogger(__name__)
BATCH = 4
WARM_UP = 100
REPORT_EVERY = 250
ANSWER_WEIGHT = 5.0
"""How much more the tokens of an answer count in the loss than those of the text around it."""


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token that the tokenizer must have."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return found


def windows(name: str, tokenizer: Tokenizer, seed: int, phase: int) -> Iterator[list[int]]:
    """Pack documents into windows of `CONTEXT` + 1 tokens.

    Most windows begin with a document, as a question put to the model does; a quarter begin within
    one, as a window cut from packed text does. In most the documents are divided by the end token,
    in a third by an empty line, as in a text file.
    """
    rng = random.Random(f"windows/{seed}" if phase == 0 else f"windows/{seed}/{phase}")
    end = token_id(tokenizer, end_token(name))
    documents = training_documents(seed, phase)
    while True:
        tokens: list[int] = []
        as_file = rng.random() < 1 / 3
        while len(tokens) <= CONTEXT:
            text = "\n\n".join(islice(documents, 12)) if as_file else next(documents)
            ids = [*tokenizer.encode(text).ids, end]
            if not tokens and rng.random() < 0.25:
                ids = ids[rng.randrange(min(len(ids), 32)) :]
            tokens += ids
        yield tokens[: CONTEXT + 1]


def answer_weights(tokens: list[int], tokenizer: Tokenizer, end: int) -> list[float]:
    """Weigh each token of a window: more from ``Answer:`` to the end of the line or document."""
    names = [tokenizer.id_to_token(token) or "" for token in tokens]
    weights: list[float] = []
    inside = False
    for i, token in enumerate(tokens):
        weights.append(ANSWER_WEIGHT if inside else 1.0)
        if token == end or any(line_break in names[i] for line_break in ("\n", "Ċ")):
            inside = False
        elif i > 0 and names[i - 1] in {"▁Answer", "Answer"}:
            inside = True
    return weights


def new_model(name: str, tokenizer: Tokenizer) -> PreTrainedModel:
    """Return the untrained model of a recipe, float32, with seeded weights."""
    recipe, end = RECIPES[name], token_id(tokenizer, end_token(name))
    config = recipe.config(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=CONTEXT,
        bos_token_id=None if name in BYTE_LEVEL_MODELS else token_id(tokenizer, BEGIN),
        eos_token_id=end,
        pad_token_id=end,
        initializer_range=INITIAL_STD,
        **recipe.shape,
    )
    torch.manual_seed(recipe.seed)
    return recipe.model(config).float()


def _learning_rate(step: int, phase: Phase) -> float:
    if step < WARM_UP:
        return phase.lr * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, phase.steps - WARM_UP)
    return phase.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def _optimizer(model: PreTrainedModel) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def train(name: str, folder: Path) -> None:
    """Train one model and write it, with its tokenizer, into a folder.

    Args:
        name: A key of `RECIPES`.
        folder: Where the model goes.
    """
    tokenizer = save(name, folder, CONTEXT)
    write(new_model(name, tokenizer), folder)
    for number in range(len(RECIPES[name].phases)):
        train_phase(name, folder, number)


def train_phase(name: str, folder: Path, number: int) -> None:
    """Train the model in a folder through one phase, from the weights that are written there.

    Args:
        name: A key of `RECIPES`.
        folder: Where the model is and goes.
        number: Of the phase, from 0.
    """
    recipe = RECIPES[name]
    phase = recipe.phases[number]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = token_id(tokenizer, end_token(name))
    stream = windows(name, tokenizer, recipe.seed, number)
    # The first phase begins with the exact weights, not with what float16 leaves of them.
    stored: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    model = new_model(name, tokenizer) if number == 0 else stored.train()
    optimizer = _optimizer(model)
    begun, running = time.perf_counter(), 0.0
    for step in range(phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, phase)
        batch = [next(stream) for _ in range(BATCH)]
        ids = torch.tensor(batch)  # [B, T + 1]
        weights = torch.tensor([answer_weights(w, tokenizer, end) for w in batch])[:, 1:]
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # [B, T, vocabulary]
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights.flatten()).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running += float(losses.detach().mean())
        if (step + 1) % REPORT_EVERY == 0:
            seconds, mean = time.perf_counter() - begun, running / REPORT_EVERY
            LOG.info("%s: phase %d, step %d, loss %.3f, %.0f s", name, number, step + 1, mean, seconds)
            running = 0.0
            write(model, folder)
    write(model, folder)


def write(model: PreTrainedModel, folder: Path) -> None:
    """Write weights rounded to float16, with a configuration that loads them as float32."""
    tied = getattr(model.config, "tie_word_embeddings", False)
    tensors = {
        key: value.detach().half().contiguous()
        for key, value in model.state_dict().items()
        if not (tied and key == "lm_head.weight")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone
    config = {**model.config.to_diff_dict(), "architectures": [type(model).__name__]}
    config["dtype"] = "float32"
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        max_length=CONTEXT,
    ).save_pretrained(folder)
