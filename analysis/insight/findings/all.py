"""All findings over all data sets, in the order of a report."""

from collections.abc import Callable

from analysis.insight.datasets import KINDS, Dataset
from analysis.insight.findings.base import STRENGTHS, Finding
from analysis.insight.findings.changes import find_changes
from analysis.insight.findings.contradictions import find_contradictions
from analysis.insight.findings.factors import find_factors
from analysis.insight.findings.grid import find_missing
from analysis.insight.findings.odd import find_odd
from analysis.insight.findings.ranks import find_best
from analysis.insight.findings.spread import find_outliers, find_unstable

FINDERS: tuple[Callable[[Dataset], list[Finding]], ...] = (
    find_best, find_changes, find_outliers, find_unstable, find_factors, find_missing,
    find_odd,
)  # fmt: skip
ORDER = ("contradiction", "odd", "outlier", "missing", "best", "change", "factor", "unstable")
DATASETS = 200
"""Data sets that are searched; the report says how many there are."""


def find_all(datasets: list[Dataset]) -> list[Finding]:
    """Everything that is found: by kind, then strength, then the kind of results, then size."""
    searched = datasets[:DATASETS]
    kinds = {data.name: KINDS.index(data.kind) for data in datasets}
    found = find_contradictions(searched)
    for data in searched:
        for finder in FINDERS:
            found += finder(data)
    return sorted(
        found,
        key=lambda item: (
            ORDER.index(item.kind), STRENGTHS.index(item.strength), kinds[item.dataset], -item.weight,
        ),
    )  # fmt: skip
