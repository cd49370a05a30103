"""Weight gradients, folded into float32 accumulators the moment they exist, and measured on the way.

A post-accumulate hook adds each parameter's batch gradient to its accumulator, takes its statistics and frees it, so
that never more than one gradient is alive. A batch that turns out to be NaN or infinite is taken back.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from pruning.capture.moments import chunk_moments, combine, moments_of, powers, statistics
from pruning.capture.views import row_chunks
from pruning.models.adapter import ModelAdapter, Projection, linear
from pruning.models.layout import Layout

CPU_CHUNK = 2**17
"""Elements that are worked on at once on a CPU, small enough to stay in its cache."""


@dataclass
class Tracked:
    """One parameter whose gradient is folded.

    Attributes:
        name: Path below the layer, e.g. `self_attn.q_proj.weight`.
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


class GradientFolder:
    """Owns the hooks and the accumulators of the prunable parameters of some layers."""

    def __init__(
        self,
        model: nn.Module,
        adapter: ModelAdapter,
        layout: Layout,
        *,
        layers: range,
        squares: bool,
        offload: bool,
    ) -> None:
        self.tracked: list[Tracked] = []
        self._handles: list[RemovableHandle] = []
        self._moments: dict[int, torch.Tensor] = {}
        self._undo: set[int] | None = None
        self._scale = 1.0
        every = adapter.decoder_layers(model)
        for index in layers:
            for projection in adapter.projections:
                module = linear(every[index], projection)
                if module is None:
                    continue
                units = layout.layers[index].units(projection.structure)
                self._track(index, projection, units, module, "weight", squares, offload)
                if module.bias is not None and projection.axis == 0:
                    self._track(index, projection, units, module, "bias", squares, offload)

    def _track(
        self,
        layer: int,
        projection: Projection,
        units: int,
        module: nn.Linear,
        kind: str,
        squares: bool,
        offload: bool,
    ) -> None:
        parameter: nn.Parameter = getattr(module, kind)
        parameter.requires_grad_(True)
        wide = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        accumulator = torch.zeros_like(parameter, dtype=wide, device="cpu" if offload else parameter.device)
        unit_squares = torch.zeros(units, dtype=torch.float64, device=parameter.device) if squares else None
        number = len(self.tracked)
        self.tracked.append(
            Tracked(
                layer,
                f"{projection.path}.{kind}",
                projection,
                units,
                parameter,
                accumulator.detach(),
                unit_squares,
            )
        )
        self._handles.append(parameter.register_post_accumulate_grad_hook(lambda p: self._receive(number, p)))

    def begin(self, scale: float, undo: set[int] | None = None) -> None:
        """Announce a batch whose loss carries the factor `scale`; `undo` names the tensors to take it back from."""
        self._moments, self._scale, self._undo = {}, scale, undo

    @torch.no_grad()
    def _receive(self, number: int, parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        item = self.tracked[number]
        if self._undo is not None:
            if number in self._undo:
                _add(item.accumulator, gradient, -1.0 / self._scale)
                self._add_squares(item, gradient, -1.0)
            return
        if gradient.device.type == "cpu":
            if not bool(torch.isfinite(gradient.sum())) and not bool(torch.isfinite(gradient).all()):
                self._moments[number] = torch.full((5,), torch.nan, dtype=torch.float64)
                return
        else:  # no wait for the device: a bad gradient is folded as zeros and found out at the end of the batch
            bad = ~torch.isfinite(gradient).all()
            self._moments[number] = moments_of(gradient)
            self._moments[number][0] += torch.where(bad, torch.nan, 0.0)
            gradient = torch.where(bad, torch.zeros_like(gradient), gradient)
            _add(item.accumulator, gradient, 1.0 / self._scale)
            self._add_squares(item, gradient, 1.0)
            return
        self._moments[number] = _fold_cpu(item.accumulator, gradient, 1.0 / self._scale)
        self._add_squares(item, gradient, 1.0)

    def _add_squares(self, item: Tracked, gradient: torch.Tensor, sign: float) -> None:
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
        item.squares += per_feature.reshape(item.units, -1).sum(1) * (sign / self._scale**2)

    def bad(self) -> list[int]:
        """Numbers of the tensors whose gradient was not finite in this batch, first to arrive (topmost layer) first."""
        return [number for number, moments in self._moments.items() if not bool(torch.isfinite(moments[0]))]

    def folded(self) -> set[int]:
        """Numbers of the tensors that this batch was added to."""
        return set(self._moments) - set(self.bad())

    def batch_statistics(self) -> torch.Tensor:
        """Statistics of this batch's own gradient, float64 [P, 5] for P tracked tensors (NaN where none arrived)."""
        rows = []
        for number, item in enumerate(self.tracked):
            moments = self._moments.get(number)
            rows.append(
                torch.full((5,), torch.nan, dtype=torch.float64)
                if moments is None
                else statistics(moments.cpu() / powers(self._scale), item.parameter.numel())
            )
        return torch.stack(rows)

    def close(self) -> None:
        """Remove every hook and freeze the parameters again."""
        for handle in self._handles:
            handle.remove()
        for item in self.tracked:
            item.parameter.requires_grad_(False)
            item.parameter.grad = None


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


def requires_gradient(model: Any, value: bool) -> dict[str, bool]:
    """Set `requires_grad` of every parameter; return what it was."""
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(value)
    return before
