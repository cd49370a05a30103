"""Methods compared over matched cells: the same model, sizes, budget, text and seed, another method."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import chi2_p, holm, ranks, signed_rank, t_p, t_quantile
from secateur.analysis.factors import cell_key

TIE = 1e-12


@dataclass(frozen=True)
class Paired:
    """`left` minus `right` over the cells that have both.

    Attributes:
        low, high: 95 % interval of the mean difference (Student).
        effect: Mean difference / sd of the differences (Cohen's d_z).
        t_holm, w_holm: Paired t and Wilcoxon signed-rank p-values, Holm-adjusted over all pairs of methods.
    """

    left: str
    right: str
    n: int
    mean: float
    low: float
    high: float
    sd: float
    effect: float
    wins: int
    ties: int
    losses: int
    t_p: float
    t_holm: float
    w_p: float
    w_holm: float


def matched(frame: pd.DataFrame, factors: list[str], target: str = "acc_mean") -> pd.DataFrame:
    """Cells x methods: the mean of the target; a cell is one combination of all factors but the method, by model."""
    names = ["model", *(name for name in factors if name != "method")]
    table = pd.DataFrame(
        {
            "cell": cell_key(frame, names),
            "method": frame["method"].to_numpy(),
            "y": frame[target].to_numpy(dtype=float),
        }
    )
    return table.pivot_table(index="cell", columns="method", values="y", aggfunc="mean", sort=True)


def compare_methods(cells: pd.DataFrame) -> list[Paired]:
    """Every pair of methods that shares at least two cells, best difference first."""
    found: list[Paired] = []
    for left, right in combinations([str(name) for name in cells.columns], 2):
        difference = (cells[left] - cells[right]).dropna().to_numpy(dtype=float)
        if len(difference) >= 2:
            found.append(_compare(left, right, difference))
    t_holm, w_holm = holm([pair.t_p for pair in found]), holm([pair.w_p for pair in found])
    result = [
        Paired(**{**vars(pair), "t_holm": t, "w_holm": w})
        for pair, t, w in zip(found, t_holm, w_holm, strict=True)
    ]
    return sorted(result, key=lambda pair: -abs(pair.mean))


def _compare(left: str, right: str, d: np.ndarray) -> Paired:
    n, mean, sd = len(d), float(d.mean()), float(d.std(ddof=1))
    if mean < 0:
        left, right, d, mean = right, left, -d, -mean
    if sd <= TIE:
        # every difference is the same: no spread to test against
        low = high = mean
        effect, p = math.nan, math.nan if mean > TIE else 1.0
    else:
        half = t_quantile(n - 1) * sd / math.sqrt(n)
        low, high, effect = mean - half, mean + half, mean / sd
        p = t_p(mean / (sd / math.sqrt(n)), n - 1)
    wins, losses = int((d > TIE).sum()), int((d < -TIE).sum())
    _, w = signed_rank(np.where(np.abs(d) <= TIE, 0.0, d))
    nan = math.nan
    return Paired(
        left, right, n, mean, low, high, sd, effect, wins, n - wins - losses, losses, p, nan, w, nan
    )


def friedman(cells: pd.DataFrame) -> tuple[float, float, int]:
    """Friedman's rank test over cells that have every method (Friedman 1937): (chi-squared, p, cells)."""
    full = cells.dropna().to_numpy(dtype=float)
    n, k = full.shape
    if k < 3 or n < 2:
        return math.nan, math.nan, n
    rank = np.apply_along_axis(ranks, 1, full)
    ties = sum(float((c**3 - c).sum()) for c in (np.unique(row, return_counts=True)[1] for row in full))
    correction = 1 - ties / (n * k * (k * k - 1))
    if correction <= 0:
        return 0.0, 1.0, n
    statistic = (12 / (n * k * (k + 1)) * float((rank.sum(axis=0) ** 2).sum()) - 3 * n * (k + 1)) / correction
    return statistic, chi2_p(statistic, k - 1), n
