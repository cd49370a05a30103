"""Structured Wanda: sum over the columns of `o_proj` / `down_proj` of abs(w) x norm of the input feature.

Sun et al. 2023, arXiv 2306.11695; structured as Wanda-sp in FLAP, An et al. 2024, arXiv 2312.11983.
"""

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView, feature_sum
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor | None:
    """Sum over the unit's columns of abs(w) x RMS of the feature over tokens. float64 [U]."""
    if view.activation_squares is None:
        return None
    rms = (view.activation_squares / max(1, view.tokens)).sqrt()
    return feature_sum(view, torch.abs, rms)


register(
    Estimator("wanda", Level.ACTIVATIONS, score, "abs(w) x norm of the unit's activation", "arXiv 2306.11695")
)
