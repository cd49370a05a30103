"""How much of the variance of ACC each factor and each pair of factors explains.

Ordinary least squares on sum-to-zero coded factors, main effects and two-way interactions, type II sums of squares
(a term is judged beside everything that does not contain it). eta^2 = SS / SS total; partial eta^2 = SS / (SS + SS
error); omega^2 (Hays 1963) = (SS - df x MS error) / (SS total + MS error) is the less biased of the three.
"""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

import math
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import f_noncentrality, f_p, holm
from secateur.analysis.factors import cell_key

MAX_LEVELS = 40
MAX_COLUMNS = 300


@dataclass(frozen=True)
class Term:
    """One factor or interaction (`a × b`); NaN where no degree of freedom is left for the error.

    `eta2_low` .. `eta2_high`: 95 % interval of the share (noncentral F, Steiger 2004); 0 is in it where noise gives it.
    """

    term: str
    df: int
    ss: float
    eta2: float
    partial_eta2: float
    omega2: float
    f: float
    p: float
    eta2_low: float = math.nan
    eta2_high: float = math.nan


@dataclass(frozen=True)
class Joint:
    """Two factors taken together.

    Attributes:
        share: Of the variance between the cells of both.
        chance: The share that as many cells have of pure noise, on average.
        p: F test of the cells against what is within them (Holm over the pairs); NaN where no cell has two runs.
    """

    pair: str
    share: float
    cells: int
    chance: float
    p: float


@dataclass(frozen=True)
class Variance:
    """The decomposition of one model's ACC.

    Attributes:
        terms: Each term; last comes `residual`.
        joint: Every pair of factors (main effects and interaction together).
        left_out: Factors with too many levels to be judged.
    """

    n: int
    r2: float
    terms: tuple[Term, ...]
    joint: tuple[Joint, ...]
    left_out: tuple[str, ...]


def explain(frame: pd.DataFrame, factors: list[str], target: str = "acc_mean") -> Variance | None:
    """Decompose the variance of the target; None with fewer than three runs, no factor or a constant target."""
    y = frame[target].to_numpy(dtype=float)
    levels = {name: frame[name].nunique(dropna=False) for name in factors}
    used = [name for name in factors if 2 <= levels[name] <= min(MAX_LEVELS, max(2, len(frame) - 1))]
    if len(y) < 3 or not used or np.ptp(y) <= 1e-12:
        return None
    codes = {name: pd.factorize(frame[name], use_na_sentinel=False)[0] for name in used}
    pairs = _affordable(used, levels)
    total = float(((y - y.mean()) ** 2).sum())
    fit = _Fit(frame, used, codes, y, [(name,) for name in used] + pairs)
    residual, rank = fit.residual([(name,) for name in used] + pairs)
    while pairs and rank >= len(y):  # a saturated model tests nothing: its last interaction becomes the error
        pairs = pairs[:-1]
        residual, rank = fit.residual([(name,) for name in used] + pairs)
    every = [(name,) for name in used] + pairs
    df_error = len(y) - rank
    residual = max(residual, 1e-12 * total)
    ms_error = residual / df_error if df_error > 0 else math.nan
    terms = [_term(fit, term, every, total, residual, ms_error, df_error) for term in every]
    terms.append(
        Term("residual", df_error, residual, residual / total, math.nan, math.nan, math.nan, math.nan)
    )
    joint = _joint(frame, used, y, total)
    left_out = tuple(name for name in factors if name not in used)
    return Variance(len(y), 1 - residual / total, tuple(terms), joint, left_out)


def _term(
    fit: "_Fit", term: tuple[str, ...], every: list[tuple[str, ...]], total: float, residual: float,
    ms_error: float, df_error: int,
) -> Term:  # fmt: skip
    beside = [other for other in every if other != term and not set(term) <= set(other)]
    without, rank_without = fit.residual(beside)
    with_term, rank_with = fit.residual([*beside, term])
    ss, df = max(0.0, without - with_term), rank_with - rank_without
    partial = ss / (ss + residual) if ss + residual > 0 else math.nan
    omega = (ss - df * ms_error) / (total + ms_error)
    f = ss / df / ms_error if df > 0 else math.nan
    if math.isnan(f):
        return Term(" × ".join(term), df, ss, ss / total, partial, omega, f, f)
    ends = (_share(bound * ms_error, total - ss) for bound in f_noncentrality(f, df, df_error))
    return Term(" × ".join(term), df, ss, ss / total, partial, omega, f, f_p(f, df, df_error), *ends)


