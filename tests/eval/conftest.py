"""Tiny random models of every family, dense and pruned, a tiny tokenizer, tiny task files."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from secateur.pruning.models.adapter import adapter_for
from secateur.pruning.models.layout import read_layout
from secateur.pruning.plan import LayerPlan, PruningPlan
from secateur.pruning.surgery import prune
from tests.families import tiny

CONTEXT = 160
TEXT = "the cat sat on a warm mat while rain fell over green hills and seven boats went by slowly"
WORDS = TEXT.split()
SHAPES = ("dense", "uneven", "no_attention_0", "no_mlp", "no_layer", "no_attention_left", "no_mlp_left")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


def sentence(rng: random.Random, low: int = 3, high: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def make_tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    rng = random.Random(1)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([sentence(rng) for _ in range(200)], trainer)
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    special = {"eos_token": "</s>"} | ({"bos_token": "<s>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def make_model(family: str, *, layers: int = 3, seed: int = 0, **changes: Any) -> Any:
    common: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
        "pad_token_id": 1,
    }
    return tiny(family, common, seed, **changes)


def cut(model: Any, shape: str) -> Any:
    """Prune a 3-layer model of `make_model` by hand; `shape` is one of SHAPES."""
    adapter = adapter_for(model.config.model_type)
    groups = read_layout(model, adapter).layers[0].kv_groups
    all_groups, all_channels = tuple(range(groups)), tuple(range(48))
    kept: list[list[tuple[int, ...]]] = [[all_groups, all_channels] for _ in range(3)]
    if shape == "dense":
        return model
    if shape == "uneven":
        kept = [
            [all_groups[-1:], tuple(range(0, 48, 3))],
            [all_groups, tuple(range(5))],
            [(0,), all_channels],
        ]
    elif shape == "no_attention_0":
        kept[0][0] = ()
    elif shape == "no_mlp":
        kept[1][1] = ()
    elif shape.endswith("_left"):
        kept = [[(), all_channels] if "attention" in shape else [all_groups, ()] for _ in range(3)]
    else:
        kept[1] = [(), ()]
    layers = tuple(LayerPlan(groups, 48, units, channels) for units, channels in kept)
    plan = PruningPlan(layers, "test", 0, 0, 1, 1)
    return prune(model, adapter, plan)


def make_pairs(seed: int = 0, documents: int = 6) -> list[tuple[str, str]]:
    """Requests of every kind that the seven tasks and the oracle's known faults have."""
    rng = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    for _ in range(documents):
        question = f"Question: {sentence(rng)}?\nAnswer:"
        pairs += [(question, " no"), (question, " yes")]  # one-token choices
        stem = sentence(rng)
        pairs += [
            (question, f" {stem} {sentence(rng, 1, 3)}") for _ in range(4)
        ]  # choices with a common start
        before, after = sentence(rng), sentence(rng)
        pairs += [(f"{before} {name}", f" {after}.") for name in ("Ann", "Bob")]  # winogrande
        passage = sentence(rng, 12, 20)
        pairs += [
            (f"{passage}\n{sentence(rng)}", " yes") for _ in range(2)
        ]  # a passage with several questions
    pairs += pairs[:3]  # duplicates
    pairs += [("", sentence(rng)), ("", "a")]  # empty context
    pairs += [("the cat sat  ", "on a mat"), ("the cat sat", " on a mat")]  # trailing spaces
    pairs += [
        ("the cat sat on", " a mat"),
        ("the cat", " sat on a mat"),
        ("the", " cat sat on a mat"),
    ]  # split points
    long = " ".join(WORDS * 20)
    pairs += [
        (long, " the end"),
        (long, " and all the boats went by"),
        (long + " x", " the end"),
    ]  # beyond the context
    return pairs


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_data(folder: Path, count: int = 8) -> Path:
    """A data folder with all seven tasks and a text, in the schema of the lm-eval tasks."""
    rng = random.Random(3)

    def choices(number: int) -> dict[str, list[str]]:
        return {"text": [sentence(rng, 1, 4) for _ in range(number)], "label": list("ABCD"[:number])}

    tasks = folder / "tasks"
    rows = range(count)
    write_rows(
        tasks / "boolq/validation.jsonl",
        [
            {"question": sentence(rng), "passage": sentence(rng, 8, 20), "idx": i, "label": i % 2}
            for i in rows
        ],
    )
    write_rows(
        tasks / "piqa/validation.jsonl",
        [{"goal": sentence(rng), "sol1": sentence(rng), "sol2": sentence(rng), "label": i % 2} for i in rows],
    )
    write_rows(
        tasks / "hellaswag/validation.jsonl",
        [
            {
                "activity_label": sentence(rng, 1, 2),
                "ctx_a": sentence(rng),
                "ctx_b": sentence(rng, 1, 3),
                "ctx": "",
                "endings": [sentence(rng) for _ in range(4)],
                "label": str(i % 4),
            }
            for i in rows
        ],
    )
    write_rows(
        tasks / "winogrande/validation.jsonl",
        [
            {
                "sentence": f"{sentence(rng)} _ {sentence(rng)}.",
                "option1": "Ann",
                "option2": "Bob",
                "answer": str(i % 2 + 1),
            }
            for i in rows
        ],
    )
    for name in ("arc_easy", "arc_challenge"):
        write_rows(
            tasks / name / "test.jsonl",
            [
                {"id": str(i), "question": sentence(rng), "choices": choices(4), "answerKey": "ABCD"[i % 4]}
                for i in rows
            ],
        )
    write_rows(
        tasks / "openbookqa/test.jsonl",
        [
            {"id": str(i), "question_stem": sentence(rng), "choices": choices(4), "answerKey": "ABCD"[i % 4]}
            for i in rows
        ],
    )
    title = [{"text": ""}, {"text": " = A page = \n"}, {"text": ""}]
    wiki = [
        row
        for _ in range(3)
        for row in [*title, *({"text": f" {sentence(rng, 20, 40)} \n"} for _ in range(6))]
    ]
    write_rows(folder / "text/wikitext2_raw/test.jsonl", wiki)
    write_rows(
        folder / "text/stories/validation.jsonl",
        [{"text": f"{sentence(rng)}\n\n{sentence(rng)}"} for _ in range(40)],
    )
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def assets() -> Path:
    """Real models and data, where they are at hand."""
    root = Path(os.environ.get("SECATEUR_SHARED", Path(__file__).parents[3] / "shared")) / "assets"
    if not root.is_dir():
        pytest.skip(f"no reference folder at {root} (SECATEUR_SHARED)")
    return root


@pytest.fixture
def real_model(assets: Path) -> Callable[[str], tuple[Any, Any]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load(name: str) -> tuple[Any, Any]:
        folder = assets / "models" / name
        return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    return load
