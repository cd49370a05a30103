"""Models with a NaN or infinite weight are refused by its name: every kind of tensor, value, method and command."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur.pruning.health import sick_weights
from tests.pruning.commands import Place, call, place, records, refused, spoiled
from tests.pruning.conftest import build

UP = "model.layers.1.mlp.up_proj.weight"
TENSORS = (
    "model.embed_tokens.weight",
    UP,
    "model.layers.2.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.bias",
    "model.layers.3.mlp.down_proj.bias",
    "model.layers.3.input_layernorm.weight",
    "model.norm.weight",
    "lm_head.weight",
)
METHODS = (
    "taylor", "magnitude", "random", "taylor_gate", "taylor_second", "wanda", "flap", "shortgpt", "blockwise", "obs",
    "secateur",
)  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A model with biases everywhere."""
    return place(tmp_path_factory.mktemp("shared"), "llama-mha-bias")


def poisoned(here: Place, tensor: str, value: float = float("nan")) -> Path:
    """The model with one value that no text of the tests reaches: token 0 does not occur."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors[tensor].view(-1)[0] = value
        save_file(tensors, path, metadata={"format": "pt"})

    return spoiled(here.model, here.folder / "sick", change)


@pytest.mark.parametrize("tensor", TENSORS)
def test_every_kind_of_tensor_is_named(here: Place, tensor: str) -> None:
    model = poisoned(here, tensor)
    refused(here, f"model.path={model}", says=(f"{tensor} holds 1 NaN of", "own weights are damaged"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_names_it(here: Place, method: str) -> None:
    """Those that read no text included: a magnitude of NaN ranks nothing."""
    refused(here, f"model.path={poisoned(here, UP)}", f"method={method}", says=(f"{UP} holds 1 NaN of",))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(
    "more", [("capture.on_nonfinite=skip",), ("capture.segments=3", "capture.estimators=all")]
)
def test_every_value_and_way_to_capture(here: Place, value: float, more: tuple[str, ...]) -> None:
    kind = "NaN" if value != value else "infinite"
    model = poisoned(here, UP, value)
    refused(here, f"model.path={model}", *more, says=(f"{UP} holds 1 {kind} of",))
    outcome = call("capture", *here.arguments(f"model.path={model}", *more))
    assert outcome.code == 1
    assert f"{UP} holds 1 {kind} of" in outcome.err


def test_float16_says_that_a_value_may_be_too_large_for_it(here: Place) -> None:
    model = poisoned(here, UP, 1e6)
    refused(here, f"model.path={model}", "model.dtype=float16", says=(f"{UP} holds 1 infinite", "bfloat16"))
    assert call("run", *here.arguments(f"model.path={model}", "method=magnitude")).code == 0


def test_an_evaluated_checkpoint_names_it(here: Place, tmp_path: Path) -> None:
    """Perplexity is null with the name in its note; accuracies of NaN are refused."""
    model = poisoned(here, UP)
    there = replace(here, folder=tmp_path / "eval")
    outcome = call("eval", f"checkpoint={model}", *here.perplexity(), f"out={there.out}", "device=cpu")
    assert outcome.code == 0, outcome.err
    (record,) = records(there.out)
    (metric,) = record["metrics"].values()
    assert metric["value"] is None
    assert f"{UP} holds 1 NaN of" in metric["note"]


def test_counts_are_those_of_the_tensors() -> None:
    model: Any = build("llama").model
    assert sick_weights(model) == ""
    with torch.no_grad():
        weight = model.get_parameter(UP)
        weight[0, :3], weight[1, 0] = torch.nan, -torch.inf
        model.lm_head.weight[5] = torch.inf
    assert sick_weights(model) == (
        f"{UP} holds 3 NaN and 1 infinite of 1,536 values (and 1 more tensors are not finite)"
    )


def test_a_finite_weight_whose_sum_overflows_is_healthy() -> None:
    model: Any = build("llama", torch.float16).model
    with torch.no_grad():
        model.get_parameter(UP).fill_(60_000.0)
    assert not torch.isfinite(model.get_parameter(UP).sum())
    assert sick_weights(model) == ""
