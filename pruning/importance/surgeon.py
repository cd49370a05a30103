"""Second-order loss rise of a unit after the other units have been refitted, on one scale for the whole model.

Output errors e of a block are weighted by the Fisher matrix of its output: rise = 1/2 tr(S E[e e^T]), S = sum over
tokens of g g^T / tokens, with g the slope of the summed loss there. The Kronecker factorisation of the curvature
(activations x slopes) is K-FAC's (Martens & Grosse 2015, arXiv 1503.05671), used for pruning language models by The LLM
Surgeon (van der Ouderaa et al. 2024, arXiv 2312.17244); units go greedily with updates as in ZipLM (arXiv 2302.04089).
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.greedy_removal import greedy_costs
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor | None:
    """Estimated loss rise in nats per token at the unit's turn; other projections add nothing. float64 [U]."""
    if view.gram is None or view.curvature is None:
        return None
    tokens = max(1, view.tokens)
    return 0.5 * greedy_costs(view.weight, view.gram, view.curvature, view.units) / tokens**2


register(
    Estimator(
        "surgeon",
        Level.CURVATURE,
        score,
        "second-order loss rise after refit of the others",
        "arXiv 2312.17244",
    )
)
