"""From accumulators to scores, at one moment of the pass, over all worker processes."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from secateur.pruning.capture.fold import Tracked
from secateur.pruning.capture.moments import moment_statistics
from secateur.pruning.capture.site_sums import Site
from secateur.pruning.capture.views import Estimator, ProjectionView
from secateur.pruning.capture.workers import Workers
from secateur.pruning.least_squares import block_cost
from secateur.pruning.models.adapter import STRUCTURES, Projection, linear
from secateur.pruning.models.loading import LoadedModel

BLOCK_RISE = "block_rise"


def batch_bounds(batch_size: int, snapshots: Sequence[int]) -> list[tuple[int, int]]:
    """Start and end of every batch; no batch crosses a snapshot, so that a snapshot equals a pass of its own."""
    bounds: list[tuple[int, int]] = []
    start = 0
    for end in snapshots:
        while start < end:
            stop = min(start + batch_size, end)
            bounds.append((start, stop))
            start = stop
    return bounds


def take(
    loaded: LoadedModel,
    layers: range,
    estimators: Sequence[Estimator],
    sites: Sequence[Site],
    tracked: Sequence[Tracked],
    workers: Workers,
    tokens: int,
    batches: int,
) -> dict[str, torch.Tensor]:
    """Score every unit of some layers from what was accumulated so far.

    Returns:
        "estimator/structure" -> float32 [U], and with second moments "block_rise/structure" -> float64, one number per
        layer: the second-order estimate of the loss rise (nats) when the block is bypassed.
    """
    by_name = {(t.layer, t.name): t for t in tracked}
    by_place = {(s.layer, s.structure): s for s in sites}
    scores: dict[str, list[torch.Tensor]] = defaultdict(list)
    blocks = {s: torch.zeros(len(layers), dtype=torch.float64) for s in STRUCTURES}
    every = loaded.adapter.decoder_layers(loaded.model)
    for structure in STRUCTURES:
        for place, index in enumerate(layers):
            units = loaded.layout.layers[index].units(structure)
            sums = {e.name: torch.zeros(units, dtype=torch.float64, device=loaded.device) for e in estimators}
            for projection in loaded.adapter.of(structure) if units else ():
                module = linear(every[index], projection)
                assert module is not None
                view = ProjectionView(
                    projection,
                    index,
                    units,
                    module.weight.detach(),
                    None if module.bias is None else module.bias.detach(),
                    tokens=tokens,
                    batches=batches,
                    **_activations(workers, by_place.get((index, structure)), projection),
                    **_gradients(workers, by_name, index, projection),
                )
                if view.gram is not None and view.curvature is not None:
                    cost = block_cost(view.weight, view.gram, view.curvature)
                    blocks[structure][place] = 0.5 * float(cost) / view.tokens**2
                for estimator in estimators:
                    part = estimator.share(view)
                    if part is not None:
                        sums[estimator.name] += part.to(loaded.device)
            for name, value in sums.items():
                scores[f"{name}/{structure}"].append(value.float().cpu())
    found = {name: torch.cat(parts) for name, parts in scores.items()}
    if any(site.gram is not None for site in sites):
        found |= {f"{BLOCK_RISE}/{structure}": values for structure, values in blocks.items()}
    return found


def accumulated_statistics(tracked: Sequence[Tracked], workers: Workers) -> torch.Tensor:
    """Statistics of the accumulated gradient of every tracked tensor, float64 [P, S]."""
    return torch.stack([moment_statistics(workers.sum(item.accumulator)) for item in tracked])


def _activations(workers: Workers, site: Site | None, projection: Projection) -> dict[str, Any]:
    if site is None or projection.axis != 1:
        return {}
    total, device = workers.sum, site.total.device  # with `capture.offload` the matrices wait on the host
    return {
        "activation_sum": total(site.total),
        "activation_squares": total(site.squares),
        "gate": total(site.gate),
        "gram": None if site.gram is None else total(site.gram).to(device),
        "curvature": None if site.curvature is None else total(site.curvature).to(device),
    }


def _gradients(
    workers: Workers, tracked: dict[tuple[int, str], Tracked], layer: int, projection: Projection
) -> dict[str, Any]:
    weight = tracked.get((layer, f"{projection.path}.weight"))
    if weight is None:
        return {}
    bias = tracked.get((layer, f"{projection.path}.bias"))
    total = workers.sum
    squares = weight.squares
    if squares is not None and bias is not None and bias.squares is not None:
        squares = squares + bias.squares
    return {
        "gradient": total(weight.accumulator),
        "bias_gradient": None if bias is None else total(bias.accumulator),
        "squares": None if squares is None else total(squares),
    }
