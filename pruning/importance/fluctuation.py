"""FLAP's WIFV: variance of the unit's activation over tokens x squared norm of its output column.

An et al. 2024, arXiv 2312.11983, equation 4.
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView, feature_sum
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor | None:
    """Sum over the unit's features of variance x squared column norm. float64 [U]."""
    if view.activation_sum is None or view.activation_squares is None:
        return None
    tokens = max(1, view.tokens)
    mean = view.activation_sum / tokens
    variance = (view.activation_squares / tokens - mean.square()).clamp(min=0)
    return feature_sum(view, torch.square, variance)


register(
    Estimator(
        "fluctuation",
        Level.ACTIVATIONS,
        score,
        "FLAP: activation variance x squared weights",
        "arXiv 2312.11983",
    )
)
