"""How strongly a statistic goes with ACC: Pearson and Spearman, pooled and within methods, finite rows only.

p-values: t = r sqrt((n - 2) / (1 - r^2)) with n - 2 degrees of freedom (for Spearman the same approximation, as
in scipy.stats.spearmanr); intervals of Pearson r: Fisher's z. Several statistics are tested at once: Holm.
"""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from secateur.analysis.arithmetic import holm, normal_quantile, ranks


@dataclass(frozen=True)
class Association:
    """A correlation over the finite rows.

    Attributes:
        r: Pearson. NaN when fewer than three finite rows or one side is constant (`why` says which).
        low, high: 95 % interval of r.
        rho: Spearman.
        excluded: Names of the rows that were left out because a value is missing or infinite.
    """

    statistic: str
    scope: str
    n: int
    r: float
    p: float
    low: float
    high: float
    rho: float
    rho_p: float
    excluded: tuple[str, ...] = ()
    why: str = ""


def correlation_p(r: float, n: int, taken: int = 0) -> float:
    """Two-sided p of a correlation of `n` pairs, after `taken` further degrees of freedom were used."""
    df = n - 2 - taken
    if math.isnan(r) or df < 1:
        return math.nan
    if abs(r) >= 1:
        return 0.0
    return float(2 * special.stdtr(df, -abs(r) * math.sqrt(df / (1 - r * r))))


def finite_pearson(frame: pd.DataFrame, name: str, target: str, scope: str = "pooled") -> Association:
    """Correlate two columns over the rows where both are finite; names the rows left out."""
    x = frame[name].to_numpy(dtype=float, na_value=np.nan)
    y = frame[target].to_numpy(dtype=float, na_value=np.nan)
    keep = np.isfinite(x) & np.isfinite(y)
    excluded = tuple(frame.loc[~keep, "run_id"].astype(str))
    return _associate(name, scope, x[keep], y[keep], excluded)


def within_pooled(frame: pd.DataFrame, name: str, target: str, by: str) -> Association:
    """Correlation after the mean of each group is taken off both sides: what holds inside the groups.

    One degree of freedom is taken for each group beyond the first.
    """
    values = frame[[name, target, by, "run_id"]]
    keep = np.isfinite(values[name].to_numpy(dtype=float, na_value=np.nan))
    keep &= np.isfinite(values[target].to_numpy(dtype=float, na_value=np.nan))
    rows = values[keep]
    if rows.empty:
        return _associate(name, "within", np.array([]), np.array([]), tuple(values["run_id"].astype(str)))
    groups = rows.groupby(by)
    x = (rows[name] - groups[name].transform("mean")).to_numpy(dtype=float)
    y = (rows[target] - groups[target].transform("mean")).to_numpy(dtype=float)
    return _associate(
        name, "within", x, y, tuple(values.loc[~keep, "run_id"].astype(str)), groups.ngroups - 1
    )


def associations(frame: pd.DataFrame, names: tuple[str, ...], target: str, by: str) -> list[Association]:
    """Every statistic against the target: pooled, within groups together, and each group alone.

    Statistics without a single finite value are left out: nobody measured them.
    """
    found: list[Association] = []
    for name in names:
        if not np.isfinite(frame[name].to_numpy(dtype=float, na_value=np.nan)).any():
            continue
        found.append(finite_pearson(frame, name, target))
        levels = sorted(frame[by].dropna().unique())
        if len(levels) > 1:
            found.append(within_pooled(frame, name, target, by))
            found += [finite_pearson(frame[frame[by] == level], name, target, str(level)) for level in levels]
    return found


def adjusted(found: list[Association]) -> list[float]:
    """Holm-adjusted p of each association, over all associations of the same scope."""
    result = [math.nan] * len(found)
    for scope in dict.fromkeys(item.scope for item in found):
        places = [index for index, item in enumerate(found) if item.scope == scope]
        for index, value in zip(places, holm([found[place].p for place in places]), strict=True):
            result[index] = value
    return result


def _associate(
    name: str, scope: str, x: np.ndarray, y: np.ndarray, excluded: tuple[str, ...], taken: int = 0
) -> Association:
    n, nan = len(x), math.nan
    why = "few" if n < 3 else "constant" if _constant(x) or _constant(y) else ""
    if why:
        return Association(name, scope, n, nan, nan, nan, nan, nan, nan, excluded, why)
    r = _pearson(x, y)
    rho = _pearson(ranks(x), ranks(y))
    low, high = fisher_interval(r, n - taken)
    return Association(
        name, scope, n, r, correlation_p(r, n, taken), low, high, rho, correlation_p(rho, n, taken), excluded
    )


def fisher_interval(r: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a Pearson r by Fisher's z transform (Fisher 1921); NaN below four pairs."""
    if n < 4 or abs(r) >= 1:
        return (math.nan, math.nan) if n < 4 else (r, r)
    half = normal_quantile(level) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _constant(values: np.ndarray) -> bool:
    """Whether all values are equal up to rounding (centred groups leave rounding noise)."""
    return bool(np.ptp(values) <= 1e-12 * max(1e-300, float(np.abs(values).max())))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    a, b = x - x.mean(), y - y.mean()
    r = float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))
    return max(-1.0, min(1.0, r))
