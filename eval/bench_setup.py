"""What the benchmark of evaluation runs on: real prompts in natural proportions, a tokenizer, models of known shape."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from secateur.eval.config import TASKS, EvalConfig
from secateur.eval.tasks import load_tasks
from secateur.eval.trie import Trees

Request = tuple[None, list[int], list[int]]
MAX_LENGTH = 2048
VOCABULARY = 32_000


@dataclass(frozen=True)
class Shape:
    """A Llama of random weights.

    Attributes:
        name: What it stands for.
        vocabulary, hidden, channels, layers, heads, kv_heads: Its sizes.
    """

    name: str
    vocabulary: int
    hidden: int
    channels: int
    layers: int
    heads: int
    kv_heads: int

    def build(self) -> Any:
        """The model, in float32."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.channels,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=False,
        )
        return LlamaForCausalLM(config).eval()

    @property
    def layer_flops(self) -> float:
        """Linear FLOPs of one token in all layers."""
        width = self.hidden // self.heads
        attention = self.hidden * width * (2 * self.heads + 2 * self.kv_heads)
        return 2.0 * self.layers * (attention + 3 * self.hidden * self.channels)

    @property
    def head_flops(self) -> float:
        """FLOPs of the head on one position."""
        return 2.0 * self.hidden * self.vocabulary


SHAPES = (
    Shape("8B-like: head 8 % of the layers", 8192, 768, 2048, 12, 12, 4),
    Shape("small, V = 32 k: head 40 % of the layers", 32_000, 512, 1536, 12, 8, 8),
)


def data_dir() -> str:
    """The real data where SECATEUR_SHARED (or a folder `shared` beside the checkout) has it, else the test bench."""
    root = Path(os.environ.get("SECATEUR_SHARED", Path(__file__).parents[2] / "shared")) / "assets"
    return str(root) if (root / "tasks").is_dir() else "bundled"


def prompts(fraction: float, tasks: tuple[str, ...] = TASKS) -> dict[str, list[tuple[str, str]]]:
    """(context, continuation) texts per task, of a seeded sample of its questions."""
    chosen: dict[str, list[tuple[str, str]]] = {}
    for name, task in load_tasks(EvalConfig(data_dir=data_dir(), tasks=tasks)).items():
        total = len(task.documents)
        count = min(total, max(2, round(fraction * total)))
        task.build_all_requests(samples=sorted(random.Random(0).sample(range(total), count)))
        pairs: list[Any] = [instance.args for instance in task.instances or []]
        chosen[name] = pairs
    return chosen


def train_tokenizer(vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the tasks' own text, so that words are tokens as in a large model's vocabulary."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tasks = load_tasks(EvalConfig(data_dir=data_dir()))
    texts = (text for task in tasks.values() for doc in task.documents for text in _strings(doc))
    inner.train_from_iterator((f" {text} yes no" for text in texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<s>")  # noqa: S106  tokens, no passwords


def _strings(value: Any) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def fold(encoded: list[tuple[list[int], list[int]]], vocabulary: int) -> list[Request]:
    """Token requests for a smaller vocabulary (ids modulo its size; shared prefixes stay shared)."""
    return [(None, [i % vocabulary for i in a], [i % vocabulary for i in b]) for a, b in encoded]


def flop_bound(shape: Shape, requests: list[Request], trees: Trees) -> float:
    """HFLM's FLOPs over ours, attention left out: what no implementation of this plan can beat.

    HFLM runs one row per distinct context + continuation[:-1] (its one-token cache), the head on every position.
    """
    rows = {tuple(a + b[:-1]) for _, a, b in requests}
    theirs = sum(len(row) for row in rows) * (shape.layer_flops + shape.head_flops)
    scored = len(np.unique(trees.entry_nodes))
    return theirs / (trees.tokens * shape.layer_flops + scored * shape.head_flops)
