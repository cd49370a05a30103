"""Optimal brain surgeon on whole units: squared output error after the other units have been refitted.

Units go greedily, cheapest first, with weights and inverse Gram matrix updated after each: ZipLM, Kurtic et al. 2023,
arXiv 2302.04089; SlimGPT, Ling et al. 2024, arXiv 2412.18110. Errors of different blocks are not on one scale: with
`allocation=uniform` this is the papers' setting.
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.greedy_removal import greedy_costs
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor | None:
    """Mean over tokens of the squared output error at the unit's turn; other projections add nothing. float64 [U]."""
    if view.gram is None:
        return None
    return greedy_costs(view.weight, view.gram, None, view.units) / max(1, view.tokens)


register(
    Estimator(
        "obs", Level.CURVATURE, score, "output error after refit of the others, greedy", "arXiv 2302.04089"
    )
)
