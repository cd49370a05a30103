"""Closed forms on Gram matrices: ridge refits, and greedy removal with compensation. Pure tensor functions.

Shapes: F features, D outputs, U units (each a run of F / U features), A [F, T] of activations, G = A A^T [F, F].
"""

from collections.abc import Sequence

import torch

ROUNDS = 512
"""Rounds of a greedy removal: up to this many units go one at a time, more go in groups of equal size."""


def damped(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    """G + ridge x mean(diag G) x I, float64 [F, F]; all-zero features get a unit diagonal, so that it is invertible."""
    diagonal = gram.diagonal()
    extra = ridge * diagonal.mean() + (diagonal <= 0).to(gram) * (diagonal.mean() + (diagonal.mean() == 0))
    return gram + torch.diag(extra)


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
    inner = gram[kept][:, kept]
    start = weight[:, kept].T
    change = torch.linalg.solve(damped(inner, ridge), cross[kept] - inner @ start)
    return (start + change).T


def refit_error(
    weight: torch.Tensor, gram: torch.Tensor, cross: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """Sum over tokens of |V a_kept - y|^2 less the constant |y|^2; `weight` is V [D, len(kept)]."""
    inner = gram[kept][:, kept]
    return ((weight @ inner) * weight).sum() - 2 * (weight * cross[kept].T).sum()


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
    errors = [
        float(refit_error(ridge_refit(weight, *fit, kept, ridge), *held_out, kept)) for ridge in candidates
    ]
    ridge = candidates[min(range(len(errors)), key=errors.__getitem__)]
    gram, cross = fit[0] + held_out[0], fit[1] + held_out[1]
    return ridge_refit(weight, gram, cross, kept, ridge), ridge


def greedy_costs(
    weight: torch.Tensor, gram: torch.Tensor, metric: torch.Tensor | None, units: int, ridge: float = 1e-4
) -> torch.Tensor:
    """What each unit costs when the cheapest goes first and the others take over what they can.

    Removing unit u and refitting the rest raises sum over tokens of e^T M e (e the output's error) by
    tr(M W_u ([G^-1]_uu)^-1 W_u^T); W and G^-1 are updated after each removal (optimal brain surgeon on groups:
    Hassibi & Stork 1993; ZipLM, Kurtic et al. 2023, arXiv 2302.04089).

    Args:
        weight: W [D, F].
        gram: G [F, F].
        metric: M [D, D], the weight of output errors; None is the identity.
        units: U.
        ridge: Damping of G, relative to the mean of its diagonal.

    Returns:
        float64 [U]: the rise at the unit's turn, made ascending in the order of removal.
    """
    weight = weight.double() * (gram.diagonal() > 0)  # what is never active costs nothing
    inverse = torch.linalg.inv(damped(gram.double(), ridge))
    weighed = weight.clone() if metric is None else metric.double() @ weight  # M W, kept up to date like W
    size = weight.shape[1] // units
    alive = torch.ones(units, dtype=torch.bool, device=weight.device)
    costs = torch.zeros(units, dtype=torch.float64, device=weight.device)
    at_once = -(-units // ROUNDS)
    floor = 0.0
    while bool(alive.any()):
        found = rises(weight, weighed, inverse, units).masked_fill(~alive, float("inf"))
        go = torch.topk(found, min(at_once, int(alive.sum())), largest=False).indices
        for unit in go.tolist():
            floor = max(floor, float(found[unit]))
            costs[unit] = floor
        alive[go] = False
        remove(
            (weight, weighed), inverse, (go[:, None] * size + torch.arange(size, device=go.device)).flatten()
        )
    return costs


def rises(weight: torch.Tensor, weighed: torch.Tensor, inverse: torch.Tensor, units: int) -> torch.Tensor:
    """tr(M W_u ([G^-1]_uu)^-1 W_u^T) of every unit, float64 [U]; `weighed` is M W [D, F]."""
    size = weight.shape[1] // units
    if size == 1:
        return (weight * weighed).sum(0) / inverse.diagonal()
    columns = weight.T.reshape(units, size, -1)
    inner = columns @ weighed.T.reshape(units, size, -1).transpose(1, 2)
    blocks = inverse.reshape(units, size, units, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    return torch.linalg.solve(blocks, inner).diagonal(dim1=1, dim2=2).sum(1)


def remove(matrices: Sequence[torch.Tensor], inverse: torch.Tensor, gone: torch.Tensor) -> None:
    """Take features out of W and M W [D, F] and of G^-1 [F, F], in place; their block of G^-1 becomes the identity."""
    rows = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])
    for matrix in matrices:
        matrix -= matrix[:, gone] @ rows
        matrix[:, gone] = 0
    inverse -= inverse[:, gone] @ rows
    inverse[gone] = 0
    inverse[:, gone] = 0
    inverse[gone, gone] = 1


def block_cost(weight: torch.Tensor, gram: torch.Tensor, metric: torch.Tensor) -> torch.Tensor:
    """tr(M W G W^T): what the whole block costs without compensation, on the same scale."""
    weight = weight.double()
    return ((metric.double() @ weight) * (weight @ gram.double())).sum()
