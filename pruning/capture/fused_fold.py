"""The fold on a GPU: one walk over every gradient, one reduction of all moments, one wait at the end of the batch.

Numbers that are not finite are folded as zeros, one by one; the batch is found out at its end and taken back by the
same walk with the sign turned.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import torch

from secateur.pruning.capture import launches
from secateur.pruning.capture.fold import Tracked
from secateur.pruning.capture.launches import walk_over


class FusedFold:
    """`Fold` by the kernels; with `offload` the accumulators lie on the host, and the kernels measure only.

    All memory is taken at the start, so that a batch that runs out of it leaves no gradient half folded.
    """

    def __init__(self, tracked: Sequence[Tracked], *, offload: bool) -> None:
        device = tracked[0].parameter.device
        walks = [
            walk_over(item.parameter.shape, item.projection.axis, squares=item.squares is not None)
            for item in tracked
        ]
        self._tracked = tracked
        self._starts = [0, *accumulate(walk.programs for walk in walks)]
        self._borders = torch.tensor(self._starts, device=device)
        self._parts = torch.empty(self._starts[-1], 5, dtype=torch.float64, device=device)
        self._moments = torch.empty(len(tracked), 5, dtype=torch.float64, device=device)
        self._shapes = [walk.parts for walk in walks]
        wanted = [
            prod(walk.parts) for walk, item in zip(walks, tracked, strict=True) if item.squares is not None
        ]
        self._squares = torch.empty(max(wanted, default=0), dtype=torch.float32, device=device)
        self._per_unit = torch.empty(max(item.units for item in tracked), dtype=torch.float64, device=device)
        self._host = HostSum(max(item.parameter.nbytes for item in tracked), device) if offload else None
        self._arrived: list[int] = []

    def begin(self) -> None:
        """See `Fold`."""
        self._arrived = []

    def add(self, number: int, gradient: torch.Tensor, scale: float) -> None:
        """See `Fold`."""
        self._arrived.append(number)
        self._walk(number, gradient, 1.0 / scale, 1.0 / scale**2)

    def remove(self, number: int, gradient: torch.Tensor, scale: float) -> None:
        """See `Fold`."""
        self._walk(number, gradient, -1.0 / scale, -1.0 / scale**2)
        if self._host is not None:
            self._host.drain()

    def _walk(self, number: int, gradient: torch.Tensor, factor: float, square_factor: float) -> None:
        item, shape = self._tracked[number], self._shapes[number]
        gradient = gradient.contiguous()
        squares = None if item.squares is None else self._squares[: prod(shape)]
        launches.fold(
            gradient,
            None if squares is None else item.parameter.detach(),
            item.accumulator if self._host is None else None,
            self._parts[self._starts[number] : self._starts[number + 1]],
            squares,
            item.projection.axis,
            factor,
        )
        if self._host is not None:
            self._host.add(item.accumulator, gradient, factor)
        if item.squares is not None and squares is not None:
            per_unit = self._per_unit[: item.units]
            torch.sum(squares.view(shape[0], item.units, -1), (0, 2), dtype=torch.float64, out=per_unit)
            item.squares.add_(per_unit, alpha=square_factor)

    def moments(self) -> dict[int, torch.Tensor]:
        """See `Fold`."""
        launches.moments(self._parts, self._borders, self._moments)
        if self._host is not None:
            self._host.drain()
        found = self._moments.cpu()
        return {number: found[number] for number in self._arrived}

    def folded(self) -> set[int]:
        """See `Fold`; a bad gradient's finite part was folded too."""
        return set(self._arrived)


@dataclass(frozen=True)
class _Copy:
    accumulator: torch.Tensor
    gradient: torch.Tensor
    factor: float
    done: Any


class HostSum:
    """Adds gradients to accumulators on the host while the device works on; two copies may be under way.

    Numbers that are not finite are added as zeros, as the kernels do.
    """

    def __init__(self, nbytes: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._buffers = [torch.empty(nbytes, dtype=torch.uint8, pin_memory=cuda) for _ in range(2)]
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._under_way: deque[_Copy] = deque()
        self._turn = 0

    def add(self, accumulator: torch.Tensor, gradient: torch.Tensor, factor: float) -> None:
        """Start the copy of a gradient; its addition follows."""
        if len(self._under_way) == len(self._buffers):
            self._finish()
        buffer = self._buffers[self._turn][: gradient.nbytes].view(gradient.dtype).view(gradient.shape)
        self._turn = 1 - self._turn
        done = None
        if self._stream is None:
            buffer.copy_(gradient)
        else:
            self._stream.wait_stream(torch.cuda.current_stream(gradient.device))
            with torch.cuda.stream(self._stream):
                buffer.copy_(gradient, non_blocking=True)
                done = self._stream.record_event()
            gradient.record_stream(self._stream)
        self._under_way.append(_Copy(accumulator, buffer, factor, done))

    def drain(self) -> None:
        """Wait until everything is added."""
        while self._under_way:
            self._finish()

    def _finish(self) -> None:
        copy = self._under_way.popleft()
        if copy.done is not None:
            copy.done.synchronize()
        clean = copy.gradient.nan_to_num_(0.0, 0.0, 0.0)
        copy.accumulator.add_(clean.to(copy.accumulator.dtype), alpha=copy.factor)
