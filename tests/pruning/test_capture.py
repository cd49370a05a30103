"""The calibration pass itself: snapshots, batches, padding, statistics, numbers that are not finite."""

import pytest
import torch

from secateur.pruning.capture.moments import STATISTICS
from secateur.pruning.capture.passes import CalibrationPass
from secateur.pruning.capture.snapshots import batch_bounds
from secateur.pruning.capture.views import Level
from secateur.pruning.config import CaptureConfig
from secateur.pruning.errors import NumericsError
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.models.adapter import STRUCTURES, linear
from secateur.pruning.models.loading import LoadedModel
from tests.pruning.brute import brute_taylor, plain_gradients
from tests.pruning.conftest import build, capture_of, text


def test_snapshots_equal_separate_passes() -> None:
    loaded = build("llama")
    samples = text(12)
    together = capture_of(
        loaded, samples, Level.SQUARES, [4, 7, 12], batch_size=4, priors=("loss", "cosine", "gate")
    )
    for count in (4, 7, 12):
        points = [n for n in (4, 7, 12) if n <= count]
        alone = capture_of(loaded, samples, Level.SQUARES, points, batch_size=4)
        for name in ("taylor", "taylor_gate", "taylor_second", "wanda", "fluctuation"):
            for structure in STRUCTURES:
                assert torch.equal(
                    together.score(name, count, structure), alone.score(name, count, structure)
                )
        assert torch.equal(together.accumulated_statistics[count], alone.accumulated_statistics[count])


def test_batches_never_cross_a_snapshot() -> None:
    assert batch_bounds(4, [4, 7, 12]) == [(0, 4), (4, 7), (7, 11), (11, 12)]


def test_padding_counts_nowhere() -> None:
    loaded = build("llama", torch.float64)
    samples = text(1, length=12)
    padded = text(1, length=20)
    padded.ids[0, :12] = samples.ids[0]
    padded.lengths[0] = 12
    for name in ("taylor", "taylor_gate", "wanda", "fluctuation"):
        for structure in STRUCTURES:
            short = capture_of(loaded, samples, Level.GRADIENTS, [1]).score(name, 1, structure)
            long = capture_of(loaded, padded, Level.GRADIENTS, [1]).score(name, 1, structure)
            if name in ("taylor", "taylor_gate"):
                torch.testing.assert_close(short, long)
            else:  # per token of text: the count of tokens is the only difference
                torch.testing.assert_close(short / short.sum(), long / long.sum())


def test_offload_and_checkpointing_change_nothing() -> None:
    samples = text(4)
    plain = capture_of(build("mistral"), samples, Level.SQUARES, [4])
    for option in ("offload", "gradient_checkpointing"):
        other = capture_of(build("mistral"), samples, Level.SQUARES, [4], **{option: True})
        for key, value in plain.scores.items():
            torch.testing.assert_close(other.scores[key], value, rtol=1e-6, atol=0)


def test_statistics_are_of_each_batch_alone() -> None:
    loaded = build("qwen2")
    samples = text(4)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [4])
    gradients = plain_gradients(loaded, list(samples.ids.split(2)))
    for batch, found in enumerate(gradients):
        for row, (layer, name, size) in enumerate(capture.tensors):
            g = found[f"{loaded.adapter.layers}.{layer}.{name}"].double()
            expected = torch.stack([g.abs().mean(), g.std(correction=0), g.norm(), g.max(), g.min()])
            torch.testing.assert_close(
                capture.batch_statistics[batch, row].double(), expected, rtol=1e-4, atol=1e-9
            )
            assert size == g.numel()
    assert capture.batch_statistics.shape == (2, len(capture.tensors), len(STATISTICS))


def test_layer_statistics_weigh_tensors_by_size() -> None:
    loaded = build("llama")
    samples = text(4)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [4])
    total = plain_gradients(loaded, list(samples.ids.split(2)))
    prefix = f"{loaded.adapter.layers}.2."
    names = [f"{prefix}{name}" for layer, name, _ in capture.tensors if layer == 2]
    every = torch.cat([sum(g[n] for g in total).flatten() for n in names]).double()
    found = capture.layer_gradients(4)[2]
    assert found["mean_abs"] == pytest.approx(float(every.abs().mean()), rel=1e-5)
    assert found["l2"] == pytest.approx(float(every.norm()), rel=1e-5)
    assert found["max"] == pytest.approx(float(every.max()), rel=1e-5)


