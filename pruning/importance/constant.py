"""Every parameter is worth the same: with a prior, whole layers or blocks go in the prior's order.

`prior=cosine scope=layer` is ShortGPT's block influence (Men et al. 2024, arXiv 2403.03853), `prior=loss scope=block`
BlockPruner's greedy start (Zhong et al. 2024, arXiv 2406.10594). The papers remove whole layers only; here the last one
is cut in part, so that the budget is met exactly like every other method's.
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor:
    """The same for every unit, counted once per structure. float64 [U]."""
    return torch.full((view.units,), float(view.projection.axis), dtype=torch.float64)


register(
    Estimator(
        "constant",
        Level.WEIGHTS,
        score,
        "the same for every parameter: whole blocks go in the prior's order",
        "arXiv 2403.03853",
        per_parameter=True,
    )
)
