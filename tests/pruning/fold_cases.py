"""What every fold has to do, fused or not; run by `test_kernels.py`.

On a machine without a GPU the kernels run in Triton's interpreter, which has to be chosen before Triton is imported: in
a process of its own. On a GPU the same cases run there.
"""

import os
from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from torch import nn

from secateur.pruning.capture.fold import Fold, PlainFold, Tracked
from secateur.pruning.capture.fused_fold import FusedFold
from secateur.pruning.capture.gradients import GradientFolder
from secateur.pruning.models.adapter import Projection
from tests.pruning.conftest import VARIANTS, build

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
HALVES = (torch.bfloat16, torch.float16)
DTYPES = (*HALVES, torch.float32)
FOLDS: dict[str, Callable[[Sequence[Tracked]], Fold]] = {
    "plain": PlainFold,
    "fused": lambda tracked: FusedFold(tracked, offload=False),
    "fused, offload": lambda tracked: FusedFold(tracked, offload=True),
}
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
