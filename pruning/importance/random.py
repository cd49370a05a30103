"""Seeded random scores: the floor that every method has to beat under the same budget. Reads no text."""

import random as generator

import torch

from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.importance.base import register


def score(view: ProjectionView) -> torch.Tensor | None:
    """Uniform numbers in [0, 1), the same on every machine; one draw per unit. float64 [U]."""
    if view.projection.axis != 1:
        return None
    draw = generator.Random(f"{view.seed}/{view.layer}/{view.projection.structure}")
    return torch.tensor([draw.random() for _ in range(view.units)], dtype=torch.float64)


register(Estimator("random", Level.WEIGHTS, score, "uniform random numbers", per_parameter=True))
