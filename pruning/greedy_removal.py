"""Greedy removal of units with compensation: what each one costs when the cheapest goes first.

Removing features with the rows R of H = G^-1 and refitting the rest (optimal brain surgeon on groups: Hassibi & Stork
1993; ZipLM, Kurtic et al. 2023, arXiv 2302.04089) changes H and S = W^T M W by matrices of low rank: with c c^T = H_RR,
    p = c^-1 H_R,   w = c^-1 S_R,   v = w - 1/2 (w_R c^-T) p,
    H <- H - p^T p,   S <- S - p^T v - v^T p.
Costs need the diagonal blocks of H and S alone. So p and v are kept as panels, rows are brought up to date when they
are asked for, and the matrices themselves change once for many rounds (blocked as in GPTQ, arXiv 2210.17323), over the
features that are left. Nothing waits for the device within the rounds.

Shapes: F features, D outputs, U units of s = F / U features, n features left, k features of a round.
"""

import logging

import torch

from secateur.pruning.errors import NumericsError
from secateur.pruning.least_squares import damped, principal

log = logging.getLogger(__name__)

ROUNDS = 512
"""Rounds of a greedy removal: up to this many units go one at a time, more go in groups of equal size."""
PANEL = 512
"""Features whose removal waits in the panels before it is folded into the matrices."""
RIDGE_STEPS = (1, 10, 100, 1000)
"""Factors on the ridge, tried in turn until a Gram matrix is positive definite to working precision."""


def greedy_costs(
    weight: torch.Tensor, gram: torch.Tensor, metric: torch.Tensor | None, units: int, ridge: float = 1e-4
) -> torch.Tensor:
    """What each unit costs when the cheapest goes first and the others take over what they can.

    Removing unit u and refitting the rest raises sum over tokens of e^T M e (e the output's error) by
    tr(M W_u ([G^-1]_uu)^-1 W_u^T) = tr(H_uu^-1 S_uu).

    Args:
        weight: W [D, F].
        gram: G [F, F].
        metric: M [D, D], the weight of output errors; None is the identity.
        units: U.
        ridge: Damping of G, relative to the mean of its diagonal.

    Returns:
        float64 [U]: the rise at the unit's turn, made ascending in the order of removal.

    Raises:
        NumericsError: G is not positive definite, not even with much more damping; or M is not finite.
    """
    if metric is not None and not bool(torch.isfinite(metric).all()):
        raise NumericsError(
            "second-order scores: squared slopes at an output projection are too large for their type; the model's "
            "gradients explode (random weights?), or load it with model.dtype=float64"
        )
    for factor in RIDGE_STEPS:
        left = Left(*starting_point(weight, gram, metric, factor * ridge), units)
        costs = eliminate(left)
        if bool(torch.isfinite(costs).all() & (left.info == 0)):
            return costs
        log.warning("a Gram matrix lost its definiteness with a ridge of %.0e; trying more", factor * ridge)
    raise NumericsError(
        "second-order scores: the Gram matrix of the activations is singular to working precision; "
        "use more calibration samples (taylor.num_samples) or model.dtype=float32"
    )


