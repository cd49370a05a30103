"""Seeded fuzz of config.json: the model works, or one line says why not."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.eval.config import EvalConfig, PerplexityConfig
from secateur.eval.perplexity import check_windows
from secateur.pruning import pipeline
from secateur.pruning.config import PruneConfig, validate
from secateur.pruning.errors import SecateurError
from secateur.pruning.models.loading import load, outline
from tests.pruning.commands import Place, one_line, place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("fuzz"))


VALUES: tuple[Any, ...] = (None, "text", "", -1, 0, 1, 3, 1.5, 10**12, True, [], [1], {}, {"a": 1})
GONE = object()
FIELDS = (
    "architectures", "attention_bias", "attention_dropout", "bos_token_id", "dtype", "eos_token_id", "head_dim",
    "hidden_act", "hidden_size", "initializer_range", "intermediate_size", "max_position_embeddings", "mlp_bias",
    "model_type", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "pad_token_id",
    "pretraining_tp", "rms_norm_eps", "rope_parameters", "tie_word_embeddings", "transformers_version", "use_cache",
    "vocab_size",
)  # fmt: skip


def at_the_border(made: Place, folder: Path, config: Any) -> bool:
    """What `secateur run` does with a model: outline, checks, weights, a forward pass. Whether all of it worked."""
    folder.mkdir(parents=True)
    for path in made.model.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path)
    (folder / "config.json").write_text(
        config if isinstance(config, str) else json.dumps(config), encoding="utf-8"
    )
    raw = {
        "model": {"path": str(folder)}, "calibration": {"path": str(made.text)}, "out": str(folder.parent / "runs"),
        "taylor": {"seq_len": 16, "num_samples": 8}, "device": "cpu",
    }  # fmt: skip
    run = validate(PruneConfig, raw)
    try:
        model = outline(run.model)
        check_windows(model.model, model.tokenizer, EvalConfig(ppl=PerplexityConfig(text="x.txt", window=16)))
        pipeline.check(run, model)
        loaded: Any = load(run.model, "cpu")
        loaded.model(input_ids=torch.zeros((1, 4), dtype=torch.int64))
    except SecateurError as error:
        one_line(error)
        return False
    return True


def test_the_fields_are_those_of_the_model(made: Place) -> None:
    assert set(FIELDS) == set(json.loads((made.model / "config.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("field", FIELDS)
def test_a_config_with_one_field_changed_is_read_or_refused(made: Place, tmp_path: Path, field: str) -> None:
    """25 fields, 15 changes of each: 375 inputs."""
    config = json.loads((made.model / "config.json").read_text(encoding="utf-8"))
    assert at_the_border(made, tmp_path / "whole", config)
    for number, value in enumerate((GONE, *VALUES)):
        changed = {**config, field: value}
        if value is GONE:
            del changed[field]
        at_the_border(made, tmp_path / str(number), changed)


def edits(config: Any, generator: random.Random) -> Iterator[Any]:
    """A few changes of a nested value, anywhere in it."""
    config = copy.deepcopy(config)
    for _ in range(generator.randint(1, 4)):
        node = config
        while isinstance(node, dict) and node:
            key = generator.choice(list(node))
            if isinstance(node[key], dict) and generator.random() < 0.7:
                node = node[key]
                continue
            node[generator.choice((key, key, f"{key}_"))] = generator.choice(VALUES)
            break
        yield config


def test_random_edits_of_a_config_are_read_or_refused(made: Place, tmp_path: Path) -> None:
    whole = json.loads((made.model / "config.json").read_text(encoding="utf-8"))
    for seed in range(40):
        *_, changed = edits(whole, random.Random(seed))
        at_the_border(made, tmp_path / str(seed), changed)


NO_CONFIG = ("", "null", "[]", "3", '"llama"', "{}", "{", "\ufeff{}", "[" * 100_000, '{"model_type": NaN}')


@pytest.mark.parametrize("text", NO_CONFIG)
def test_a_config_that_is_no_config(made: Place, tmp_path: Path, text: str) -> None:
    assert not at_the_border(made, tmp_path / "model", text)
