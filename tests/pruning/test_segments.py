"""A pass in segments: the bits of one walk, gradients of a few layers at a time, bad batches, a full disk."""

import gc
import resource
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from secateur.pruning.capture.fold import Tracked
from secateur.pruning.capture.gradients import GradientFolder
from secateur.pruning.capture.passes import CalibrationPass
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.run import number_of_segments
from secateur.pruning.capture.segments import AUTO_SEGMENTS, Segment, cut
from secateur.pruning.capture.views import Level
from secateur.pruning.config import CaptureConfig
from secateur.pruning.errors import NumericsError, StorageError
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.models.adapter import STRUCTURES, linear
from secateur.pruning.models.layout import read_layout
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.surgery import prune
from tests.pruning.brute import brute_taylor, plain_gradients
from tests.pruning.conftest import build, capture_of, text
from tests.pruning.test_surgery import plan_for

PRIORS = ("loss", "cosine", "gate")


def same_bits(found: Capture, expected: Capture) -> None:
    """Everything that a capture holds, to the last bit."""
    assert (found.level, found.snapshots, found.tensors) == (
        expected.level,
        expected.snapshots,
        expected.tensors,
    )
    assert found.scores.keys() == expected.scores.keys()
    assert expected.scores
    for name, value in expected.scores.items():
        assert torch.equal(found.scores[name], value), name
    assert torch.equal(found.batch_statistics, expected.batch_statistics)
    assert found.accumulated_statistics.keys() == expected.accumulated_statistics.keys()
    for count, value in expected.accumulated_statistics.items():
        assert torch.equal(found.accumulated_statistics[count], value)
    for kind in PRIORS:
        a, b = found.priors(kind), expected.priors(kind)
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.equal(a, b), kind
    for fact in ("mean_loss", "skipped_batches", "backward_tokens", "text"):
        assert found.facts[fact] == expected.facts[fact], fact


@pytest.mark.parametrize(
    ("dtype", "level"),
    [
        (torch.float32, Level.SQUARES),
        (torch.float16, Level.GRADIENTS),
        (torch.bfloat16, Level.SQUARES),
        (torch.float64, Level.CURVATURE),
    ],
)
def test_any_number_of_segments_gives_the_bits_of_one_walk(
    variant: str, dtype: torch.dtype, level: Level
) -> None:
    """With batches of two sizes, snapshots, priors of all kinds."""
    loaded, samples = build(variant, dtype), text(5)
    one = capture_of(loaded, samples, level, [2, 5], priors=PRIORS, segments=1)
    for count in (2, 3, 9):
        capture = capture_of(loaded, samples, level, [2, 5], priors=PRIORS, segments=count)
        same_bits(capture, one)
        assert capture.facts["segments"] == min(count, 4)


@pytest.mark.parametrize("option", ["offload", "gradient_checkpointing"])
def test_segments_go_with_what_else_saves_memory(option: str) -> None:
    loaded, samples = build("qwen3"), text(4)
    one = capture_of(loaded, samples, Level.SQUARES, [4], segments=1, **{option: True})
    same_bits(capture_of(loaded, samples, Level.SQUARES, [4], segments=3, **{option: True}), one)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_and_attention_masks_reach_every_segment(attention: str) -> None:
    loaded, samples = build("mistral"), text(3)
    loaded.model.set_attn_implementation(attention)  # type: ignore[operator]
    samples.lengths[1] = 7
    one = capture_of(loaded, samples, Level.GRADIENTS, [3], segments=1)
    same_bits(capture_of(loaded, samples, Level.GRADIENTS, [3], segments=4), one)


@pytest.mark.parametrize("shape", ["no-attention-0", "no-mlp", "all-at-once"])
def test_a_pruned_model_has_segments_too(shape: str) -> None:
    """Layers without an attention or an MLP, and layers that are gone."""
    loaded, samples = build("qwen2"), text(3)
    model = prune(loaded.model, loaded.adapter, plan_for(loaded, shape))
    loaded = replace(loaded, model=model, layout=read_layout(model, loaded.adapter))
    one = capture_of(loaded, samples, Level.GRADIENTS, [3], priors=("gate",), segments=1)
    same_bits(capture_of(loaded, samples, Level.GRADIENTS, [3], priors=("gate",), segments=4), one)


