"""What a finding is, and what all finders share: slices of comparable rows, labels, known errors."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from secateur.analysis.insight.datasets import KINDS, TIME, Dataset
from secateur.analysis.insight.naming import Column
from secateur.analysis.insight.tables import FILE, ROW
from secateur.analysis.insight.units import Unit

Kind = Literal[
    "distance", "best", "change", "outlier", "unstable", "factor", "missing", "contradiction", "odd"
]
Strength = Literal["strong", "moderate", "weak"]
STRENGTHS: tuple[Strength, ...] = ("strong", "moderate", "weak")
MAIN = ("acc_mean", "acc", "ppl")
MEASURES = 10
"""Measures of one data set that are looked at; those that decide come first."""
BOOKKEEPING = 3
SLICES = 24
LABEL = 90
TRUTH = ("true", "false", "yes", "no")


@dataclass(frozen=True)
class Evidence:
    """Where a number stands: file, row, column; `row` 0 is the whole file."""

    file: str
    row: int
    column: str
    value: float | None
    unit: str = ""
    time: str | None = None


@dataclass(frozen=True)
class Number:
    """One number of a finding: read from a file, or computed from `evidence` (`how` says by which rule).

    `error` is its standard error, where one is known: no more digits are printed than it leaves.
    """

    value: float
    unit: Unit | None
    evidence: tuple[Evidence, ...]
    how: str = ""
    words: tuple[str, ...] = ()
    about: str = ""
    digits: int | None = None
    error: float = math.nan


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        measure: The measured column; empty when the finding is about none.
        form: Which sentence of the texts tells it.
        numbers, words: What the sentence is filled with.
        reason: Key of the sentence that explains the strength.
        weight: For the order among findings of one kind and strength.
        p: Of the claim, adjusted over all of its kind in the table; NaN where nothing was tested.
        family: The canonical metric that it is about; findings of one kind and family are one phenomenon.
        rank: Decision value of what it is about: 0 outcome, 1 cost, 2 unknown, 3 bookkeeping.
    """

    kind: Kind
    dataset: str
    measure: str
    form: str
    strength: Strength
    reason: str
    numbers: dict[str, Number]
    words: dict[str, str]
    evidence: tuple[Evidence, ...]
    names: tuple[str, ...] = ()
    weight: float = 0.0
    more: tuple[str, ...] = field(default=())
    p: float = math.nan
    family: str = ""
    rank: int = 2


@dataclass(frozen=True)
class Slice:
    """Rows of one data set that measure the same thing under the same conditions; finite values of one measure."""

    data: Dataset
    column: Column
    frame: pd.DataFrame
    conditions: dict[str, Any]

    @property
    def values(self) -> np.ndarray:
        """The measured values."""
        return self.frame[self.column.name].to_numpy(dtype=float)

    def varying(self, *roles: str) -> list[str]:
        """Columns of these roles that differ between the rows."""
        return [name for name in self.data.of(*roles) if self.frame[name].nunique(dropna=False) >= 2]


def slices(data: Dataset) -> Iterator[Slice]:
    """Every measure under every condition (task, phase, ...), at most `SLICES` conditions of each."""
    conditions = [name for name in data.of("condition") if 1 < data.frame[name].nunique() <= 60]
    for column in measures(data):
        finite = np.isfinite(data.frame[column.name].to_numpy(dtype=float))
        rows = data.frame[finite]
        if not conditions:
            yield Slice(data, column, rows, {})
            continue
        groups = rows.groupby(conditions, dropna=False, sort=False)
        for place, (key, part) in enumerate(groups):
            if place >= SLICES:
                break
            yield Slice(data, column, part, dict(zip(conditions, key, strict=True)))


def measures(data: Dataset) -> list[Column]:
    """The measures worth looking at, outcomes first; times of jobs and costs of pruning runs only without one."""
    found = [
        column
        for name, column in data.columns.items()
        if column.role == "measure" and pd.api.types.is_numeric_dtype(data.frame[name].dtype)
        and data.frame[name].notna().any()
    ]  # fmt: skip
    if any(column.rank == 0 for column in found):
        found = [column for column in found if column.rank < (1 if data.kind == KINDS[0] else BOOKKEEPING)]
    found.sort(key=lambda column: (column.rank, column.better == "none", column.plain not in MAIN))
    return found[:MEASURES]


def evidence(part: Slice, label: Any) -> Evidence:
    """Where the value of one row stands."""
    row = part.frame.loc[label]
    unit = part.column.unit.name if part.column.unit is not None else ""
    time = row[TIME] if isinstance(row[TIME], str) else None
    return Evidence(str(row[FILE]), int(row[ROW]), part.column.name, float(row[part.column.name]), unit, time)


def label(part: Slice, row: Any, names: list[str] | None = None) -> str:
    """A row in words: what tells it from the others, then the conditions."""
    record = part.frame.loc[row]
    chosen = names if names is not None else part.varying("subject", "setting", "replicate")
    words = [word(name, record[name]) for name in chosen]
    text = " ".join(w for w in words if w) or str(record[FILE])
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def word(name: str, value: Any) -> str:
    """A setting in words: text values as they are, numbers with their column's name."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | int):
        return f"{name.rsplit('.', 1)[-1]}={value:g}"
    text = str(value)
    return f"{name}={text}" if text.lower() in TRUTH else text


def where(part: Slice) -> str:
    """The conditions of a slice in words, with a leading space; empty without any."""
    words = [word(name, value) for name, value in part.conditions.items()]
    words = [text for text in words if text and text != "pruned"]
    return f" ({', '.join(words)})" if words else ""


def names_of(part: Slice, row: Any) -> tuple[str, ...]:
    """Words by which a text may name a row: its subject and settings."""
    record = part.frame.loc[row]
    chosen = part.data.of("subject", "setting", "condition")
    words = (record[name].strip().lower() for name in chosen if isinstance(record[name], str))
    return tuple(dict.fromkeys(word for word in words if word not in TRUTH))


def known_errors(part: Slice) -> np.ndarray:
    """The standard error of each row's value where a column of the same table gives it; else NaN."""
    plain = part.column.plain
    stem = plain.removeprefix("acc_")
    wanted = {f"{plain}_se", f"{plain}_stderr", f"se_{stem}", f"{plain}_std_err", f"{plain}_sem"}
    for name in part.data.of("spread"):
        if part.data.columns[name].plain in wanted and pd.api.types.is_numeric_dtype(part.frame[name].dtype):
            return part.frame[name].to_numpy(dtype=float)
    return np.full(len(part.frame), math.nan)
