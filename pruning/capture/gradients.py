"""Weight gradients, folded into float32 accumulators the moment they exist, and measured on the way.

A post-accumulate hook adds each parameter's batch gradient to its accumulator, takes its statistics and frees it, so
that never more than one gradient is alive. A batch that turns out to be NaN or infinite is taken back.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from secateur.pruning.capture.fold import Tracked, fold_for
from secateur.pruning.capture.moments import powers, statistics
from secateur.pruning.models.adapter import ModelAdapter, Projection, linear
from secateur.pruning.models.layout import Layout


class GradientFolder:
    """Owns the hooks and the accumulators of the prunable parameters of some layers.

    Attributes:
        tracked: What is folded.
        hold: Let gradients add up in `parameter.grad`: more of the same batch follows.
    """

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
        self._moments: dict[int, torch.Tensor] | None = None
        self._undo: set[int] | None = None
        self._scale = 1.0
        self._unfinished = False
        self.hold = False
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
        self._fold = fold_for(self.tracked, offload=offload)

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
        self._moments, self._scale, self._undo = None, scale, undo
        self._fold.begin()

    @torch.no_grad()
    def _receive(self, number: int, parameter: torch.Tensor) -> None:
        if self.hold:
            return
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        self._unfinished = True
        if self._undo is None:
            self._fold.add(number, gradient, self._scale)
        elif number in self._undo:
            self._fold.remove(number, gradient, self._scale)
        self._unfinished = False

    @property
    def torn(self) -> bool:
        """Whether a fold was cut short: what it has changed is not known."""
        return self._unfinished

    def drop(self) -> None:
        """Forget gradients that were held."""
        for item in self.tracked:
            item.parameter.grad = None

    def _measured(self) -> dict[int, torch.Tensor]:
        """Moments of this batch's gradients; asked for once, at its end."""
        if self._moments is None:
            self._moments = self._fold.moments()
        return self._moments

    def bad(self) -> list[int]:
        """Numbers of the tensors whose gradient was not finite in this batch, first to arrive (topmost layer) first."""
        return [
            number for number, moments in self._measured().items() if not bool(torch.isfinite(moments[0]))
        ]

    def folded(self) -> set[int]:
        """Numbers of the tensors that this batch was added to."""
        return self._fold.folded()

    def batch_statistics(self) -> torch.Tensor:
        """Statistics of this batch's own gradient, float64 [P, 5] for P tracked tensors (NaN where none arrived)."""
        missing = torch.full((5,), torch.nan, dtype=torch.float64)
        moments = self._measured()
        rows = torch.stack([moments.get(number, missing) for number in range(len(self.tracked))])
        sizes = torch.tensor([item.parameter.numel() for item in self.tracked], dtype=torch.float64)
        return statistics(rows / powers(self._scale), sizes)

    def close(self) -> None:
        """Remove every hook and freeze the parameters again."""
        for handle in self._handles:
            handle.remove()
        for item in self.tracked:
            item.parameter.requires_grad_(False)
            item.parameter.grad = None


def requires_gradient(model: Any, value: bool) -> dict[str, bool]:
    """Set `requires_grad` of every parameter; return what it was."""
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(value)
    return before