def test_segments_cover_every_layer_once_and_are_of_one_size() -> None:
    for total in range(1, 40):
        for count in range(1, 12):
            segments = cut(total, count)
            assert len(segments) == min(count, total)
            assert (segments[0].top, segments[-1].bottom) == (True, True)
            assert all(above.start == below.stop for above, below in pairwise(segments))
            sizes = [len(s.layers) for s in segments]
            assert min(sizes) >= 1
            assert max(sizes) - min(sizes) <= 1
    assert [(s.start, s.stop) for s in cut(30, 4)] == [(22, 30), (15, 22), (7, 15), (0, 7)]


def test_only_a_segment_s_gradients_are_formed_and_kept(variant: str) -> None:
    loaded, samples = build(variant), text(2)
    names = {id(p): name for name, p in loaded.model.named_parameters()}
    segment = Segment(3, 4, 4)
    options = CaptureConfig(priors=()), Level.GRADIENTS, list(ESTIMATORS.values())
    walk = CalibrationPass(loaded, *options, segment=segment)
    arrived = [names[id(p)] for p in loaded.model.parameters() if p.requires_grad]
    walk.batch(samples.ids, samples.mask(slice(0, 2)), 0)
    assert walk.folder is not None
    layer = loaded.adapter.decoder_layers(loaded.model)[3]
    modules = [linear(layer, projection) for projection in loaded.adapter.projections]
    weights = sum(module.weight.nbytes for module in modules if module is not None)
    assert sum(t.accumulator.nbytes for t in walk.folder.tracked if t.name.endswith("weight")) == weights
    assert all(bool(t.accumulator.any()) for t in walk.folder.tracked)
    assert arrived
    assert all(f"{loaded.adapter.layers}.3." in name for name in arrived)
    walk.close()


def test_accumulators_of_one_segment_are_gone_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a walk makes its own there are none, then those of its layers alone; no collector has to help."""
    alive: list[set[int]] = []

    def seen(method: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            alive.append({item.layer for item in gc.get_objects() if type(item) is Tracked})
            return method(*args, **options)

        return call

    monkeypatch.setattr(GradientFolder, "__init__", seen(GradientFolder.__init__))
    monkeypatch.setattr(GradientFolder, "begin", seen(GradientFolder.begin))
    gc.collect()
    gc.disable()
    try:
        capture_of(build("llama"), text(4), Level.GRADIENTS, [4], segments=4)
    finally:
        gc.enable()
    assert alive == [set(), {3}, {3}, set(), {2}, {2}, set(), {1}, {1}, set(), {0}, {0}]


def test_segments_are_taken_where_a_copy_of_the_weights_is_large() -> None:
    small, default = build("llama"), CaptureConfig()
    with torch.device("meta"):
        large = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, vocab_size=64))
    loaded = replace(small, model=large, layout=read_layout(large, small.adapter))
    for level in Level:
        assert number_of_segments(small, default, level) == 1
        assert number_of_segments(loaded, default, level) == (AUTO_SEGMENTS if level.weight_gradients else 1)
    asked = CaptureConfig(segments=3)
    assert number_of_segments(small, asked, Level.SQUARES) == 3
    assert number_of_segments(small, asked, Level.CURVATURE) == 3
    assert number_of_segments(small, asked, Level.GATE) == 1


def on_text(
    loaded: LoadedModel, ids: torch.Tensor, layer: int, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Change the gradient behind a layer's MLP whenever the model works on these ids, whichever walk that is."""
    module = linear(loaded.adapter.decoder_layers(loaded.model)[layer], loaded.adapter.output("mlp"))
    assert module is not None
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda *args: seen.append(args[2].detach().clone()))
    with torch.no_grad():
        loaded.model(ids)
    handle.remove()

    def hook(_: nn.Module, __: object, output: torch.Tensor) -> None:
        if output.requires_grad and output.shape == seen[0].shape and torch.allclose(output, seen[0]):
            output.register_hook(change)

    module.register_forward_hook(hook)


