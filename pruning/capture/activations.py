"""Hooks on the units' activations: the inputs of `o_proj` and `down_proj`.

Shapes: B batch, T tokens, F features of a projection's input, U units.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from pruning.capture.site_sums import Site, sums_for, text_rows, wide
from pruning.models.adapter import STRUCTURES, ModelAdapter, Structure, linear
from pruning.models.layout import Layout


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
        self._pending: dict[int, dict[str, torch.Tensor]] = {}
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
        """Announce a batch: its text mask [B, T], best on the host, and the factor on its loss."""
        self._pending = {number: {} for number in range(len(self.sites))}
        self._text, self._scale, self._backward = None, scale, False
        if self.sites and not bool(mask.all()):
            self._text = mask.to(self.sites[0].total.device, non_blocking=True)
        self._sums.begin(self._text, scale)

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
                self._pending[number]["inputs"] = text_rows(seen, self._text)
            if activation.requires_grad:
                self._inputs[number] = seen
                activation.register_hook(lambda slope: self._receive(number, slope))
        return (activation, *inputs[1:]) if leaf else None

    def _see_output(self, number: int, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        """Ask for the slope at a projection's output [B, T, D]."""
        if output.requires_grad and not self._backward:

            def keep(slope: torch.Tensor) -> None:
                flat = slope.detach().reshape(-1, slope.shape[-1])
                self._pending[number]["slopes"] = flat.to(wide(flat)) / self._scale

            output.register_hook(keep)

    def _receive(self, number: int, slope: torch.Tensor) -> None:
        """Fold a x dL/da of one batch; `slope` [B, T, F]."""
        self._sums.receive(number, self._inputs.pop(number), slope)

    def finite(self) -> str | None:
        """None when everything pending is finite, else where it is not."""
        found = [] if (number := self._sums.unsound()) is None else [number]
        for number, pending in self._pending.items():
            if not all(bool(torch.isfinite(value).all()) for value in pending.values()):
                found.append(number)
        if not found:
            return None
        site = self.sites[min(found)]
        return f"layer {site.layer}, activation of {site.structure}"

    def commit(self, samples: int, targets: int = 1) -> None:
        """Add the batch to the totals.

        `samples` turns the batch-mean slope into one per sample, `targets` (predicted tokens) into one of the sum.
        """
        self._sums.commit(samples)
        for number, pending in self._pending.items():
            site = self.sites[number]
            if site.gram is not None and site.curvature is not None:
                for total, rows, factor in (
                    (site.gram, pending["inputs"], 1), (site.curvature, pending["slopes"], targets)
                ):  # fmt: skip
                    total += (rows.T @ rows * factor**2).to(total.device)
        self._pending, self._inputs = {}, {}

    def close(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
