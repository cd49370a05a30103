"""What single measurements scatter by, and which p-values survive that many were looked at."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import holm
from secateur.analysis.insight.findings.base import Finding, Slice, known_errors

LEVEL = 0.05
"""Of tables of pure noise at most this share has a claim of one kind (Holm over all that was tested in the table)."""
MOST = 60
"""Levels of a setting from which on it is no factor."""
HALF = 0.5
"""Repeats speak for a table where more than this share of its settings was repeated."""
Source = Literal["errors", "repeats", "scatter", "none"]


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one row, its degrees of freedom, and where it is from.

    `errors`: a column gives the standard error of each row. `repeats`: rows that agree in every setting. `scatter`:
    what the settings leave when each moves the value on its own (what they do together counts as noise).
    """

    sd: float
    df: float
    source: Source


def find_noise(part: Slice) -> Noise:
    """The noise of a slice, from the first source that it has."""
    if np.isfinite(known_errors(part)).all():
        return Noise(math.nan, math.inf, "errors")
    keys = part.data.settings()
    groups = part.frame.groupby(keys, dropna=False, sort=False)[part.column.name] if keys else None
    if groups is not None:
        counts, variances = groups.count(), groups.var(ddof=1)
        df = float((counts - 1).clip(lower=0).sum())
        if df >= 2 and (counts > 1).mean() > HALF:  # one method's seeds are not everyone's noise
            squares = float((variances.fillna(0.0) * (counts - 1)).sum())
            return Noise(math.sqrt(squares / df), df, "repeats")
    sd, df = scatter(part.values, factors_of(part))
    return Noise(sd, df, "scatter" if df >= 2 else "none")


def factors_of(part: Slice) -> list[np.ndarray]:
    """Levels, as numbers from 0, of every setting that varies and has a level with two rows."""
    found: list[np.ndarray] = []
    for name in part.varying("subject", "setting"):
        codes = pd.factorize(part.frame[name], use_na_sentinel=False)[0]
        if codes.max() + 1 < min(len(codes), MOST):
            found.append(codes)
    return found


def scatter(values: np.ndarray, factors: list[np.ndarray]) -> tuple[float, float]:
    """Residual standard deviation and degrees of freedom of least squares on the settings' main effects."""
    if not factors:
        return math.nan, 0.0
    design = main_effects(factors, len(values))
    fit, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    df = float(len(values) - rank)
    left = values - design @ fit
    return (math.sqrt(float(left @ left) / df) if df > 0 else math.nan), df


def main_effects(factors: list[np.ndarray], rows: int) -> np.ndarray:
    """Design of an intercept and of every level but the first, [rows, columns]."""
    blocks = [np.ones((rows, 1)), *(np.eye(int(codes.max()) + 1)[codes][:, 1:] for codes in factors)]
    return np.hstack(blocks)


def judged(found: Sequence[Finding], tests: int = 0) -> list[Finding]:
    """The findings with `p` adjusted (Holm) over all of one kind and table; `tests` says how many were made in all."""
    missing = max(0, tests - sum(not math.isnan(item.p) for item in found))
    adjusted = holm([*(item.p for item in found), *[1.0] * missing])
    return [replace(item, p=p) for item, p in zip(found, adjusted, strict=False)]
