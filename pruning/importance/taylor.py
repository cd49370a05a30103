"""First-order Taylor importance, element-wise: sum of abs(w x G) over the unit.

G is the gradient summed over batches. Molchanov et al. 2019, arXiv 1906.10771; LLM-Pruner's "param_first",
Ma et al. 2023, arXiv 2305.11627.
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView, unit_sum
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor:
    """Sum over the unit's weights and biases of abs(w x G). float64 [U]."""
    assert view.gradient is not None
    return unit_sum(view, lambda w, g: (w * g).abs_(), other=view.gradient, other_bias=view.bias_gradient)


register(
    Estimator(
        "taylor", Level.GRADIENTS, score, "sum of abs(w x G) over the unit", "arXiv 1906.10771, 2305.11627"
    )
)
