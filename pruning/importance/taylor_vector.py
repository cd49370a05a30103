"""First-order Taylor importance, vector-wise: abs(sum of w x G) over each row or column, summed over projections.

LLM-Pruner's "vectorize", Ma et al. 2023, arXiv 2305.11627. There G is the gradient of a few samples; here it is summed
over the calibration batches, as for `taylor`.
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor:
    """Sum over the unit's rows (or columns) of abs(sum of w x G), biases by themselves. float64 [U]."""
    assert view.gradient is not None
    axis = view.projection.axis
    product = (view.weight.to(view.gradient) * view.gradient).sum(1 - axis, dtype=torch.float64).abs()
    if axis == 0 and view.bias is not None and view.bias_gradient is not None:
        product += (view.bias.to(view.bias_gradient) * view.bias_gradient).abs().double()
    return product.reshape(view.units, -1).sum(1)


register(
    Estimator(
        "taylor_vector",
        Level.GRADIENTS,
        score,
        "abs(sum of w x G) per row or column",
        "arXiv 2305.11627",
    )
)
