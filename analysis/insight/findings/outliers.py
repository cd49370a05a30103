"""Outliers: values far from what their settings let expect, beyond chance."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from collections import Counter

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import t_p
from secateur.analysis.insight.datasets import Dataset
from secateur.analysis.insight.findings.base import (
    Finding,
    Number,
    Slice,
    evidence,
    label,
    names_of,
    slices,
    where,
)
from secateur.analysis.insight.findings.noise import LEVEL, factors_of, judged, main_effects

OUTLIER, FAR = 5.0, 10.0
"""Modified z scores from which a value is an outlier, and a strong one (Iglewicz and Hoaglin 1993 use 3.5)."""
LEAST = 6
MOST, PER_ROW = 30, 2
Z_WORDS = ("z", "deviation", "outlier", "偏差", "异常值")


def find_outliers(data: Dataset) -> list[Finding]:
    """Values far from what their settings let expect: residuals after median polish, against their median spread.

    What is far by that must also be far by least squares on the other rows (externally studentised residual, Bonferroni
    over all choices of as many rows, Holm over the table): in small tables median spreads are small by chance.
    """
    found: list[Finding] = []
    tests = 0
    if data.kind == "unknown" and all(name.lower().endswith((".md", ".markdown")) for name in data.files):
        return []  # tables of prose: their numbers are seldom of one kind
    for part in slices(data):
        if len(part.frame) < LEAST:
            continue
        tests += 1
        values = part.values
        skewed = bool((values > 0).all()) and float(values.max()) > 20 * float(values.min())
        scale = np.log(values) if skewed else values
        expected, parameters = _polished(part, scale)
        residual = scale - expected
        z = _scores(residual) * math.sqrt(1 - parameters / len(values))
        far = np.flatnonzero(np.abs(z) >= OUTLIER)
        own = _own(part, scale, far)
        for place, p, other in zip(far, studentised(scale, factors_of(part), far), own, strict=True):
            usual = math.exp(float(expected[place])) if skewed else float(expected[place])
            if abs(values[place] - usual) > 0.02 * abs(usual):
                found.append(_outlier(part, part.frame.index[place], float(z[place]), usual, max(p, other)))
    kept = [item for item in judged(found, tests) if item.p < LEVEL]
    return _once_per_row(sorted(kept, key=lambda item: -item.weight))[:MOST]


def studentised(values: np.ndarray, factors: list[np.ndarray], far: np.ndarray) -> list[float]:
    """The p of each row in `far` against a fit on the rows that are not, times the choices of as many rows (at most 1).

    2^k keeps the sum over all numbers k of rows at the nominal level.
    """
    rest = np.setdiff1d(np.arange(len(values)), far)
    for design in (main_effects(factors, len(values)), np.ones((len(values), 1))):
        gram = design[rest].T @ design[rest]
        df = len(rest) - int(np.linalg.matrix_rank(design[rest]))
        if df >= 2 and np.linalg.matrix_rank(gram) == design.shape[1]:
            break
    else:
        return [1.0] * len(far)
    inverse = np.linalg.inv(gram)
    fit = inverse @ design[rest].T @ values[rest]
    left = values[rest] - design[rest] @ fit
    variance = float(left @ left) / df
    choices = float(math.comb(len(values), len(far))) * 2 ** len(far)
    found: list[float] = []
    for place in far:
        row = design[place]
        error = math.sqrt(variance * (1 + float(row @ inverse @ row)))
        gap = abs(values[place] - float(row @ fit))
        found.append(min(1.0, choices * t_p(gap / error, df)) if error > 0 else float(gap == 0))
    return found


def _own(part: Slice, values: np.ndarray, far: np.ndarray) -> list[float]:
    """The p of each row in `far` against two or more other rows of its own setting; 0 of a row that has none.

    A random baseline scatters more from seed to seed than the methods beside it: that is no outlier.
    """
    keys = part.varying("subject", "setting")
    groups = part.frame.groupby(keys, dropna=False, sort=False).indices.values() if keys else []
    found = dict.fromkeys(far.tolist(), 0.0)
    for places in groups:
        for place in set(places.tolist()) & found.keys() if len(places) > 2 else ():
            rest = values[[other for other in places if other != place]]
            error = float(rest.std(ddof=1)) * math.sqrt(1 + 1 / len(rest))
            found[place] = t_p((values[place] - rest.mean()) / error, len(rest) - 1) if error > 0 else 0.0
    return list(found.values())


def _once_per_row(found: list[Finding]) -> list[Finding]:
    """A row that is off in many measures is reported for the two in which it is most."""
    seen: Counter[tuple[str, int]] = Counter()
    kept: list[Finding] = []
    for finding in found:
        place = finding.evidence[0].file, finding.evidence[0].row
        seen[place] += 1
        if seen[place] <= PER_ROW:
            kept.append(finding)
    return kept


def _polished(part: Slice, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Fit of an additive model of medians (Tukey 1977) over the settings that rows enough vary, and its parameters."""
    fit = np.full(len(values), float(np.median(values)))
    factors: list[np.ndarray] = []
    parameters = 1
    for name in part.varying("subject", "setting"):
        codes = pd.factorize(part.frame[name], use_na_sentinel=False)[0]
        count = int(codes.max()) + 1
        if np.bincount(codes).min() >= 2 and (parameters + count - 1) * 1.5 <= len(values):
            factors.append(codes)
            parameters += count - 1
    for _ in range(4 if factors else 0):
        for codes in factors:
            fit = fit + pd.Series(values - fit).groupby(codes).transform("median").to_numpy()
    return fit, parameters


def _scores(residual: np.ndarray) -> np.ndarray:
    """Modified z scores: 0.6745 (r - median) / MAD; with a MAD of zero the mean absolute deviation takes its place."""
    centred = residual - np.median(residual)
    spread = float(np.median(np.abs(centred))) / 0.6745
    if spread <= 1e-12 * max(1e-300, float(np.abs(residual).max())):
        spread = float(np.abs(centred).mean()) * 1.253314
    return centred / spread if spread > 0 else np.zeros(len(residual))


def _outlier(part: Slice, row: int, z: float, usual: float, p: float) -> Finding:
    column = part.column
    spot = evidence(part, row)
    strength = "strong" if abs(z) >= FAR else "moderate"
    about = label(part, row)
    return Finding(
        "outlier", part.data.name, column.name, "outlier", strength, "outlier_far" if abs(z) >= FAR else "outlier_near",
        {
            "value": Number(float(part.frame.loc[row, column.name]), column.unit, (spot,), "", column.words, about),
            "usual": Number(usual, column.unit, (spot,), "median polish", column.words, about, 4),
            "z": Number(abs(z), None, (spot,), "modified z", (*column.words, *Z_WORDS), about, 1),
        },
        {"label": about, "where": where(part)}, (spot,), names_of(part, row), abs(z), p=p,
    )  # fmt: skip
