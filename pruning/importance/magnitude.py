"""Magnitude: sum of abs(w) over the unit (Li et al. 2017, arXiv 1608.08710). Reads no text."""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView, unit_sum
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor:
    """Sum of absolute weights and biases. float64 [U]."""
    weight = view.weight.float()
    bias = None if view.bias is None else view.bias.float()
    return unit_sum(view, lambda w, _: w.abs(), other=weight, other_bias=bias)


register(Estimator("magnitude", Level.WEIGHTS, score, "sum of abs(w)", "arXiv 1608.08710"))
