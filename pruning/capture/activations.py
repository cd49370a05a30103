"""Hooks on the units' activations: the inputs of `o_proj` and `down_proj`.

Shapes: B batch, T tokens, F features of a projection's input, U units.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from secateur.pruning.capture.site_sums import Site, sums_for, text_rows, wide
from secateur.pruning.models.adapter import STRUCTURES, ModelAdapter, Structure, linear
from secateur.pruning.models.layout import Layout


class ActivationRecorder:
    """Owns the hooks. Contributions of a batch are held back until `commit`, so that a bad batch leaves no trace."""

    def __init__(
        self,
        model: nn.Module,
        adapter: ModelAdapter,
        layout: Layout,
        *,
        layers: range,
        gradients: bool,
        moments: bool = False,
        offload: bool = False,
    ) -> None:
        self.sites: list[Site] = []
        self._gradients, self._moments, self._offload = gradients, moments, offload
        self._pending: dict[int, dict[str, list[torch.Tensor]]] = {}
        self._inputs: dict[int, torch.Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._text: torch.Tensor | None = None
        self._scale = 1.0
        self._backward = False
        weights: list[torch.Tensor] = []
        every = adapter.decoder_layers(model)
        for index in layers:
            for structure in STRUCTURES:
                module = linear(every[index], adapter.output(structure))
                if module is not None:
                    self._watch(module, index, structure, layout.layers[index].units(structure))
                    weights.append(module.weight)
        self._sums = sums_for(self.sites, weights)

    def _watch(self, module: nn.Linear, layer: int, structure: Structure, units: int) -> None:
        device = module.weight.device

        def zeros(size: int) -> torch.Tensor:
            return torch.zeros(size, dtype=torch.float64, device=device)

        features = module.in_features
        number = len(self.sites)
        site = Site(layer, structure, units, zeros(features), zeros(features), zeros(units))
        self.sites.append(site)
        if self._moments:
            place = torch.device("cpu") if self._offload else device
            dtype = wide(module.weight)
            site.gram = torch.zeros(features, features, dtype=dtype, device=place)
            site.curvature = torch.zeros(module.out_features, module.out_features, dtype=dtype, device=place)
            self._handles.append(module.register_forward_hook(partial(self._see_output, number)))

        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            return self._see(number, inputs)

        self._handles.append(module.register_forward_pre_hook(hook))

    def begin(self, mask: torch.Tensor, scale: float) -> None:
        """Announce samples: their text mask [B, T], best on the host, and the factor on their loss."""
        self._pending = {number: {"inputs": [], "slopes": []} for number in range(len(self.sites))}
        self._inputs, self._scale = {}, scale
        self._sums.begin(self._next(mask), scale)

    def more(self, mask: torch.Tensor) -> None:
        """Announce further samples, to be committed with those before."""
        self._sums.more(self._next(mask))

    def _next(self, mask: torch.Tensor) -> torch.Tensor | None:
        self._text, self._backward = None, False
        if self.sites and not bool(mask.all()):
            self._text = mask.to(self.sites[0].total.device, non_blocking=True)
        return self._text

    def begin_backward(self) -> None:
        """From here on, forward hooks that fire belong to gradient checkpointing's recomputation."""
        self._backward = True

    def _see(self, number: int, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        activation = inputs[0]
        leaf = self._gradients and torch.is_grad_enabled() and not activation.requires_grad
        if leaf:  # weights below are frozen: the backward pass ends here
            activation = activation.detach().requires_grad_()
        if self._backward:
            self._inputs[number] = activation.detach()
        else:
            seen = activation.detach()
            self._sums.see(number, seen)
            if self._moments:
                self._pending[number]["inputs"].append(text_rows(seen, self._text))
            if activation.requires_grad:
                self._inputs[number] = seen
                activation.register_hook(lambda slope: self._receive(number, slope))
        return (activation, *inputs[1:]) if leaf else None

    def _see_output(self, number: int, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        """Ask for the slope at a projection's output [B, T, D]."""
        if output.requires_grad and not self._backward:

            def keep(slope: torch.Tensor) -> None:
                flat = slope.detach().reshape(-1, slope.shape[-1])
                self._pending[number]["slopes"].append(flat.to(wide(flat)) / self._scale)

            output.register_hook(keep)

    def _receive(self, number: int, slope: torch.Tensor) -> None:
        """Fold a x dL/da of one batch; `slope` [B, T, F]."""
        self._sums.receive(number, self._inputs.pop(number), slope)

    def finite(self) -> str | None:
        """None when everything pending is finite, else where it is not."""
        found = [] if (number := self._sums.unsound()) is None else [number]
        for number, pending in self._pending.items():
            if not all(bool(torch.isfinite(value).all()) for values in pending.values() for value in values):
                found.append(number)
        if not found:
            return None
        site = self.sites[min(found)]
        return f"layer {site.layer}, activation of {site.structure}"

    def commit(self, sizes: Sequence[int], targets: Sequence[int]) -> None:
        """Add batches to the totals.

        `sizes` turn a batch's mean slope into one per sample, `targets` (predicted tokens) into one of the sum.
        """
        self._sums.commit(sizes)
        for number, pending in self._pending.items():
            site = self.sites[number]
            if site.gram is not None and site.curvature is not None:
                _add_products(site.gram, pending["inputs"], [1] * len(sizes), sizes)
                _add_products(site.curvature, pending["slopes"], targets, sizes)
        self._pending, self._inputs = {}, {}

    def close(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _add_products(
    total: torch.Tensor, parts: Sequence[torch.Tensor], factors: Sequence[int], sizes: Sequence[int]
) -> None:
    """Add r^T r, times each batch's squared factor, of rows [samples x T, F] that come in parts."""
    every = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    if len(set(factors)) == 1:
        batches = [(every, factors[0])]
    else:
        length = len(every) // sum(sizes)
        batches = list(zip(every.split([size * length for size in sizes]), factors, strict=True))
    for rows, factor in batches:
        total += (rows.T @ rows * factor**2).to(total.device)
