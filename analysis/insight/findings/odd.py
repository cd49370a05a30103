"""Words where numbers should stand: `OOM` in a column of accuracies is a result too."""

from collections import defaultdict

from secateur.analysis.insight.datasets import Dataset
from secateur.analysis.insight.findings.base import Evidence, Finding, Number, measures
from secateur.analysis.insight.settled import Odd

LISTED = 6
OFTEN = 0.05
"""From this share of the cells on the finding is a strong one."""


def find_odd(data: Dataset) -> list[Finding]:
    """One finding per measure and word: how many of its cells hold the word, and where."""
    wanted = {column.name for column in measures(data)}
    groups: dict[tuple[str, str], list[Odd]] = defaultdict(list)
    for item in data.odd:
        if item.column in wanted:
            groups[item.column, item.word].append(item)
    return [_finding(data, name, word, items) for (name, word), items in groups.items()]


def _finding(data: Dataset, name: str, word: str, items: list[Odd]) -> Finding:
    column = data.columns[name]
    count = sum(item.count for item in items)
    spots = tuple(Evidence(item.file, item.row, name, None) for item in items[:LISTED])
    words = (*column.words, word.lower(), "runs", "rows", "cells", "words", "行", "次", "单元")
    places = [f"{item.file}, row {item.row}" for item in items]
    strong = count >= OFTEN * data.rows
    return Finding(
        "odd", data.name, name, "odd", "strong" if strong else "moderate", "odd_often" if strong else "odd_seldom",
        {
            "odd": Number(count, None, spots, "count", words, name, 0),
            "n": Number(data.rows, None, (), "rows", words, name, 0),
        },
        {"word": word, "places": "; ".join(places[:LISTED]) + ("; …" if len(places) > LISTED else "")},
        spots, (word.lower(),), count,
    )  # fmt: skip
