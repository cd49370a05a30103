"""All findings over all data sets, in the order of a report."""

from collections.abc import Callable
from dataclasses import replace

from secateur.analysis.insight.datasets import KINDS, Dataset
from secateur.analysis.insight.findings.base import MAIN, STRENGTHS, Finding
from secateur.analysis.insight.findings.changes import find_changes
from secateur.analysis.insight.findings.contradictions import find_contradictions
from secateur.analysis.insight.findings.distance import find_distance
from secateur.analysis.insight.findings.factors import find_factors
from secateur.analysis.insight.findings.grid import find_missing
from secateur.analysis.insight.findings.odd import find_odd
from secateur.analysis.insight.findings.outliers import find_outliers
from secateur.analysis.insight.findings.ranks import find_best
from secateur.analysis.insight.findings.spread import find_unstable

FINDERS: tuple[Callable[[Dataset], list[Finding]], ...] = (
    find_distance, find_best, find_changes, find_outliers, find_unstable, find_factors, find_missing, find_odd,
)  # fmt: skip
ORDER = ("contradiction", "distance", "factor", "best", "change", "outlier", "odd", "missing", "unstable")
DATASETS = 200
"""Data sets that are searched; the report says how many there are."""


def find_all(datasets: list[Dataset]) -> list[Finding]:
    """Everything that is found, by what it is worth to a decision: the measure's rank, then kind, strength and size."""
    searched = datasets[:DATASETS]
    by_name = {data.name: data for data in datasets}
    found = find_contradictions(searched)
    for data in searched:
        for finder in FINDERS:
            found += finder(data)
    return sorted(
        (_placed(item, by_name[item.dataset]) for item in found), key=lambda item: _key(item, by_name)
    )


def _placed(item: Finding, data: Dataset) -> Finding:
    """With the metric that it is about, and what that is worth to a decision."""
    column = data.columns.get(item.measure)
    if column is None:
        return item
    return replace(item, family=column.metric or column.plain, rank=column.rank)


def _key(item: Finding, datasets: dict[str, Dataset]) -> tuple[int, int, int, int, int, float]:
    kind, side = (
        KINDS.index(datasets[item.dataset].kind),
        MAIN.index(item.measure) if item.measure in MAIN else len(MAIN),
    )
    return item.rank, side, ORDER.index(item.kind), STRENGTHS.index(item.strength), kind, -item.weight
