"""The best setting of every measure that is known to be better high or low: a claim only beside the noise."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import holm, t_p
from secateur.analysis.insight.datasets import Dataset
from secateur.analysis.insight.findings.base import (
    Evidence,
    Finding,
    Number,
    Slice,
    evidence,
    known_errors,
    label,
    names_of,
    slices,
    where,
)  # fmt: skip
from secateur.analysis.insight.findings.noise import LEVEL, Noise, find_noise, judged

SPOTS = 6


@dataclass(frozen=True)
class Cell:
    """The rows of one setting: their mean and its standard error (NaN where no noise is known)."""

    rows: tuple[int, ...]
    mean: float
    error: float


def find_best(data: Dataset) -> list[Finding]:
    """The best setting of each slice, subject by subject, and how many are not told apart from it."""
    found: list[Finding] = []
    parts = [_pruned(part) for part in slices(data)]
    largest = {part.column.name: 0 for part in parts}
    for part in parts:
        largest[part.column.name] = max(largest[part.column.name], len(part.frame))
    for part in parts:
        if largest[part.column.name] < 2 and part.conditions:
            continue  # a single row under each condition: see below
        for one in _by_subject(part):
            if _is_ranked(one):
                noise = find_noise(one)
                found.append(_best(one, noise if noise.source != "none" else find_noise(part)))
    for name in (name for name, rows in largest.items() if rows == 1):
        across = _across(data, [part for part in parts if part.column.name == name and len(part.frame)])
        if _is_ranked(across):
            found.append(replace(_best(across, find_noise(across)), reason="across"))
    return [_claimed(item) for item in judged(found)]


def _pruned(part: Slice) -> Slice:
    """Without the unpruned baseline: it is what the others are held against, not one of them."""
    if "kind" not in part.frame or "pruned" not in set(part.data.frame["kind"]):
        return part
    return replace(part, frame=part.frame[part.frame["kind"] != "dense"])


def _by_subject(part: Slice) -> Iterator[Slice]:
    """Each model on its own, where there is something to choose within one."""
    subjects, settings = part.varying("subject"), part.varying("setting")
    groups = list(part.frame.groupby(subjects, dropna=False, sort=False)) if subjects and settings else []
    if all(len(frame[settings].drop_duplicates()) < 2 for _, frame in groups):
        yield part
        return
    for key, frame in groups:
        yield replace(
            part, frame=frame, conditions={**part.conditions, **dict(zip(subjects, key, strict=True))}
        )


def _is_ranked(part: Slice) -> bool:
    return part.column.better != "none" and len(part.frame) >= 2 and np.ptp(part.values) > 0


def _across(data: Dataset, parts: list[Slice]) -> Slice:
    """Rows that stand alone under their conditions (one per task), side by side: the condition is their label."""
    rows = pd.concat([part.frame for part in parts])
    columns = {
        name: replace(column, role="setting") if column.role == "condition" else column
        for name, column in data.columns.items()
    }
    return Slice(replace(data, columns=columns), parts[0].column, rows, {})


def _cells(part: Slice, noise: Noise) -> list[Cell]:
    """Rows of one setting taken together, the best first."""
    keys = part.varying("subject", "setting")
    groups = (
        part.frame.groupby(keys, dropna=False, sort=False) if keys else part.frame.groupby(part.frame.index)
    )
    found: list[Cell] = []
    labels, values, errors = part.frame.index, part.values, known_errors(part)
    for places in groups.indices.values():
        error = noise.sd / math.sqrt(len(places))
        if noise.source == "errors":
            error = math.hypot(*errors[places]) / len(places)
        found.append(Cell(tuple(labels[places]), float(values[places].mean()), error))
    return sorted(found, key=lambda cell: cell.mean, reverse=part.column.better == "higher")


def _best(part: Slice, noise: Noise) -> Finding:
    name, column = part.column.name, part.column
    cells = _cells(part, noise)
    against = [_p(cells[0], cell, noise.df) for cell in cells[1:]]
    tied = sum(not p < LEVEL for p in holm(against)) if noise.source != "none" else len(against)
    named = part.varying("subject", "setting") or None
    labels = {
        key: label(part, cells[place].rows[0], named) for key, place in PLACES.items() if place < len(cells)
    }
    spots = {key: _spots(part, cells[PLACES[key]]) for key in labels}
    numbers = {
        key: Number(
            cells[PLACES[key]].mean, column.unit, spots[key], "mean" if len(spots[key]) > 1 else "", column.words,
            text, error=cells[PLACES[key]].error,
        )
        for key, text in labels.items()
    }  # fmt: skip
    rows = len(part.frame) if data_complete(part) else part.data.rows
    counted = ("rows", "settings", "setting", "not told apart", "行", "设置", "无法区分")
    numbers["n"] = Number(rows, None, (), "rows", counted, name, 0)
    numbers["settings"] = Number(len(cells), None, (), "count", counted, name, 0)
    numbers["tied"] = Number(max(1, tied), None, (), "count", counted, name, 0)
    p = max(against, default=math.nan)
    return Finding(
        "best", part.data.name, name, f"best_{'open' if math.isnan(p) else 'tied'}", "weak",
        "no_error" if math.isnan(p) else "lead_within_error", numbers,
        {**{f"{key}_label": text for key, text in labels.items()}, "where": where(part)},
        (*spots["best"][:1], *spots["worst"][:1]),
        (*names_of(part, cells[0].rows[0]), *names_of(part, cells[-1].rows[0])), len(part.frame), p=p,
    )  # fmt: skip


PLACES = {"best": 0, "second": 1, "worst": -1}


def _spots(part: Slice, cell: Cell) -> tuple[Evidence, ...]:
    return tuple(evidence(part, row) for row in cell.rows[:SPOTS])


def _p(one: Cell, other: Cell, df: float) -> float:
    """Two-sided p of no difference; NaN where no noise is known."""
    error = math.hypot(one.error, other.error)
    if not math.isfinite(error) or error == 0:
        return math.nan if math.isnan(error) else float(one.mean == other.mean)
    return t_p((one.mean - other.mean) / error, min(df, 1e9))


def _claimed(item: Finding) -> Finding:
    """A winner where even the second is told apart from it."""
    if not item.p < LEVEL:
        return item
    across = item.reason == "across"
    numbers = item.numbers | {"tied": replace(item.numbers["tied"], value=0.0)}
    strength = "strong" if item.p < LEVEL / 5 and not across else "moderate"
    reason = "across" if across else "lead_above_error"
    return replace(item, form="best_clear", strength=strength, reason=reason, numbers=numbers)


def data_complete(part: Slice) -> bool:
    """Whether a slice has every row of the files."""
    return part.data.complete or bool(part.conditions)
