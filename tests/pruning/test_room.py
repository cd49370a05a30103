"""How many samples go through the device together changes nothing, and memory that runs out loses nothing."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from secateur.eval.config import RunConfig
from secateur.pruning.capture import fold, room
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.room import once, per_token
from secateur.pruning.capture.run import run_capture
from secateur.pruning.capture.views import Level
from secateur.pruning.compose import compose, register
from secateur.pruning.config import (
    CaptureConfig,
    PruneConfig,
    TaylorConfig,
    config_digest,
    identity,
    validate,
)
from secateur.pruning.errors import ConfigError, MemoryLimitError
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.models.adapter import adapter_for
from secateur.pruning.models.layout import read_layout
from secateur.pruning.models.loading import LoadedModel
from tests.pruning.conftest import build, text

LEVELS = list(Level)[1:]
PRIORS = ("loss", "cosine", "gate")
RARE = 2
"""A token of one sample, in the second batch."""


def refuse(loaded: LoadedModel, where: str, above: int) -> list[int]:
    """Memory runs out with more than `above` samples, at the embedding or in the backward pass through layer 1."""
    refused: list[int] = []

    def check(tensor: torch.Tensor) -> None:
        if len(tensor) > above:
            refused.append(len(tensor))
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if where == "forward":
            check(hidden)
        elif hidden.requires_grad:
            hidden.register_hook(check)

    model: Any = loaded.model
    layer = loaded.adapter.decoder_layers(model)[1]
    (model.get_input_embeddings() if where == "forward" else layer).register_forward_hook(hook)
    return refused


def alike(found: Capture, expected: Capture, rtol: float = 1e-9) -> None:
    """Equal to rounding, and nothing lost: scores, priors, statistics of sums, and what was counted."""
    assert found.scores.keys() == expected.scores.keys()
    for key, value in expected.scores.items():
        tiny = 1e-12 * float(value.abs().max())
        torch.testing.assert_close(found.scores[key], value, rtol=max(rtol, 3e-7), atol=tiny)
    for kind in PRIORS:
        torch.testing.assert_close(found.priors(kind), expected.priors(kind), rtol=1e-6, atol=1e-9)
    for count, rows in expected.accumulated_statistics.items():
        torch.testing.assert_close(found.accumulated_statistics[count], rows, rtol=rtol, atol=1e-12)
    for fact in (
        "samples",
        "batch_size",
        "forward_tokens",
        "backward_tokens",
        "skipped_batches",
        "mean_loss",
    ):
        assert found.facts[fact] == pytest.approx(expected.facts[fact], rel=1e-9), fact


def samples_of() -> Any:
    """Ten, of which two are padded: batches of 4, 4 and 2 with different numbers of tokens."""
    samples = text(10)
    samples.lengths[1], samples.lengths[6] = 13, 7
    samples.ids[5, 3] = RARE
    return samples


def case(
    level: Level,
    loaded: LoadedModel | None = None,
    *,
    gpu: bool = False,
    together: Any = "auto",
    **options: Any,
) -> Capture:
    """With `gpu`, the device says that it has much free memory."""
    loaded = loaded or build("llama-mha-bias", torch.float64)
    config = CaptureConfig(**{"priors": PRIORS, "batch_size": together, **options})
    taylor = TaylorConfig(seq_len=20, num_samples=10, batch_size=4)
    with pytest.MonkeyPatch.context() as patch:
        if gpu:
            patch.setattr(room, "available", lambda _: 2**40)
        return run_capture(loaded, samples_of(), config, taylor, level, [8, 10], list(ESTIMATORS.values()))


@cache
def usual(level: Level, segments: int) -> Capture:
    """Batches of four, one after another."""
    return case(level, segments=segments)


@pytest.mark.parametrize("level", LEVELS)
def test_any_number_of_samples_at_once_gives_the_same(level: Level) -> None:
    assert usual(level, 3).facts["samples_at_once"] == 4
    for together in (3, 9):
        alike(case(level, together=together, segments=3), usual(level, 3))
    assert case(level, gpu=True, priors=()).facts["samples_at_once"] == (4 if level == Level.SQUARES else 8)


@pytest.mark.parametrize(
    ("gpu", "above", "segments"), [(False, 1, 1), (False, 2, 3), (True, 1, 3), (True, 5, 3)]
)
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("level", LEVELS)
def test_memory_that_runs_out_loses_nothing(
    level: Level, where: str, gpu: bool, above: int, segments: int
) -> None:
    """In the backward pass the layers above have been folded already; with three segments they are counted."""
    if where == "backward" and level == Level.ACTIVATIONS:
        pytest.skip("no backward pass")
    expected, loaded = usual(level, segments), build("llama-mha-bias", torch.float64)
    refused = refuse(loaded, where, above)
    found = case(level, loaded, gpu=gpu, segments=segments)
    alike(found, expected)
    assert bool(refused) == (above < 4 or level != Level.SQUARES)
    assert found.facts["samples_at_once"] <= above
    own, known = expected.batch_statistics, found.batch_statistics  # also where a batch came in pieces
    assert own.shape == known.shape
    alone = ~known.isnan()
    assert bool(alone.all()) or (gpu and level != Level.SQUARES)
    torch.testing.assert_close(known[alone], own[alone], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("together", ["auto", 4])
def test_memory_that_never_suffices_is_said(level: Level, together: Any) -> None:
    loaded = build("llama")
    refused = refuse(loaded, "forward", 0)
    with pytest.raises(MemoryLimitError, match="memory ran out in the calibration pass: CUDA out of memory"):
        case(level, loaded, together=together)
    assert refused == ([4, 2, 1] if together == "auto" else [4])


def test_a_fold_that_is_cut_short_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (a test)")

    monkeypatch.setattr(fold, "_add_squares", fails)
    with pytest.raises(MemoryLimitError):
        case(Level.SQUARES)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("segments", [1, 3])
def test_a_bad_batch_among_several_is_skipped_alone(dtype: torch.dtype, segments: int) -> None:
    """And where it goes in pieces, all of it is."""

    def poisoned() -> LoadedModel:
        loaded = build("llama-mha-bias", dtype)
        with torch.no_grad():
            loaded.model.get_input_embeddings().weight[RARE] = torch.nan
        return loaded

    expected = case(Level.GRADIENTS, poisoned(), segments=1, priors=("gate",))
    for together in (1, 10):
        found = case(Level.GRADIENTS, poisoned(), together=together, segments=segments, priors=("gate",))
        assert [item["batch"] for item in found.facts["skipped_batches"]] == [1]
        for key, value in expected.scores.items():
            rtol = 1e-6 if dtype == torch.float64 else 0.05
            torch.testing.assert_close(
                found.scores[key], value, rtol=rtol, atol=rtol * float(value.abs().max())
            )


class Saved:
    """Bytes that autograd keeps, each storage once."""

    def __init__(self, model: nn.Module) -> None:
        self._known = {p.untyped_storage()._cdata for p in model.parameters()}
        self.bytes = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.bytes += storage.nbytes()
        return tensor


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_estimate_is_above_what_a_backward_pass_keeps_and_not_far(
    dtype: torch.dtype, attention: str
) -> None:
    """Four layers of Llama-3-8B's shape, on tensors without content."""
    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=4,
        num_attention_heads=32, num_key_value_heads=8, attn_implementation=attention,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype).eval()
    adapter = adapter_for("llama")
    loaded = LoadedModel(model, None, adapter, read_layout(model, adapter), "8B", torch.device("meta"), None)
    samples, length = 2, 256
    saved = Saved(model)
    ids = torch.zeros(samples, length, dtype=torch.long, device="meta")
    places = torch.arange(length, device="meta")[None]
    mask = None if attention == "sdpa" else torch.zeros(1, 1, length, length, dtype=dtype, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        hidden = model.get_input_embeddings()(ids).detach().requires_grad_()
        rotary = model.model.rotary_emb(hidden, places)
        for layer in adapter.decoder_layers(model):
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        assert model.model.norm(hidden).requires_grad
    one = CaptureConfig(segments=1)
    estimate = samples * length * per_token(loaded, one, Level.GRADIENTS, 1, length)
    assert saved.bytes <= estimate <= 2 * saved.bytes, estimate / saved.bytes
    weights = sum(p.numel() for name, p in model.named_parameters() if "_proj" in name)
    assert 4 * weights <= once(loaded, one, Level.GRADIENTS, 1) <= 1.3 * 4 * weights
    assert once(loaded, CaptureConfig(offload=True), Level.GRADIENTS, 1) < 2e9


def test_what_decides_a_result_does_not_know_of_it() -> None:
    register(RunConfig)

    def config(*words: str) -> PruneConfig:
        return validate(RunConfig, compose("run", ["model=tiny_llama", *words]))

    names = {
        config_digest(config(*words))
        for words in ([], ["taylor.batch_size=auto"], ["taylor.batch_size=4"], ["capture.batch_size=16"])
    }
    assert len(names) == 1
    assert config("taylor.batch_size=auto").taylor.batch_size == 4
    assert identity(config("taylor.batch_size=8").taylor) == {"batch_size": 8}
    for word in ("taylor.batch_size=0", "capture.batch_size=0", "capture.batch_size=many"):
        with pytest.raises(ConfigError, match=word.split("=")[0]):
            config(word)
