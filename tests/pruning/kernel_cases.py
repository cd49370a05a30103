"""What every fold and every sum of activations has to do, fused or not; run by `test_kernels.py`.

On a machine without a GPU the kernels run in Triton's interpreter, which has to be chosen before Triton is imported: in
a process of its own. On a GPU the same cases run there.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from pruning.capture import fusible
from pruning.capture.fold import Fold, PlainFold, Tracked, fold_for
from pruning.capture.fused_fold import FusedFold
from pruning.capture.fused_sums import FusedSums
from pruning.capture.gradients import GradientFolder
from pruning.capture.result import Capture
from pruning.capture.site_sums import PlainSums, Site, SiteSums, sums_for
from pruning.capture.views import Level
from pruning.models.adapter import Projection
from tests.pruning.conftest import VARIANTS, build, capture_of, text

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
HALVES = (torch.bfloat16, torch.float16)
DTYPES = (*HALVES, torch.float32)
FOLDS: dict[str, Callable[[Sequence[Tracked]], Fold]] = {
    "plain": PlainFold,
    "fused": lambda tracked: FusedFold(tracked, offload=False),
    "fused, offload": lambda tracked: FusedFold(tracked, offload=True),
}
SUMS: dict[str, Callable[[Sequence[Site]], SiteSums]] = {"plain": PlainSums, "fused": FusedSums}
SMALL = {"intermediate_size": 12, "num_hidden_layers": 2}
ODD = [(1, 1), (7, 13), (70, 3), (5, 4099), (2, 20000), (66, 260), (129,), (4100,)]


def tracked_of(shape: tuple[int, ...], axis: int, dtype: torch.dtype, units: int | None = None) -> Tracked:
    weight = nn.Parameter(torch.randn(shape, device=DEVICE).to(dtype))
    along = shape[0] if len(shape) == 1 else shape[axis]
    projection = Projection("mlp.up_proj", "mlp", 0 if axis == 0 else 1)
    zeros = torch.zeros(shape, device=DEVICE)
    squares = torch.zeros(units or along, dtype=torch.float64, device=DEVICE)
    return Tracked(0, "weight", projection, units or along, weight, zeros, squares)


def family(variant: str, dtype: torch.dtype, *, squares: bool) -> list[Tracked]:
    """What is tracked in one layer of a family's model."""
    loaded = build(variant, dtype, intermediate_size=12)
    loaded.model.to(DEVICE)
    folder = GradientFolder(
        loaded.model, loaded.adapter, loaded.layout, layers=range(1, 2), squares=squares, offload=False
    )
    folder.close()
    return folder.tracked


def gradients_of(tracked: Sequence[Tracked], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(t.parameter.shape, generator=generator) * 10.0 ** (seed - 3)).to(
            DEVICE, t.parameter.dtype
        )
        for t in tracked
    ]


def exact_moments(gradient: torch.Tensor) -> torch.Tensor:
    g = gradient.double().cpu()
    return torch.stack([g.abs().sum(), g.sum(), g.square().sum(), g.max(), g.min()])


def exact_squares(item: Tracked, gradient: torch.Tensor, scale: float) -> torch.Tensor:
    """(w x g)^2 summed over each unit, index by index of the units."""
    each = (item.parameter.detach().double() * gradient.double() / scale).square()
    along = each if each.dim() == 1 else each.sum(1 - item.projection.axis)
    return along.reshape(item.units, -1).sum(1)


def folds_like_float64(tracked: list[Tracked], fold: Fold, scale: float, batches: int = 1) -> None:
    """Some batches; everything that is kept and told against float64. PyTorch's own norms are a little less exact."""
    exact = 5e-6 if isinstance(fold, PlainFold) else 1e-6
    sums = [torch.zeros_like(t.accumulator, dtype=torch.float64) for t in tracked]
    squares = [None if t.squares is None else torch.zeros_like(t.squares) for t in tracked]
    for seed in range(batches):
        gradients = gradients_of(tracked, seed)
        order = list(range(len(tracked)))[::-1]
        fold.begin()
        for number in order:
            fold.add(number, gradients[number], scale)
        moments = fold.moments()
        assert list(moments) == order
        assert fold.folded() == set(order)
        for number, gradient in enumerate(gradients):
            expected = exact_moments(gradient)
            near = exact * float(expected[0])  # a sum near zero is as exact as the sum of absolute values
            torch.testing.assert_close(moments[number][:3], expected[:3], rtol=2 * exact, atol=near)
            assert torch.equal(moments[number][3:], expected[3:])
            sums[number] += gradient.double() / scale
            if (kept := squares[number]) is not None:
                kept += exact_squares(tracked[number], gradient, scale)
    for item, total, kept in zip(tracked, sums, squares, strict=True):
        size = float(total.abs().max())
        torch.testing.assert_close(item.accumulator.double(), total, rtol=0, atol=4e-7 * size)
        if kept is not None and item.squares is not None:
            torch.testing.assert_close(item.squares, kept, rtol=2e-6, atol=0)


