"""Which settings matter: variance explained, by the statistics of the analysis package."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from dataclasses import replace

from secateur.analysis.insight.datasets import Dataset
from secateur.analysis.insight.findings.base import MAIN, Evidence, Finding, Number, Slice, slices, where
from secateur.analysis.insight.findings.noise import LEVEL, judged
from secateur.analysis.insight.tables import FILE
from secateur.analysis.insight.units import UNITS
from secateur.analysis.variance import Term, explain

LEAST = 8
WORK = 4000
"""Rows after whose analysis no further measure of a data set is decomposed."""
MOST_FACTORS = 6
REPORTED, LARGE = 0.05, 14.0
"""Settings that explain less of the variance (share) are not reported; from `LARGE` per cent on they are strong."""


def find_factors(data: Dataset) -> list[Finding]:
    """For every measure the settings that explain its variance (type II, F tests, Holm over the table)."""
    found: list[Finding] = []
    tests = 0
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
        chosen = [name for name in factors if data.columns[name].role == "setting"]  # a model is no choice
        for term in variance.terms:
            if term.term in chosen and not math.isnan(term.p):  # without a test a share says nothing
                tests += 1
                if term.eta2 >= REPORTED and term.p < LEVEL:
                    found.append(_factor(part, term))
    return [_strong(item) for item in judged(found, tests) if item.p < LEVEL]


def _factor(part: Slice, term: Term) -> Finding:
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
    weight = term.eta2 * math.log1p(len(part.frame)) * (2 if column.plain in MAIN else 1)
    return Finding(
        "factor", part.data.name, name, "factor", "moderate", "factor_medium", numbers,
        {"factor": term.term, "where": where(part), "high_label": levels[0], "low_label": levels[1]},
        spots, tuple(str(level).lower() for level in means.index), weight, p=term.p,
    )  # fmt: skip


def _level(name: str, value: object) -> str:
    return f"{name}={value:g}" if isinstance(value, float | int) else str(value)


def _strong(item: Finding) -> Finding:
    if item.numbers["eta2"].value < LARGE or item.p >= LEVEL / 5:
        return item
    return replace(item, strength="strong", reason="factor_large")
