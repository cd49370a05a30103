"""What a batch shows at every output projection's input, held back until it counts: a contract, and PyTorch's own way.

Shapes: B batch, T tokens, F features of a projection's input, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from secateur.pruning.capture.fusible import fusible
from secateur.pruning.models.adapter import Structure


@dataclass
class Site:
    """What one output projection's input has shown so far (all float64, on the model's device)."""

    layer: int
    structure: Structure
    units: int
    total: torch.Tensor
    squares: torch.Tensor
    gate: torch.Tensor
    slopes: list[torch.Tensor] = field(default_factory=list)
    """Per batch: float64 [B], sum over tokens and features of a x dL_sample/da: minus the first-order loss rise."""
    gram: torch.Tensor | None = None
    """[F, F], sum over tokens of a a^T."""
    curvature: torch.Tensor | None = None
    """[D, D], sum over tokens of g g^T, g = slope of the summed loss at the projection's output."""


class SiteSums(Protocol):
    """Sums over one batch; sites go by their number."""

    def begin(self, text: torch.Tensor | None, scale: float) -> None:
        """Announce samples; `text` bool [B, T], None where every token counts; `scale` is the factor on their loss."""
        ...

    def more(self, text: torch.Tensor | None) -> None:
        """Announce further samples, to be committed with those before."""
        ...

    def see(self, number: int, activation: torch.Tensor) -> None:
        """Take an activation [B, T, F]."""
        ...

    def receive(self, number: int, activation: torch.Tensor, slope: torch.Tensor) -> None:
        """Take a x dL/da, from an activation and its slope [B, T, F]."""
        ...

    def unsound(self) -> int | None:
        """The first site with a sum that is not finite. May wait for the device."""
        ...

    def commit(self, sizes: Sequence[int]) -> None:
        """Add the samples to the sites: batches of `sizes`, which turn a batch's mean slope into one per sample."""
        ...


def sums_for(sites: Sequence[Site], weights: Sequence[torch.Tensor]) -> SiteSums:
    """The fused kernels where they can be used, else PyTorch's own operations; `weights` of the sites' projections."""
    if not fusible(weights):
        return PlainSums(sites)
    from secateur.pruning.capture.fused_sums import FusedSums  # Triton is loaded only where it is used

    return FusedSums(sites)


class PlainSums:
    """PyTorch's own operations, on any device and in any dtype."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites
        self._pending: dict[int, dict[str, torch.Tensor]] = {}
        self._text: torch.Tensor | None = None
        self._scale = 1.0

    def begin(self, text: torch.Tensor | None, scale: float) -> None:
        """See `SiteSums`."""
        self._pending = {number: {} for number in range(len(self._sites))}
        self._text, self._scale = text, scale

    def more(self, text: torch.Tensor | None) -> None:
        """See `SiteSums`."""
        self._text = text

    def see(self, number: int, activation: torch.Tensor) -> None:
        """See `SiteSums`."""
        rows = text_rows(activation, self._text)
        self._add(number, "total", rows.sum(0).double())
        self._add(number, "squares", rows.square().sum(0).double())

    def receive(self, number: int, activation: torch.Tensor, slope: torch.Tensor) -> None:
        """See `SiteSums`."""
        dtype = wide(activation)
        product = (activation.to(dtype) * slope.to(dtype)).sum(1).double() / self._scale  # [B, F]
        per_unit = product.reshape(product.shape[0], self._sites[number].units, -1).sum(2)  # [B, U]
        self._add(number, "gate", per_unit.abs().sum(0))
        before = self._pending[number].get("slope")
        slope = per_unit.sum(1)
        self._pending[number]["slope"] = slope if before is None else torch.cat([before, slope])

    def _add(self, number: int, name: str, value: torch.Tensor) -> None:
        before = self._pending[number].get(name)
        self._pending[number][name] = value if before is None else before + value

    def unsound(self) -> int | None:
        """See `SiteSums`."""
        for number, pending in self._pending.items():
            if not all(bool(torch.isfinite(value).all()) for value in pending.values()):
                return number
        return None

    def commit(self, sizes: Sequence[int]) -> None:
        """See `SiteSums`."""
        for number, pending in self._pending.items():
            site = self._sites[number]
            site.total += pending["total"]
            site.squares += pending["squares"]
            if "gate" in pending:
                site.gate += pending["gate"]
                parts = pending["slope"].split(list(sizes))
                site.slopes += [part * size for part, size in zip(parts, sizes, strict=True)]
        self._pending = {}


def text_rows(activation: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
    """An activation [B, T, F] as rows [B x T, F] to compute with; zeros where `text` [B, T] is false."""
    counted = activation if text is None else activation * text[..., None].to(activation)
    return counted.reshape(-1, counted.shape[-1]).to(wide(counted))


def wide(tensor: torch.Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or float64 for float64 models."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
