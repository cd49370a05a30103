"""First order plus half of the diagonal second order: sum of abs(w x G) + 0.5 x w^2 x h.

h is the mean over batches of the squared batch gradient (the reference study; LLM-Pruner's "param_mix",
arXiv 2305.11627, has the same terms).
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.importance import taylor
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor:
    """Element-wise first order plus 0.5 x mean over batches of (w x g)^2. float64 [U]."""
    assert view.squares is not None
    return taylor.score(view) + 0.5 * view.squares / max(1, view.batches)


register(
    Estimator(
        "taylor_second",
        Level.SQUARES,
        score,
        "taylor plus half the squared-gradient term",
        "arXiv 2305.11627",
    )
)