def _share(own: float, others: float) -> float:
    return own / (others + own)


def _affordable(used: list[str], levels: dict[str, int]) -> list[tuple[str, ...]]:
    """Two-way interactions, those of `method` first, as long as the design stays small."""
    pairs: list[tuple[str, ...]] = []
    columns = sum(levels[name] - 1 for name in used)
    for pair in sorted(combinations(used, 2), key=lambda pair: "method" not in pair):
        columns += (levels[pair[0]] - 1) * (levels[pair[1]] - 1)
        if columns <= MAX_COLUMNS:
            pairs.append(pair)
    return pairs


def _joint(frame: pd.DataFrame, used: list[str], y: np.ndarray, total: float) -> tuple[Joint, ...]:
    found: list[Joint] = []
    for pair in combinations(used, 2):
        cells = pd.Series(y).groupby(cell_key(frame, list(pair))).agg(["mean", "count"])
        share = float((cells["count"] * (cells["mean"] - y.mean()) ** 2).sum()) / total
        df, rest = len(cells) - 1, len(y) - len(cells)
        f = share / df / ((1 - share) / rest) if rest > 0 and share < 1 else math.nan
        p = math.nan if math.isnan(f) else f_p(f, df, rest)
        found.append(Joint(" × ".join(pair), share, len(cells), df / (len(y) - 1), p))
    return tuple(replace(item, p=p) for item, p in zip(found, holm([item.p for item in found]), strict=True))


class _Fit:
    """Least squares on the means of the distinct factor combinations, weighted by their counts.

    The result equals least squares on the rows, at the cost of the combinations instead of the rows; the normal
    equations of all terms are set up once, each model solves its part of them.
    """

    def __init__(
        self, frame: pd.DataFrame, names: list[str], codes: dict[str, np.ndarray], y: np.ndarray,
        terms: list[tuple[str, ...]],
    ) -> None:  # fmt: skip
        cell = cell_key(frame, names)
        groups = pd.Series(y).groupby(cell)
        first = pd.Series(np.arange(len(y))).groupby(cell).first().to_numpy()
        weight = np.sqrt(groups.count().to_numpy(dtype=float))
        mean = groups.mean().to_numpy(dtype=float)
        self._inside = float(((y - mean[cell]) ** 2).sum())
        dummies = {name: _contrasts(codes[name])[codes[name][first]] for name in names}
        blocks = [np.ones((len(weight), 1))]
        self._places: dict[tuple[str, ...], np.ndarray] = {}
        column = 1
        for term in terms:
            block = dummies[term[0]]
            for name in term[1:]:
                block = (block[:, :, None] * dummies[name][:, None, :]).reshape(len(block), -1)
            blocks.append(block)
            self._places[term] = np.arange(column, column + block.shape[1])
            column += block.shape[1]
        design = np.hstack(blocks) * weight[:, None]
        target = weight * (mean - y.mean())
        self._gram, self._moment, self._square = design.T @ design, design.T @ target, float(target @ target)
        self._known: dict[frozenset[tuple[str, ...]], tuple[float, int]] = {}

    def residual(self, terms: list[tuple[str, ...]]) -> tuple[float, int]:
        """Residual sum of squares and rank of the model with these terms and an intercept."""
        key = frozenset(terms)
        if key not in self._known:
            places = np.concatenate([np.array([0]), *(self._places[term] for term in terms)])
            values, vectors = np.linalg.eigh(self._gram[np.ix_(places, places)])
            keep = values > 1e-10 * values[-1]
            projected = vectors[:, keep].T @ self._moment[places]
            explained = float((projected**2 / values[keep]).sum())
            self._known[key] = max(0.0, self._square - explained) + self._inside, int(keep.sum())
        return self._known[key]


def _contrasts(codes: np.ndarray) -> np.ndarray:
    """Sum-to-zero contrasts, [levels, levels - 1]."""
    levels = int(codes.max()) + 1
    return np.vstack([np.eye(levels - 1), -np.ones((1, levels - 1))])
