"""Which settings matter: variance explained, by the statistics of the analysis package."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math

from analysis.arithmetic import holm
from analysis.insight.datasets import Dataset
from analysis.insight.findings.base import MAIN, Evidence, Finding, Number, Slice, Strength, slices, where
from analysis.insight.tables import FILE
from analysis.insight.units import UNITS
from analysis.variance import Term, explain

LEAST = 8
WORK = 4000
"""Rows after whose analysis no further measure of a data set is decomposed."""
MOST_FACTORS = 6
REPORTED = 0.05
"""Settings that explain less of the variance than this are not reported."""


def find_factors(data: Dataset) -> list[Finding]:
    """For every measure the settings that explain its variance (type II sums of squares, Holm-adjusted F tests)."""
    found: list[Finding] = []
    work = 0
    for part in slices(data):
        if len(part.frame) < LEAST or not data.complete or work > WORK:
            continue
        work += len(part.frame)
        factors = [
            n
            for n in part.varying("subject", "setting")
            if 1 < part.frame[n].nunique() <= max(2, len(part.frame) // 2)
        ]
        variance = explain(part.frame, factors[:MOST_FACTORS], part.column.name) if factors else None
        if variance is None:
            continue
        terms = [term for term in variance.terms if term.term in factors]
        for term, p in zip(terms, holm([term.p for term in terms]), strict=True):
            if term.eta2 >= REPORTED and not (p > 0.05):
                found.append(_factor(part, term, p))
    return found


def _factor(part: Slice, term: Term, p: float) -> Finding:
    name, column = part.column.name, part.column
    groups = part.frame.groupby(term.term, dropna=False)[name]
    means = groups.mean().sort_values(ascending=column.better == "lower")
    files = tuple(str(file) for file in part.frame[FILE].unique())
    spots = tuple(Evidence(file, 0, name, None) for file in files[:6])
    levels = [_level(term.term, level) for level in (means.index[0], means.index[-1])]
    words = (*column.words, term.term.lower(), "explains", "variance", "解释", "方差")
    numbers = {
        "eta2": Number(term.eta2 * 100, UNITS["%"], spots, "eta squared", words, term.term, 1),
        "high": Number(float(means.iloc[0]), column.unit, spots, "mean", column.words, levels[0], 4),
        "low": Number(float(means.iloc[-1]), column.unit, spots, "mean", column.words, levels[1], 4),
        "n": Number(len(part.frame), None, spots, "count", ("rows", "runs", "行", "次"), name, 0),
    }
    strength, reason = _strength(term.eta2, p)
    if math.isfinite(p):
        numbers["p"] = Number(p, None, spots, "F test", ("p", term.term.lower()), term.term, 4)
    weight = term.eta2 * math.log1p(len(part.frame)) * (2 if column.plain in MAIN else 1)
    return Finding(
        "factor", part.data.name, name, "factor", strength, reason, numbers,
        {"factor": term.term, "where": where(part), "high_label": levels[0], "low_label": levels[1]},
        spots, tuple(str(level).lower() for level in means.index), weight,
    )  # fmt: skip


def _level(name: str, value: object) -> str:
    return f"{name}={value:g}" if isinstance(value, float | int) else str(value)


def _strength(eta2: float, p: float) -> tuple[Strength, str]:
    if math.isnan(p):
        return "weak", "factor_untested"
    return ("strong", "factor_large") if eta2 >= 0.14 and p < 0.01 else ("moderate", "factor_medium")