def starting_point(
    weight: torch.Tensor, gram: torch.Tensor, metric: torch.Tensor | None, ridge: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """G^-1 and W^T M W, float64 [F, F] each."""
    inverse = inverted(gram, ridge)
    wide = weight.double() * (gram.diagonal() > 0)  # what is never active costs nothing
    weighed = wide if metric is None else metric.double() @ wide
    return inverse, wide.T @ weighed


def inverted(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    """(G + ridge)^-1, float64 [F, F]; a matrix that rounding has made indefinite gets more damping.

    Raises:
        NumericsError: It stays indefinite.
    """
    for factor in RIDGE_STEPS:
        triangle, info = torch.linalg.cholesky_ex(damped(gram, factor * ridge))
        if int(info) == 0:
            return torch.cholesky_inverse(triangle)
        log.warning(
            "a Gram matrix is not positive definite with a ridge of %.0e; trying more", factor * ridge
        )
    raise NumericsError(
        f"second-order scores: a Gram matrix of activations is not positive definite with a ridge of "
        f"{RIDGE_STEPS[-1] * ridge:.0e}; use more calibration samples (taylor.num_samples) or model.dtype=float32"
    )


def eliminate(left: "Left") -> torch.Tensor:
    """Remove all units, cheapest first; float64 [U] costs. The host never waits for the device in here."""
    units = left.count
    costs = torch.zeros(units, dtype=torch.float64, device=left.inverse.device)
    floor = costs.new_zeros(())
    at_once = -(-units // ROUNDS)
    while left.count:
        found, go = torch.topk(left.rises(), min(at_once, left.count), largest=False)
        rising = torch.maximum(found.cummax(0).values, floor)
        costs.index_copy_(0, left.names[go], rising)
        floor = rising[-1]
        left.remove(go)
    return costs


class Left:
    """H and S of the units that are left.

    Attributes:
        inverse: H [n, n] as it was when the panels were last folded in.
        product: S [n, n], likewise.
        names: Numbers of the n / s units, as the caller counts them.
        count: Units that are left, counted on the host.
        info: 0 while every block that was removed was positive definite.
    """

    def __init__(self, inverse: torch.Tensor, product: torch.Tensor, units: int) -> None:
        self.inverse, self.product = inverse, product
        self.size, self.count = inverse.shape[0] // units, units
        self.names = torch.arange(units, device=inverse.device)
        self.info = torch.zeros((), dtype=torch.int32, device=inverse.device)
        self._restart()

    def _restart(self) -> None:
        """No removal is pending."""
        self.alive = torch.ones(self.count, dtype=torch.bool, device=self.names.device)
        self.blocks = [_diagonal(matrix, self.count) for matrix in (self.inverse, self.product)]
        self.pending = 0
        self.panels = [self.inverse.new_empty(0, self.inverse.shape[1])] * 2

    def rises(self) -> torch.Tensor:
        """tr(H_uu^-1 S_uu) of every unit, float64; infinite for those that are gone."""
        inverse, product = self.blocks
        if self.size == 1:
            found = product / inverse
        else:
            triangles = torch.linalg.cholesky_ex(inverse).L
            found = torch.cholesky_solve(product, triangles).diagonal(dim1=1, dim2=2).sum(1)
        return found.masked_fill(~self.alive, torch.inf)

    def remove(self, go: torch.Tensor) -> None:
        """Take units [k / s] out, given by their place among `names`."""
        rows = self._features(go)
        p, v = self._panel(rows)
        self._keep(p, v)
        self._lower_blocks(p, v)
        self.alive = self.alive.index_fill(0, go, False)
        self.count -= len(go)
        if self.count and self.pending + len(rows) > PANEL:
            self._fold()

    def _panel(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows p and v [k, n] of features that go now."""
        first, second = (panel[: self.pending] for panel in self.panels)
        of_first, of_second = first[:, rows].T, second[:, rows].T
        inverse = torch.addmm(self.inverse[rows], of_first, first, alpha=-1)
        product = torch.addmm(self.product[rows], of_first, second, alpha=-1)
        product.addmm_(of_second, first, alpha=-1)
        triangle, info = torch.linalg.cholesky_ex(inverse[:, rows])
        self.info = torch.maximum(self.info, info)
        p = torch.linalg.solve_triangular(triangle, inverse, upper=False)
        w = torch.linalg.solve_triangular(triangle, product, upper=False)
        own = torch.linalg.solve_triangular(triangle, w[:, rows].T, upper=False)
        return p, torch.addmm(w, own, p, alpha=-0.5)

    def _keep(self, *rows: torch.Tensor) -> None:
        """Put p and v behind the panels."""
        if self.pending == 0:
            self.panels = [part.new_empty(max(PANEL, len(part)), part.shape[1]) for part in rows]
        for panel, part in zip(self.panels, rows, strict=True):
            panel[self.pending : self.pending + len(part)] = part
        self.pending += len(rows[0])

    def _lower_blocks(self, p: torch.Tensor, v: torch.Tensor) -> None:
        """Diagonal blocks of H - p^T p and of S - p^T v - v^T p."""
        inverse, product = self.blocks
        if self.size == 1:
            inverse -= p.square().sum(0)
            product.sub_((p * v).sum(0), alpha=2)
            return
        left, right = (part.T.reshape(-1, self.size, len(part)) for part in (p, v))
        inverse.baddbmm_(left, left.mT, alpha=-1)
        product.baddbmm_(left, right.mT, alpha=-1).baddbmm_(right, left.mT, alpha=-1)

    def _fold(self) -> None:
        """Bring H and S of the features that are left up to date."""
        stay = torch.argsort(self.alive.byte(), descending=True, stable=True)[: self.count]
        features = self._features(stay)
        first, second = (panel[: self.pending].index_select(1, features) for panel in self.panels)
        self.panels = []
        self.inverse = principal(self.inverse, features).addmm_(first.T, first, alpha=-1)
        self.product = principal(self.product, features).addmm_(first.T, second, alpha=-1)
        self.product.addmm_(second.T, first, alpha=-1)
        self.names = self.names[stay]
        self._restart()

    def _features(self, units: torch.Tensor) -> torch.Tensor:
        """Features of units, in the units' order."""
        if self.size == 1:
            return units
        return (units[:, None] * self.size + torch.arange(self.size, device=units.device)).flatten()


def _diagonal(matrix: torch.Tensor, units: int) -> torch.Tensor:
    """A copy of the diagonal blocks [U, s, s]; of the diagonal [F] where units are single features."""
    size = matrix.shape[0] // units
    if size == 1:
        return matrix.diagonal().clone()
    return matrix.reshape(units, size, units, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
