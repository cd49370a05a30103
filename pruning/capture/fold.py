"""How a gradient reaches its accumulator and is measured on the way: one contract, and PyTorch's own operations for it.

Shapes: P tracked tensors, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from secateur.pruning.capture.fusible import fusible
from secateur.pruning.capture.moments import chunk_moments, combine, moments_of
from secateur.pruning.capture.views import row_chunks
from secateur.pruning.models.adapter import Projection

CPU_CHUNK = 2**17
"""Elements that are worked on at once on a CPU, small enough to stay in its cache."""


@dataclass
class Tracked:
    """One parameter whose gradient is folded.

    Attributes:
        name: Path below the layer, with `.weight` or `.bias`.
        accumulator: float32 (float64 for float64 models), the parameter's shape, sum over batches.
        squares: float64 [units], or None: sum over batches and the unit's weights of (w x g)^2.
    """

    layer: int
    name: str
    projection: Projection
    units: int
    parameter: nn.Parameter
    accumulator: torch.Tensor
    squares: torch.Tensor | None


class Fold(Protocol):
    """Folds the gradients of a batch; tensors go by their number among the tracked ones."""

    def begin(self) -> None:
        """Announce a batch."""
        ...

    def add(self, number: int, gradient: torch.Tensor, scale: float) -> None:
        """Add `gradient` / `scale`, and measure `gradient`. What is not finite leaves no NaN in the accumulator."""
        ...

    def remove(self, number: int, gradient: torch.Tensor, scale: float) -> None:
        """Take back what `add` did with the same gradient in an earlier batch."""
        ...

    def moments(self) -> dict[int, torch.Tensor]:
        """Moments (see `moments_of`) of the batch's gradients, float64 [5] on the host, first to arrive first.

        The first moment is not finite where the gradient is not. May wait for the device, once.
        """
        ...

    def folded(self) -> set[int]:
        """Numbers of the tensors that the batch has changed."""
        ...


def fold_for(tracked: Sequence[Tracked], *, offload: bool) -> Fold:
    """The fused kernels where they can be used, else PyTorch's own operations."""
    if not fusible(item.parameter for item in tracked):
        return PlainFold(tracked)
    from secateur.pruning.capture.fused_fold import FusedFold  # Triton is loaded only where it is used

    return FusedFold(tracked, offload=offload)


class PlainFold:
    """PyTorch's own operations, on any device and in any dtype."""

    def __init__(self, tracked: Sequence[Tracked]) -> None:
        self._tracked = tracked
        self._moments: dict[int, torch.Tensor] = {}

    def begin(self) -> None:
        """See `Fold`."""
        self._moments = {}

    def add(self, number: int, gradient: torch.Tensor, scale: float) -> None:
        """See `Fold`; a gradient that is not finite is not added, or as zeros."""
        item = self._tracked[number]
        if gradient.device.type == "cpu":
            if not bool(torch.isfinite(gradient.sum())) and not bool(torch.isfinite(gradient).all()):
                self._moments[number] = torch.full((5,), torch.nan, dtype=torch.float64)
                return
            self._moments[number] = _fold_cpu(item.accumulator, gradient, 1.0 / scale)
        else:  # no wait for the device: a bad gradient is folded as zeros and found out at the end of the batch
            bad = ~torch.isfinite(gradient).all()
            self._moments[number] = moments_of(gradient)
            self._moments[number][0] += torch.where(bad, torch.nan, 0.0)
            gradient = torch.where(bad, torch.zeros_like(gradient), gradient)
            _add(item.accumulator, gradient, 1.0 / scale)
        _add_squares(item, gradient, 1.0 / scale**2)

    def remove(self, number: int, gradient: torch.Tensor, scale: float) -> None:
        """See `Fold`."""
        item = self._tracked[number]
        _add(item.accumulator, gradient, -1.0 / scale)
        _add_squares(item, gradient, -1.0 / scale**2)

    def moments(self) -> dict[int, torch.Tensor]:
        """See `Fold`."""
        if not self._moments:
            return {}
        return dict(zip(self._moments, torch.stack(list(self._moments.values())).cpu(), strict=True))

    def folded(self) -> set[int]:
        """See `Fold`."""
        return {number for number, moments in self.moments().items() if bool(torch.isfinite(moments[0]))}


def _add(accumulator: torch.Tensor, gradient: torch.Tensor, factor: float) -> None:
    accumulator.add_(gradient.to(accumulator.device, accumulator.dtype), alpha=factor)


def _fold_cpu(accumulator: torch.Tensor, gradient: torch.Tensor, factor: float) -> torch.Tensor:
    """Add and measure in one walk over cache-sized chunks. float64 [5]."""
    flat, into = gradient.view(-1), accumulator.view(-1)
    parts: list[torch.Tensor] = []
    for start in range(0, flat.numel(), CPU_CHUNK):
        chunk = flat[start : start + CPU_CHUNK].to(accumulator.dtype)
        into[start : start + CPU_CHUNK].add_(chunk, alpha=factor)
        parts.append(chunk_moments(chunk))
    return combine(torch.stack(parts))


def _add_squares(item: Tracked, gradient: torch.Tensor, factor: float) -> None:
    if item.squares is None:
        return
    wide = item.accumulator.dtype
    axis = item.projection.axis
    if gradient.dim() == 1:
        per_feature = (item.parameter.to(wide) * gradient.to(wide)).square().double()
    else:
        per_feature = torch.zeros(gradient.shape[axis], dtype=torch.float64, device=gradient.device)
        for rows in row_chunks(gradient):
            part = (
                (item.parameter[rows].to(wide) * gradient[rows].to(wide))
                .square_()
                .sum(1 - axis, dtype=torch.float64)
            )
            if axis == 0:
                per_feature[rows] = part
            else:
                per_feature += part
    item.squares += per_feature.reshape(item.units, -1).sum(1) * factor