@pytest.mark.parametrize("kind", ["plain", "fused"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_weight_of_every_family(kind: str, dtype: torch.dtype, variant: str) -> None:
    for squares, scale, batches in ((True, 1024.0, 2), (False, 2.0**-10, 1)):
        tracked = family(variant, dtype, squares=squares)
        folds_like_float64(tracked, FOLDS[kind](tracked), scale, batches)


@pytest.mark.parametrize("kind", FOLDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_sizes(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tracked = [tracked_of(shape, axis, dtype) for shape, axis in product(ODD, (0, 1))]
    tracked += [tracked_of((10, 260), axis, dtype, units=5) for axis in (0, 1)]
    folds_like_float64(tracked, FOLDS[kind](tracked), 1.0)
    for item in tracked:
        item.squares = None
        item.accumulator.zero_()
    folds_like_float64(tracked, FOLDS[kind](tracked), 1.0)


@pytest.mark.parametrize("kind", FOLDS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e6])
@pytest.mark.parametrize("place", [0, -1])
def test_a_bad_gradient_is_found_and_taken_back(kind: str, bad: float, place: int) -> None:
    """1e6 is infinite in float16. The other tensors of the batch are fine, and are taken back too."""
    torch.manual_seed(0)
    tracked = [tracked_of((18, 40), axis, torch.float16) for axis in (0, 1)]
    fold = FOLDS[kind](tracked)
    before = gradients_of(tracked, 2)
    fold.begin()
    for number, gradient in enumerate(before):
        fold.add(number, gradient, 2.0)
    fold.moments()
    kept = [(item.accumulator.clone(), item.squares) for item in tracked]
    kept = [(total, None if squares is None else squares.clone()) for total, squares in kept]
    poisoned = gradients_of(tracked, 3)
    poisoned[1].view(-1)[place] = torch.tensor(bad).to(torch.float16)
    fold.begin()
    for number, gradient in enumerate(poisoned):
        fold.add(number, gradient, 2.0)
    moments = fold.moments()
    assert [bool(torch.isfinite(moments[number][0])) for number in (0, 1)] == [True, False]
    folded = fold.folded()
    assert 0 in folded
    assert all(bool(torch.isfinite(item.accumulator).all()) for item in tracked)
    fold.begin()
    for number in folded:
        fold.remove(number, poisoned[number], 2.0)
    for item, (total, squares) in zip(tracked, kept, strict=True):
        torch.testing.assert_close(item.accumulator, total, rtol=0, atol=1e-6)
        torch.testing.assert_close(item.squares, squares, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", FOLDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1e30, 1e-30, 3e38])
def test_sums_of_squares_neither_overflow_nor_vanish(kind: str, dtype: torch.dtype, size: float) -> None:
    if kind == "plain" and size < 1:
        pytest.skip("PyTorch's own norm of float32 has no room below 1e-19")
    item = tracked_of((40, 100), 0, dtype)
    item.squares = None
    gradient = (torch.rand(40, 100, device=DEVICE) * 2 - 1).mul(size).to(dtype)
    fold = FOLDS[kind]([item])
    fold.begin()
    fold.add(0, gradient, 1.0)
    found, expected = fold.moments()[0], exact_moments(gradient)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected[0]) * min(size, 1.0))


def test_the_walk_is_deterministic() -> None:
    """Two folds of the same gradients give the same bits."""
    torch.manual_seed(0)
    found: list[list[torch.Tensor]] = []
    for _ in range(2):
        torch.manual_seed(0)
        tracked = [tracked_of((20, 260), axis, torch.bfloat16) for axis in (0, 1)]
        fold = FOLDS["fused"](tracked)
        fold.begin()
        for number, gradient in enumerate(gradients_of(tracked, 1)):
            fold.add(number, gradient, 1.0)
        moments = fold.moments()
        found.append([*moments.values(), *(t.accumulator for t in tracked), *(t.squares for t in tracked)])  # type: ignore[list-item]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def sites_of(features: int, units: int, count: int = 2) -> list[Site]:
    def zeros(size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.float64, device=DEVICE)

    return [
        Site(layer, "mlp", units, zeros(features), zeros(features), zeros(units)) for layer in range(count)
    ]


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("features", "units", "tokens"), [(48, 48, 20), (260, 5, 70), (512, 4, 65), (13, 13, 1)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_sums_of_activations(
    kind: str, dtype: torch.dtype, features: int, units: int, tokens: int, padded: bool
) -> None:
    torch.manual_seed(0)
    sites = sites_of(features, units)
    sums = SUMS[kind](sites)
    expected = sites_of(features, units)
    slopes: list[list[torch.Tensor]] = [[] for _ in sites]
    for samples, scale in ((3, 1.0), (2, 1024.0)):
        mask = torch.rand(samples, tokens, device=DEVICE) < 0.7 if padded else None
        sums.begin(mask, scale)
        for number, site in enumerate(expected):
            x = torch.randn(tokens, samples, features, device=DEVICE).to(dtype).transpose(0, 1)
            slope = torch.randn(samples, tokens, features, device=DEVICE).to(dtype)
            sums.see(number, x)
            sums.receive(number, x, slope)
            exact = x.double() if mask is None else x.double() * mask[..., None]
            site.total += exact.sum((0, 1))
            site.squares += exact.square().sum((0, 1))
            each = (x.double() * slope.double()).sum(1).reshape(samples, units, -1).sum(2) / scale
            site.gate += each.abs().sum(0)
            slopes[number].append(each.sum(1) * samples)
        assert sums.unsound() is None
        sums.commit(samples)
    for number, (found, site) in enumerate(zip(sites, expected, strict=True)):
        torch.testing.assert_close(found.total, site.total, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(found.squares, site.squares, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.gate, site.gate, rtol=1e-5, atol=1e-4)
        for one, other in zip(found.slopes, slopes[number], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("where", ["activation", "slope"])
def test_a_bad_activation_is_found_and_leaves_no_trace(kind: str, where: str) -> None:
    sites = sites_of(40, 4)
    sums = SUMS[kind](sites)
    for bad in (True, False):
        sums.begin(None, 1.0)
        for number in range(len(sites)):
            x, slope = torch.ones(2, 9, 40, device=DEVICE), torch.ones(2, 9, 40, device=DEVICE)
            if bad and number == 1:
                (x if where == "activation" else slope)[1, 8, 39] = torch.nan
            sums.see(number, x)
            sums.receive(number, x, slope)
        assert sums.unsound() == (1 if bad else None)
    sums.commit(2)
    for site in sites:
        assert torch.equal(site.total, torch.full_like(site.total, 18.0))
        assert torch.equal(site.gate, torch.full_like(site.gate, 2 * 9 * 10.0))
        assert torch.equal(site.slopes[0], torch.full_like(site.slopes[0], 9 * 40 * 2.0))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Capture]:
    """Runs a whole pass through the kernels, wherever they run here."""

    def run(*args: Any, **options: Any) -> Capture:
        with monkeypatch.context() as patch:
            patch.setattr(fusible, "DEVICES", (DEVICE.type,))
            assert isinstance(
                fold_for(family("llama", torch.float32, squares=False), offload=False), FusedFold
            )
            assert isinstance(sums_for(sites_of(4, 4), [torch.zeros(1, device=DEVICE)]), FusedSums)
            return capture_of(*args, **options)

    return run


def on_device(variant: str, dtype: torch.dtype) -> Any:
    loaded = build(variant, dtype, **SMALL)
    return replace(loaded, model=loaded.model.to(DEVICE), device=DEVICE)


@pytest.mark.parametrize("variant", ["llama-mha-bias", "qwen3"])
@pytest.mark.parametrize("options", [{}, {"offload": True}, {"segments": 2}])
def test_a_pass_through_the_kernels_equals_one_without(
    variant: str, options: dict[str, Any], fused: Callable[..., Capture]
) -> None:
    samples = text(4)
    samples.lengths[1] = 11
    plain = capture_of(build(variant, **SMALL), samples, Level.SQUARES, [2, 4], priors=("gate",))
    found = fused(
        on_device(variant, torch.float32), samples, Level.SQUARES, [2, 4], priors=("gate",), **options
    )
    assert found.scores.keys() == plain.scores.keys()
    for key, value in plain.scores.items():
        torch.testing.assert_close(
            found.scores[key], value, rtol=1e-3 if DEVICE.type == "cuda" else 1e-4, atol=1e-9
        )
    torch.testing.assert_close(found.batch_statistics, plain.batch_statistics, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.prior_gate, plain.prior_gate, rtol=1e-3, atol=1e-5)
