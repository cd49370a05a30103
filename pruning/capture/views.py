"""What an importance estimator sees of one projection, and what it must declare. Pure data.

Shapes: [out, in] a projection's weight; U its units; F its input features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from secateur.pruning.errors import ConfigError
from secateur.pruning.levels import Level
from secateur.pruning.models.adapter import Projection


@dataclass(frozen=True)
class ProjectionView:
    """One projection after some number of samples. Fields above the capture's level are None.

    Attributes:
        projection: Which projection, and how units lie in it.
        layer: Index of the decoder layer.
        units: U.
        weight: [out, in], in the model's dtype.
        bias: [out], or None.
        seed: For estimators that draw random numbers.
        tokens: Number of calibration tokens seen.
        batches: Number of batches seen.
        activation_sum: float64 [F], sum over tokens of the input (output projections only).
        activation_squares: float64 [F], sum over tokens of its square (output projections only).
        gate: float64 [U], sum over samples of abs(sum over tokens and features of a x dL/da) (output projections only).
        gradient: float32 [out, in], sum over batches of the gradient.
        bias_gradient: float32 [out], or None.
        squares: float64 [U], sum over batches and the unit's weights of (w x batch gradient)^2.
        gram: [F, F], sum over tokens of a a^T (output projections only).
        curvature: [D, D], sum over tokens of g g^T, g = slope of the summed loss at the projection's output.
    """

    projection: Projection
    layer: int
    units: int
    weight: torch.Tensor
    bias: torch.Tensor | None
    seed: int = 0
    tokens: int = 0
    batches: int = 0
    activation_sum: torch.Tensor | None = None
    activation_squares: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    gradient: torch.Tensor | None = None
    bias_gradient: torch.Tensor | None = None
    squares: torch.Tensor | None = None
    gram: torch.Tensor | None = None
    curvature: torch.Tensor | None = None


@dataclass(frozen=True)
class Estimator:
    """A rule that turns what was captured of a projection into importance per unit.

    Attributes:
        name: Config value (`method.estimator`).
        level: What it needs.
        score: Importance [U] (float64) of a projection's share of its units, or None where the
            projection does not count. A unit's importance is the sum over the projections of its structure.
        title: One line for people.
        source: Paper or report of the formula.
        per_parameter: The importance is per parameter already and is not divided by the unit's cost.
    """

    name: str
    level: Level
    score: Callable[[ProjectionView], torch.Tensor | None]
    title: str
    source: str = ""
    per_parameter: bool = False

    def share(self, view: ProjectionView) -> torch.Tensor | None:
        """What `score` says of a projection, held to its contract: float64 [U], or None.

        Raises:
            ConfigError: It is of another shape or dtype, which would be broadcast or rounded in silence.
        """
        found = self.score(view)
        if found is not None and (found.shape != (view.units,) or found.dtype != torch.float64):
            raise ConfigError(
                f"method.estimator={self.name} gives {found.dtype} {list(found.shape)} for {view.projection.path} of "
                f"layer {view.layer}; it must give torch.float64 [{view.units}], one value per unit, or None"
            )
        return found


__all__ = ["Estimator", "Level", "ProjectionView", "feature_sum", "row_chunks", "unit_sum"]

ROWS_AT_ONCE = 2**22
"""Elements of a weight that are worked on at once: bounds the float32 temporaries."""


def row_chunks(weight: torch.Tensor) -> list[slice]:
    """Slices over the rows of a matrix, so that each holds about `ROWS_AT_ONCE` elements."""
    rows = max(1, ROWS_AT_ONCE // max(1, weight[0].numel()))
    return [slice(start, start + rows) for start in range(0, weight.shape[0], rows)]


def unit_sum(
    view: ProjectionView,
    combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    other: torch.Tensor,
    other_bias: torch.Tensor | None,
) -> torch.Tensor:
    """Sum `combine(weight, other)` (and of bias and `other_bias`) over each unit, in row chunks. float64 [U]."""
    axis = view.projection.axis
    total = torch.zeros(view.weight.shape[axis], dtype=torch.float64, device=view.weight.device)
    for rows in row_chunks(view.weight):
        part = combine(view.weight[rows].to(other.dtype), other[rows].to(view.weight.device)).sum(
            1 - axis, dtype=torch.float64
        )
        if axis == 0:
            total[rows] += part
        else:
            total += part
    if view.bias is not None and other_bias is not None and axis == 0:
        total += combine(view.bias.to(other_bias.dtype), other_bias.to(view.bias.device)).double()
    return total.reshape(view.units, -1).sum(1)


def feature_sum(
    view: ProjectionView, of: Callable[[torch.Tensor], torch.Tensor], factors: torch.Tensor
) -> torch.Tensor:
    """Sum over each unit's input features of `factors` [F] times the column's sum of `of(weight)`. float64 [U]."""
    total = torch.zeros(view.weight.shape[1], dtype=torch.float64, device=view.weight.device)
    for rows in row_chunks(view.weight):
        weight = view.weight[rows]
        total += of(weight if weight.dtype == torch.float64 else weight.float()).sum(0, dtype=torch.float64)
    return (total * factors.to(total)).reshape(view.units, -1).sum(1)
