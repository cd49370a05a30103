"""A quick look at a model: the seven accuracies, by the same prompts and metrics as lm-eval's tasks.

It is made for training and for ``python -m secateur.pruning.world check``; results are reported from lm-eval.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import PreTrainedModel

from secateur.pruning.models.adapter import STRUCTURES, Structure, adapter_for, linear
from secateur.pruning.models.layout import read_layout
from secateur.pruning.world.tasks import SPLITS, Row, task_rows
from secateur.pruning.world.text import held_out_documents

NORMED = ("piqa", "hellaswag", "arc_easy", "arc_challenge", "openbookqa")
"""Tasks scored by log-likelihood per character."""


@dataclass(frozen=True)
class Question:
    """One question as lm-eval puts it: contexts and continuations, one pair per choice."""

    pairs: tuple[tuple[str, str], ...]
    lengths: tuple[int, ...]
    gold: int


def _question(task: str, row: Row) -> Question:
    if task == "winogrande":
        start, end = row["sentence"].split("_")
        options = (start + row["option1"], start + row["option2"])
        pairs = tuple((option, " " + end.strip()) for option in options)
        return Question(pairs, (1, 1), int(row["answer"]) - 1)
    if task == "boolq":
        prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        choices, gold = ["no", "yes"], row["label"]
    elif task == "piqa":
        prompt = f"Question: {row['goal']}\nAnswer:"
        choices, gold = [row["sol1"], row["sol2"]], row["label"]
    elif task == "hellaswag":
        prompt = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        choices, gold = row["endings"], int(row["label"])
    else:
        asked = row.get("question")
        prompt = row["question_stem"] if asked is None else f"Question: {asked}\nAnswer:"
        choices, gold = row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
    pairs = tuple((prompt, " " + choice) for choice in choices)
    return Question(pairs, tuple(len(choice) for choice in choices), gold)


@torch.no_grad()
def _log_likelihoods(
    model: PreTrainedModel, tokenizer: Tokenizer, pairs: list[tuple[str, str]]
) -> list[float]:
    """Sum the log-probabilities of each continuation's tokens, in batches of like length."""
    encoded = [(tokenizer.encode(a).ids, tokenizer.encode(a + b).ids) for a, b in pairs]
    order = sorted(range(len(pairs)), key=lambda i: len(encoded[i][1]))
    sums = [0.0] * len(pairs)
    for begin in range(0, len(order), 64):
        chosen = order[begin : begin + 64]
        longest = max(len(encoded[i][1]) for i in chosen)
        ids = torch.tensor([encoded[i][1] + [0] * (longest - len(encoded[i][1])) for i in chosen])
        logits: Any = model(input_ids=ids, use_cache=False).logits
        log_probs = F.log_softmax(logits[:, :-1].float(), dim=-1)
        picked = log_probs.gather(2, ids[:, 1:, None])[:, :, 0]
        for row, i in enumerate(chosen):
            context, whole = encoded[i]
            sums[i] = float(picked[row, len(context) - 1 : len(whole) - 1].sum())
    return sums


def accuracy(model: PreTrainedModel, tokenizer: Tokenizer, task: str) -> float:
    """Score a model on one task, a key of `SPLITS`, by the metric that is preferred for it."""
    model.eval()
    questions = [_question(task, row) for row in task_rows(task)]
    sums = iter(_log_likelihoods(model, tokenizer, [p for q in questions for p in q.pairs]))
    right = 0
    for question in questions:
        values = [next(sums) for _ in question.pairs]
        if task in NORMED:
            values = [v / n for v, n in zip(values, question.lengths, strict=True)]
        right += max(range(len(values)), key=values.__getitem__) == question.gold
    return right / len(questions)


def accuracies(model: PreTrainedModel, tokenizer: Tokenizer) -> dict[str, float]:
    """Score a model on the seven tasks.

    Returns:
        Task name -> accuracy, and ``mean``.
    """
    scores = {task: accuracy(model, tokenizer, task) for task in SPLITS}
    return {**scores, "mean": sum(scores.values()) / len(scores)}


@torch.no_grad()
def perplexity(model: PreTrainedModel, tokenizer: Tokenizer, window: int, limit: int | None = None) -> float:
    """Return exp(mean NLL in nats) of the held-out text, joined by line breaks, in windows.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        window: Tokens per window; windows do not overlap and the last, shorter one is dropped.
        limit: The most windows to read.
    """
    model.eval()
    ids = tokenizer.encode("\n\n".join(held_out_documents())).ids
    nll, count = 0.0, 0
    for begin in list(range(0, len(ids) - window + 1, window))[:limit]:
        batch = torch.tensor([ids[begin : begin + window]])
        logits: Any = model(input_ids=batch, use_cache=False).logits
        losses = F.cross_entropy(logits[0, :-1].float(), batch[0, 1:], reduction="sum")
        nll, count = nll + float(losses), count + window - 1
    return float(torch.tensor(nll / count).exp())


@torch.no_grad()
def silence_at_random(model: PreTrainedModel, ratio: float, seed: int) -> int:
    """Silence MLP channels and KV groups, drawn at random, in place.

    What a silenced unit would have added is zero, so the model computes what it would without it.

    Args:
        model: The model; its weights are changed.
        ratio: The share of all parameters that the silenced units hold, at least.
        seed: Of the draw.

    Returns:
        How many parameters the silenced units hold, biases not counted.
    """
    adapter = adapter_for(model.config.model_type)
    layers, layout = adapter.decoder_layers(model), read_layout(model, adapter)
    units: list[tuple[int, Structure, int]] = [
        (number, structure, unit)
        for structure in reversed(STRUCTURES)
        for number, layer in enumerate(layout.layers)
        for unit in range(layer.units(structure))
    ]
    random.Random(seed).shuffle(units)
    wanted, removed = ratio * layout.total_parameters, 0
    for number, structure, unit in units:
        if removed >= wanted:
            break
        maps = [linear(layers[number], projection) for projection in adapter.of(structure)]
        whole, output = (
            layout.layers[number].units(structure),
            linear(layers[number], adapter.output(structure)),
        )
        assert output is not None
        width = output.in_features // whole
        output.weight[:, unit * width : (unit + 1) * width] = 0
        removed += sum(one.weight.numel() for one in maps if one is not None) // whole
    return removed
