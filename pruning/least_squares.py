"""Closed forms on Gram matrices: ridge refits and the cost of a block. Pure tensor functions.

Shapes: F features, D outputs, n features that stay, A [F, T] of activations, G = A A^T [F, F].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


def damped(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    """G + ridge x mean(diag G) x I, float64 [F, F]; all-zero features get a unit diagonal, so that it is invertible."""
    found = gram.to(torch.float64, copy=True)
    diagonal = found.diagonal()
    mean = diagonal.mean()
    diagonal += ridge * mean + (diagonal <= 0).double() * (mean + (mean == 0))
    return found


def principal(matrix: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Rows and columns of some features [n, n], in their order."""
    return matrix.index_select(0, features).index_select(1, features)


def ridge_refit(
    weight: torch.Tensor, gram: torch.Tensor, cross: torch.Tensor, kept: torch.Tensor, ridge: float
) -> torch.Tensor:
    """The kept columns, refitted: argmin over V of sum over tokens of |V a_kept - y|^2 + ridge term around W_kept.

    Args:
        weight: W [D, F], float64.
        gram: G [F, F], float64, sum over tokens of a a^T.
        cross: [F, D], float64, sum over tokens of a y^T.
        kept: Indices of the features that stay.
        ridge: Relative to the mean of the kept Gram matrix's diagonal.

    Returns:
        V, float64 [D, len(kept)].
    """
    return weight[:, kept] + NormalEquations.of(weight, (gram, cross), kept).change(ridge).T


def best_refit(
    weight: torch.Tensor,
    fit: tuple[torch.Tensor, torch.Tensor],
    held_out: tuple[torch.Tensor, torch.Tensor] | None,
    kept: torch.Tensor,
    candidates: Sequence[float],
) -> tuple[torch.Tensor, float]:
    """The refit on all tokens with the ridge that is best on the held-out ones.

    Args:
        weight: W [D, F], float64.
        fit: (G, cross) of the tokens that fit.
        held_out: (G, cross) of the tokens that choose; None takes the first candidate.
        kept: Indices of the features that stay.
        candidates: Ridges to try.

    Returns:
        V [D, len(kept)] and its ridge.
    """
    if held_out is None:
        return ridge_refit(weight, *fit, kept, candidates[0]), candidates[0]
    equations, judge = NormalEquations.of(weight, fit, kept), NormalEquations.of(weight, held_out, kept)
    errors = torch.stack([judge.error(equations.change(ridge)) for ridge in candidates]).tolist()
    ridge = candidates[min(range(len(errors)), key=errors.__getitem__)]
    equations.add(judge)
    return weight[:, kept] + equations.change(ridge).T, ridge


@dataclass(frozen=True)
class NormalEquations:
    """Normal equations of a refit of n kept features, in terms of the change C [n, D] of their columns' transpose.

    Attributes:
        gram: G of the kept features [n, n], without ridge.
        gap: cross - G W_kept^T [n, D], what the weights as they are leave undone.
    """

    gram: torch.Tensor
    gap: torch.Tensor

    @classmethod
    def of(
        cls, weight: torch.Tensor, moments: tuple[torch.Tensor, torch.Tensor], kept: torch.Tensor
    ) -> "NormalEquations":
        """The equations of some tokens, from their (G, cross)."""
        gram = principal(moments[0], kept)
        return cls(gram, moments[1][kept] - gram @ weight[:, kept].T)

    def change(self, ridge: float) -> torch.Tensor:
        """C: by Cholesky, or by LU where rounding has made the matrix indefinite."""
        triangle, info = torch.linalg.cholesky_ex(damped(self.gram, ridge))
        if int(info) == 0:
            return torch.cholesky_solve(self.gap, triangle)
        return torch.linalg.solve(damped(self.gram, ridge), self.gap)

    def error(self, change: torch.Tensor) -> torch.Tensor:
        """Sum over tokens of |V a_kept - y|^2, less the same for the weights as they are."""
        return (change * (self.gram @ change - 2 * self.gap)).sum()

    def add(self, other: "NormalEquations") -> None:
        """Count another set of tokens in."""
        self.gram.add_(other.gram)
        self.gap.add_(other.gap)


def block_cost(weight: torch.Tensor, gram: torch.Tensor, metric: torch.Tensor) -> torch.Tensor:
    """tr(M W G W^T): what a whole block costs without compensation, on the scale of `greedy_costs`."""
    wide = weight.double()
    return ((metric.to(wide) @ wide) * (wide @ gram.to(wide))).sum()
