"""Small exact pieces that the statistics share. Everything is checked against scipy in the tests.

scipy.stats costs a second of start-up, scipy.special a third of it; hence these few lines.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

LARGE = 1e4
"""F statistics beyond this are all noncentrality."""


def normal_quantile(level: float = 0.95) -> float:
    """Two-sided standard normal quantile of a confidence level (1.96 for 0.95)."""
    return float(special.ndtri(0.5 + level / 2))


def t_quantile(df: float, level: float = 0.95) -> float:
    """Two-sided Student quantile of a confidence level."""
    return float(special.stdtrit(df, 0.5 + level / 2))


def t_p(t: float, df: float) -> float:
    """Two-sided p of a t statistic."""
    return float(2 * special.stdtr(df, -abs(t)))


def normal_p(z: float) -> float:
    """Two-sided p of a z statistic."""
    return float(2 * special.ndtr(-abs(z)))


def f_p(f: float, df1: float, df2: float) -> float:
    """Upper-tail p of an F statistic."""
    return float(special.fdtrc(df1, df2, f))


def f_noncentrality(f: float, df1: float, df2: float) -> tuple[float, float]:
    """95 % interval of the noncentrality of an F statistic (Steiger 2004, Psychological Methods 9:164)."""
    if f > LARGE:  # all that varies is the error's chi squared
        low, high = (f * df1 * float(special.chdtri(df2, level)) / df2 for level in (0.975, 0.025))
        return low, high
    return _noncentrality(f, df1, df2, 0.975), _noncentrality(f, df1, df2, 0.025)


def _noncentrality(f: float, df1: float, df2: float, level: float) -> float:
    """The noncentrality at which `f` is the quantile of this level; 0 where it is below even without any."""
    if special.fdtr(df1, df2, f) <= level:
        return 0.0
    low, high = 0.0, 1.0
    while special.ncfdtr(df1, df2, high, f) > level:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if special.ncfdtr(df1, df2, middle, f) > level else (low, middle)
    return (low + high) / 2


def chi2_p(x: float, df: float) -> float:
    """Upper-tail p of a chi-squared statistic."""
    return float(special.chdtrc(df, x))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values share the mean rank (scipy.stats.rankdata)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979); NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=float)
    result = np.full(len(p), math.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return [float(value) for value in result]


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share (Wilson 1927, JASA 22:209)."""
    if n <= 0 or math.isnan(n) or math.isnan(successes):
        return math.nan, math.nan
    z = normal_quantile(level)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def signed_rank(differences: np.ndarray) -> tuple[float, float]:
    """Wilcoxon's signed-rank test, two-sided: (smaller rank sum, p). Zero differences are dropped.

    Exact up to 50 pairs without ties, else the normal approximation with tie correction, as in
    scipy.stats.wilcoxon(method="auto").
    """
    d = differences[differences != 0]
    n = len(d)
    if n == 0:
        return math.nan, 1.0
    rank = ranks(np.abs(d))
    plus = float(rank[d > 0].sum())
    statistic = min(plus, n * (n + 1) / 2 - plus)
    _, counts = np.unique(np.abs(d), return_counts=True)
    if n <= 50 and n == len(differences) and (counts == 1).all():
        ways = np.zeros(n * (n + 1) // 2 + 1)
        ways[0] = 1
        for value in range(1, n + 1):
            ways[value:] += ways[:-value].copy()
        return statistic, float(min(1.0, 2 * ways[: int(statistic) + 1].sum() / 2.0**n))
    variance = n * (n + 1) * (2 * n + 1) / 24 - float((counts**3 - counts).sum()) / 48
    return statistic, min(1.0, normal_p((statistic - n * (n + 1) / 4) / math.sqrt(variance)))
