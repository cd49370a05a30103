"""Cut a model block by block and refit each output projection (`o_proj`, `down_proj`) to what was lost.

For every block, first to last: Gram matrix of the units' activation in the model as cut so far, cross moments with the
target, slice, solve. The target is between the block's own output before the cut (0) and what makes the residual
stream the dense model's again (1), which also undoes the error of the blocks before. Ridge refits after pruning:
OSSCAR (Meng et al. 2024, arXiv 2403.18093), GRAIL; the ridge is chosen block by block on held-out calibration text.

Shapes: D hidden, F features of a block's units, T all tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.pruning.compensation.walk import Stream, activations, advance, start
from secateur.pruning.config_method import CompensationConfig
from secateur.pruning.errors import NumericsError
from secateur.pruning.least_squares import best_refit
from secateur.pruning.models.adapter import STRUCTURES, ModelAdapter, Structure, linear
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.models.modeling_pruned import give_bias
from secateur.pruning.plan import LayerPlan, PruningPlan
from secateur.pruning.surgery import check_fits, features_of, finish, slice_block

BATCH_TOKENS = 4096
"""Tokens that go through a block together."""


@dataclass
class Moments:
    """Sums over tokens, float64: Gram matrix [F, F], cross moments with the target [F, D], activation [F].

    A bias needs the activation alone; its other sums are empty.
    """

    gram: torch.Tensor
    cross: torch.Tensor
    total: torch.Tensor
    tokens: int = 0


@torch.no_grad()
def cut_and_refit(
    loaded: LoadedModel,
    plan: PruningPlan,
    ids: torch.Tensor,
    config: CompensationConfig,
    reference: LoadedModel | None = None,
    advanced: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Cut `loaded.model` in place to what `plan` keeps, with compensation.

    Args:
        loaded: The model, dense or partly pruned.
        plan: In the model's own units.
        ids: Calibration samples [N, T].
        config: Kind of compensation, its target and ridge.
        reference: The dense model that the target comes from; None when `loaded` is still dense.
        advanced: Called after each layer.

    Returns:
        Facts for the record: the ridge of every block, the tokens that were read.

    Raises:
        NumericsError: An activation is NaN or infinite.
    """
    model, adapter, device = loaded.model, loaded.adapter, loaded.device
    check_fits(model, adapter, plan)
    batches = [part.to(device) for part in ids.split(max(1, BATCH_TOKENS // ids.shape[1]))]
    held_out = _held_out(len(batches), config)
    home = torch.device("cpu") if config.onload else device
    pruned = start(model, adapter, batches, home)
    dense = Stream([state.clone() for state in pruned.states], pruned.keywords, home)
    guide = None
    if reference is not None:
        guide = _Guide(reference, start(reference.model, reference.adapter, batches[:1], home), device)
        dense.keywords = guide.keywords(batches, home)
    repairs = config.kind == "least_squares" and config.target > 0
    origins = getattr(model.config, "secateur_layers", None) or list(range(len(plan.layers)))
    ridges: dict[str, float] = {}
    moved = reference is not None  # before the first cut the streams are alike: nothing to repair
    for index, (layer, keep) in enumerate(zip(adapter.decoder_layers(model), plan.layers, strict=True)):
        if guide is not None:
            guide.catch_up(dense, origins[index])
        for structure in STRUCTURES:
            fit = None
            cut = len(keep.kept(structure)) < keep.units(structure)
            moved = moved or cut
            late = moved and repairs  # undo what earlier blocks did
            if _has(layer, adapter, structure, keep) and (cut or late or config.kind == "bias"):
                fit = _Fit(layer, adapter, structure, keep, config, device)
            if guide is not None:
                guide.pass_block(dense, origins[index], structure)
            elif repairs:
                advance(dense, layer, adapter, structure, index, device)
            moments = None if fit is None else fit.moments(pruned, dense, index, held_out)
            slice_block(layer, adapter, structure, keep)
            if fit is not None and moments is not None:
                ridges[f"{origins[index]}/{structure}"] = fit.solve(*moments)
            if keep.kept(structure):
                advance(pruned, layer, adapter, structure, index, device)
        advanced()
    finish(model, adapter, plan)
    return {"ridge": ridges, "tokens": int(ids.numel()), "samples": len(ids)}


def _has(layer: nn.Module, adapter: ModelAdapter, structure: Structure, keep: LayerPlan) -> bool:
    """Whether a block exists and keeps units."""
    return linear(layer, adapter.output(structure)) is not None and bool(keep.kept(structure))


def _held_out(batches: int, config: CompensationConfig) -> int:
    """How many batches, at the end, choose the ridge; none where there is nothing to choose or to spare."""
    if config.kind == "bias" or len(config.ridge) == 1 or batches < 2:
        return 0
    return min(batches - 1, round(config.held_out * batches) or 1)


class _Fit:
    """The refit of one output projection."""

    def __init__(
        self,
        layer: nn.Module,
        adapter: ModelAdapter,
        structure: Structure,
        keep: LayerPlan,
        config: CompensationConfig,
        device: torch.device,
    ) -> None:
        output = linear(layer, adapter.output(structure))
        assert output is not None
        self.layer, self.adapter = layer, adapter
        self.structure: Structure = structure
        self.output, self.config, self.device = output, config, device
        self.weight = output.weight.double()
        self.kept = features_of(
            output, adapter.output(structure), keep.kept(structure), keep.units(structure)
        )

    def moments(
        self, pruned: Stream, dense: Stream, index: int, held_out: int
    ) -> tuple[Moments, Moments | None]:
        """Moments of the batches that fit, and of those that choose the ridge."""
        parts = [self._empty(), self._empty()]
        fitting = len(pruned.states) - held_out
        block = self.adapter.block(self.structure)
        repairs = self.config.target > 0 and block.linear  # behind a norm nothing linear undoes an error
        share = self.config.target / block.factor(self.layer)
        walk = activations(pruned, self.layer, self.adapter, self.structure, index, self.device)
        for batch, (state, added, units) in enumerate(walk):
            part = parts[batch >= fitting]
            flat = units.flatten(0, 1).double()
            part.total += flat.sum(0)
            part.tokens += len(flat)
            if self.config.kind == "bias":
                continue
            part.gram.addmm_(flat.T, flat)
            if repairs:
                goal = dense.states[batch].to(self.device) - state
                gap = (goal - added).flatten(0, 1).double()
                part.cross.addmm_(flat.T, gap, alpha=share)
        for part in parts:
            if self.config.kind != "bias":
                part.cross.addmm_(part.gram, self.weight.T)
            if not bool(torch.isfinite(part.total).all() & torch.isfinite(part.cross).all()):
                raise NumericsError(
                    f"{self.adapter.output(self.structure).path}: an activation is NaN or infinite; "
                    "use model.dtype=bfloat16 or float32"
                )
        return parts[0], parts[1] if held_out else None

    def solve(self, fit: Moments, held_out: Moments | None) -> float:
        """Put the refitted columns, or the bias, in place; returns the ridge (0 for a bias)."""
        if self.config.kind == "bias":
            self._shift(fit)
            return 0.0
        chosen = None if held_out is None else (held_out.gram, held_out.cross)
        weight, ridge = best_refit(self.weight, (fit.gram, fit.cross), chosen, self.kept, self.config.ridge)
        self.output.weight.copy_(weight.to(self.output.weight))
        return ridge

    def _shift(self, fit: Moments) -> None:
        """Add what the removed features gave on average to the bias (FLAP, arXiv 2312.11983, equation 6)."""
        gone = torch.ones(len(fit.total), dtype=torch.bool, device=fit.total.device)
        gone[self.kept] = False
        give_bias(self.output)
        assert self.output.bias is not None
        self.output.bias.add_((self.weight[:, gone] @ (fit.total[gone] / fit.tokens)).to(self.output.bias))

    def _empty(self) -> Moments:
        hidden, features = self.weight.shape
        rows = 0 if self.config.kind == "bias" else features
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.device}
        return Moments(
            torch.zeros(rows, rows, **options),
            torch.zeros(rows, hidden, **options),
            torch.zeros(features, **options),
        )


class _Guide:
    """The dense model beside a partly pruned one; its layers visit the device one at a time."""

    def __init__(self, reference: LoadedModel, first: Stream, device: torch.device) -> None:
        self.adapter, self.device = reference.adapter, device
        self.layers = reference.adapter.decoder_layers(reference.model)
        self.first, self.position = first, 0
        self.reference = reference

    def keywords(
        self, batches: list[torch.Tensor], home: torch.device
    ) -> dict[tuple[int, int], dict[str, Any]]:
        """What the dense layers are told, for every batch size."""
        odd = [ids for ids in batches if (0, ids.shape[0]) not in self.first.keywords]
        more = start(self.reference.model, self.adapter, odd[:1], home).keywords if odd else {}
        return self.first.keywords | more

    def catch_up(self, dense: Stream, origin: int) -> None:
        """Pass the dense layers that the pruned model has lost."""
        while self.position < origin:
            for structure in STRUCTURES:
                self.pass_block(dense, self.position, structure)

    def pass_block(self, dense: Stream, origin: int, structure: Structure) -> None:
        """Pass one block of the dense model."""
        layer = self.layers[origin]
        home = next(layer.parameters()).device
        layer.to(self.device)
        advance(dense, layer, self.adapter, structure, origin, self.device)
        if home != self.device:
            layer.to(home)
        if structure == STRUCTURES[-1]:
            self.position = origin + 1