def test_overflowing_half_precision_gives_finite_statistics() -> None:
    """Gradients near float16's largest number: sums and norms overflow there, not here."""
    loaded = build("llama", torch.float16)
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight.mul_(300.0)
    capture = capture_of(loaded, text(4), Level.GRADIENTS, [4])
    largest = capture.batch_statistics[..., STATISTICS.index("l2")].max()
    assert float(largest) ** 2 > torch.finfo(torch.float16).max  # a float16 sum of squares would be infinite
    assert bool(torch.isfinite(capture.batch_statistics).all())
    assert bool(torch.isfinite(capture.accumulated_statistics[4]).all())
    assert all(bool(torch.isfinite(value).all()) for value in capture.scores.values())


def poison(loaded: LoadedModel, batch: int, layer: int) -> None:
    """Make one batch's gradient NaN from one layer downwards."""
    calls = {"n": 0}

    def hook(_: torch.nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        if not output.requires_grad:
            return output
        number = calls["n"]
        calls["n"] += 1
        if number == batch:
            output.register_hook(lambda g: g * float("nan"))
            calls["n"] -= 1 if calls.get("again") is None else 0
            calls["again"] = 1
        return output

    linear_map = linear(loaded.adapter.decoder_layers(loaded.model)[layer], loaded.adapter.output("mlp"))
    assert linear_map is not None
    linear_map.register_forward_hook(hook)


def test_a_nan_batch_is_skipped_without_a_trace() -> None:
    """The scores equal those of a pass that never saw the batch."""
    samples = text(6)
    loaded = build("llama", torch.float64)
    poison(loaded, batch=1, layer=1)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [6], on_nonfinite="skip")
    assert [item["batch"] for item in capture.facts["skipped_batches"]] == [1]
    assert "layer" in capture.facts["skipped_batches"][0]["where"]
    kept = text(6)
    clean = kept.ids[torch.tensor([0, 1, 4, 5])]
    expected = brute_taylor(
        build("llama", torch.float64), plain_gradients(build("llama", torch.float64), list(clean.split(2)))
    )
    for structure in STRUCTURES:
        torch.testing.assert_close(
            capture.score("taylor", 6, structure).double(), expected[structure], rtol=1e-6, atol=0
        )


def test_a_nan_batch_is_fatal_when_so_configured() -> None:
    loaded = build("llama")
    poison(loaded, batch=1, layer=1)
    with pytest.raises(
        NumericsError, match=r"batch 1: the gradient of layer 1, mlp.*NaN.*capture.on_nonfinite=skip"
    ):
        capture_of(loaded, text(6), Level.GRADIENTS, [6], on_nonfinite="fail")


def test_only_nan_batches_are_an_error() -> None:
    loaded = build("llama")
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NumericsError, match="none of the first 4"):
        capture_of(loaded, text(4), Level.GATE, [4])


def test_gradients_that_were_there_before_do_not_count() -> None:
    loaded, samples = build("llama"), text(4)
    clean = capture_of(loaded, samples, Level.GRADIENTS, [4])
    for parameter in loaded.model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    again = capture_of(loaded, samples, Level.GRADIENTS, [4])
    assert torch.equal(clean.score("taylor", 4, "mlp"), again.score("taylor", 4, "mlp"))


@pytest.mark.parametrize("level", [Level.GATE, Level.GRADIENTS])
def test_gradients_take_one_float32_copy_and_one_at_a_time(variant: str, level: Level) -> None:
    """`taylor_gate` forms no gradient of a parameter; `taylor` frees each one before the next is there."""
    loaded, samples = build(variant), text(2)
    parameters = list(loaded.model.parameters())
    walk = CalibrationPass(loaded, CaptureConfig(priors=()), level, list(ESTIMATORS.values()))
    alive = list[int]()
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda _: alive.append(sum(p.grad is not None for p in parameters))
            )
    walk.batch(samples.ids, samples.mask(slice(0, 2)), 0)
    held = sum(item.accumulator.nbytes for item in walk.folder.tracked) if walk.folder else 0
    walk.close()
    prunable: list[torch.Tensor] = []
    for layer in loaded.adapter.decoder_layers(loaded.model):
        for projection in loaded.adapter.projections:
            module = linear(layer, projection)
            assert module is not None
            cut = module.bias is not None and projection.axis == 0  # the other biases are nobody's
            prunable += [module.weight, module.bias] if cut else [module.weight]
    if level == Level.GATE:
        assert (alive, held) == ([], 0)
    else:
        assert alive == [0] * len(prunable)
        assert held == 4 * sum(tensor.numel() for tensor in prunable)