def nan(slope: torch.Tensor) -> torch.Tensor:
    return slope * float("nan")


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("segments", [2, 4])
def test_a_batch_that_is_bad_in_any_segment_leaves_no_trace_in_any(layer: int, segments: int) -> None:
    """The scores equal those of a pass that never saw the batch."""
    samples, loaded = text(6), build("llama", torch.float64)
    on_text(loaded, samples.ids[2:4], layer, nan)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [2, 6], priors=("gate",), segments=segments)
    assert [item["batch"] for item in capture.facts["skipped_batches"]] == [1]
    assert f"layer {layer}" in capture.facts["skipped_batches"][0]["where"]
    clean = samples.ids[torch.tensor([0, 1, 4, 5])]
    intact = build("llama", torch.float64)
    expected = brute_taylor(intact, plain_gradients(intact, list(clean.split(2))))
    for structure in STRUCTURES:
        found = capture.score("taylor", 6, structure).double()
        torch.testing.assert_close(found, expected[structure], rtol=1e-6, atol=0)
    assert capture.batch_statistics.shape[0] == 2
    assert capture.prior_gate is not None
    assert capture.prior_gate.shape == (4, 4, 3)


def test_a_bad_batch_in_a_lower_segment_is_fatal_when_so_configured() -> None:
    samples, loaded = text(6), build("llama")
    on_text(loaded, samples.ids[2:4], 0, nan)
    with pytest.raises(
        NumericsError, match=r"batch 1: the gradient of layer 0, mlp.*capture.on_nonfinite=skip"
    ):
        capture_of(loaded, samples, Level.GRADIENTS, [6], on_nonfinite="fail", segments=4)


def test_only_bad_batches_in_a_lower_segment_are_an_error() -> None:
    samples, loaded = text(4), build("llama")
    for ids in samples.ids.split(2):
        on_text(loaded, ids, 0, nan)
    with pytest.raises(NumericsError, match=r"none of the first 4 .*layer 0"):
        capture_of(loaded, samples, Level.GRADIENTS, [4], segments=3)


def test_a_half_precision_batch_that_overflows_far_below_is_scaled_anew() -> None:
    """The top segment is fine with the first scale, the lowest one is not: all start again with the next."""
    captures: list[Capture] = []
    for segments in (1, 4):
        samples, loaded = text(6), build("llama", torch.float16)
        on_text(loaded, samples.ids[2:4], 0, lambda slope: slope * 2.0**14)
        captures.append(capture_of(loaded, samples, Level.SQUARES, [6], segments=segments))
    one, four = captures
    assert one.facts["skipped_batches"] == four.facts["skipped_batches"] == []
    assert one.facts["backward_tokens"] > 6 * 20  # a second scale was tried
    assert four.facts["forward_tokens"] > one.facts["forward_tokens"]
    for name, value in one.scores.items():
        assert torch.equal(four.scores[name], value), name
    assert torch.equal(four.batch_statistics, one.batch_statistics)


def test_a_second_forward_pass_is_what_segments_cost() -> None:
    """Work is counted as it is done: layers above a segment once, its own once more unless it is the top."""
    loaded, samples = build("llama"), text(4)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [4], segments=2)
    tokens = samples.ids.numel()
    assert capture.facts["forward_tokens"] == tokens + tokens * 2 // 4
    assert capture.facts["backward_tokens"] == tokens


def test_a_temporary_folder_that_takes_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "gone"
    monkeypatch.setattr(tempfile, "tempdir", str(missing))
    with pytest.raises(StorageError, match=rf"temporary folder {missing}.*TMPDIR.*capture.segments=1"):
        capture_of(build("llama"), text(4), Level.GRADIENTS, [4], segments=2)
    capture_of(build("llama"), text(4), Level.GRADIENTS, [4], segments=1)


def test_a_temporary_folder_that_is_full_is_named_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
    try:
        with pytest.raises(StorageError, match=r"TMPDIR.*capture.segments=1"):
            capture_of(build("llama"), text(4), Level.GRADIENTS, [4], segments=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    loaded = build("llama")
    capture_of(loaded, text(4), Level.GRADIENTS, [4], segments=2)
    assert list(tmp_path.iterdir()) == []
