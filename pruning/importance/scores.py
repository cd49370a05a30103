"""From what was captured to one score per unit: importance / cost x ln(1 + max(prior, 0))^T.

The reference study's formula: T = 0 is `taylor`, T = 1 with the loss prior of layers or blocks is `layerwise` or
`blockwise`. Higher = keep. With `prior_role=anchor` importance in nats is scaled up, block by block, until the whole
block would cost what bypassing it was measured to cost.

Shapes: L layers, U units of one structure of all layers, one after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from secateur.pruning.capture.priors import BLOCKS
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.snapshots import BLOCK_RISE
from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.config import MethodConfig
from secateur.pruning.importance.base import estimator
from secateur.pruning.models.adapter import STRUCTURES, Structure, linear
from secateur.pruning.models.layout import Layout
from secateur.pruning.models.loading import LoadedModel


@dataclass(frozen=True)
class Scores:
    """Final scores per structure and layer: float64 arrays, one value per unit.

    Attributes:
        units: What units are ranked by.
        base: The same without the prior: breaks ties, as where bypassing a block does not raise the loss.
    """

    units: Mapping[Structure, tuple[np.ndarray, ...]]
    base: Mapping[Structure, tuple[np.ndarray, ...]] = field(default_factory=dict)


def needs_capture(method: MethodConfig) -> bool:
    """Whether a method reads any text."""
    return estimator(method.estimator).level > Level.WEIGHTS or method.prior != "none"


def final_scores(
    loaded: LoadedModel, capture: Capture | None, method: MethodConfig, samples: int, share: float, seed: int
) -> Scores:
    """Scores of a method after `samples` samples; `capture` may be None for methods that read no text."""
    rule = estimator(method.estimator)
    prior = np.zeros((len(loaded.layout.layers), 3))
    if method.prior != "none":
        assert capture is not None
        prior = capture.prior(method.prior, samples, share).numpy()
    units: dict[Structure, tuple[np.ndarray, ...]] = {}
    base: dict[Structure, tuple[np.ndarray, ...]] = {}
    for structure in STRUCTURES:
        if rule.level > Level.WEIGHTS:
            assert capture is not None
            flat = capture.score(rule.name, samples, structure).double().numpy()
        else:
            flat = static_scores(loaded, rule, structure, seed)
        parts = np.split(flat, np.cumsum([layer.units(structure) for layer in loaded.layout.layers])[:-1])
        scaled = [_per_parameter(p, loaded.layout, i, structure, rule) for i, p in enumerate(parts)]
        base[structure] = tuple(scaled)
        if method.standardise:
            scaled = [standardised(part) for part in scaled]
        if method.prior != "none":
            column = 0 if method.scope == "layer" else BLOCKS.index(structure)
            if method.prior_role == "anchor":
                assert capture is not None
                predicted = capture.score(BLOCK_RISE, samples, structure).double().numpy()
                factors = anchors(prior[:, column], predicted) ** method.temperature
            else:
                factors = np.log1p(np.maximum(prior[:, column], 0.0)) ** method.temperature
            scaled = [part * factor for part, factor in zip(scaled, factors, strict=True)]
        units[structure] = tuple(scaled)
    return Scores(units, base)


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores of one block with mean 0 and (population) deviation 1: FLAP, An et al. 2024, arXiv 2312.11983, eq. 5."""
    spread = scores.std() if len(scores) else 0.0
    return (scores - scores.mean()) / spread if spread > 0 else scores * 0.0


def anchors(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Factor [L] on each block: measured over predicted loss rise, at least 1 (a quadratic underrates large cuts)."""
    safe = np.where(predicted > 0, predicted, 1.0)
    return np.where(predicted > 0, np.maximum(1.0, measured / safe), 1.0)


def static_scores(loaded: LoadedModel, rule: Estimator, structure: Structure, seed: int) -> np.ndarray:
    """Importance [U] of an estimator that reads no text."""
    parts: list[torch.Tensor] = []
    for index, layer in enumerate(loaded.adapter.decoder_layers(loaded.model)):
        units = loaded.layout.layers[index].units(structure)
        total = torch.zeros(units, dtype=torch.float64)
        for projection in loaded.adapter.of(structure) if units else ():
            module = linear(layer, projection)
            assert module is not None
            bias = None if module.bias is None else module.bias.detach()
            part = rule.share(
                ProjectionView(projection, index, units, module.weight.detach(), bias, seed=seed)
            )
            if part is not None:
                total += part.cpu()
        parts.append(total)
    return torch.cat(parts).numpy()


def _per_parameter(
    scores: np.ndarray, layout: Layout, layer: int, structure: Structure, rule: Estimator
) -> np.ndarray:
    cost = layout.layers[layer].cost(structure)
    return scores if rule.per_parameter or cost == 0 else scores / cost
