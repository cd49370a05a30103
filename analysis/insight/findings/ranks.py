"""Best and worst: of every measure that is known to be better high or low."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.insight.datasets import Dataset
from analysis.insight.findings.base import (
    Finding,
    Number,
    Slice,
    Strength,
    evidence,
    known_error,
    label,
    names_of,
    noise,
    slices,
    where,
)  # fmt: skip


def find_best(data: Dataset) -> list[Finding]:
    """The best and the worst row of each slice; which of two equals is called best is the first read."""
    found: list[Finding] = []
    parts = list(slices(data))
    largest = {part.column.name: 0 for part in parts}
    for part in parts:
        largest[part.column.name] = max(largest[part.column.name], len(part.frame))
    for part in parts:
        if largest[part.column.name] < 2 and part.conditions:
            continue  # a single row under each condition: see below
        if _is_ranked(part) and part.conditions.get("kind") != "dense":
            found.append(_best(part))
    for name in (name for name, rows in largest.items() if rows == 1):
        across = _across(data, [part for part in parts if part.column.name == name])
        if _is_ranked(across):
            found.append(replace(_best(across), strength="moderate", reason="across"))
    return found


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


def _best(part: Slice) -> Finding:
    name, column = part.column.name, part.column
    order = part.frame[name].sort_values(ascending=column.better == "lower", kind="stable").index
    first, second, last = order[0], order[1], order[-1]
    strength, reason = _strength(part, first, second)
    evidences = (evidence(part, first), evidence(part, last))
    numbers = {
        key: Number(
            float(part.frame.loc[row, name]),
            column.unit,
            (evidences[place],),
            "",
            column.words,
            label(part, row),
        )
        for place, (key, row) in enumerate((("best", first), ("worst", last)))
    }
    numbers["n"] = Number(
        len(part.frame) if data_complete(part) else part.data.rows, None, (), "rows", ("rows", "行"), name, 0
    )
    return Finding(
        "best", part.data.name, name, "best", strength, reason, numbers,
        {"best_label": label(part, first), "worst_label": label(part, last), "where": where(part)},
        evidences, (*names_of(part, first), *names_of(part, last)), len(part.frame),
    )  # fmt: skip


def data_complete(part: Slice) -> bool:
    """Whether a slice has every row of the files."""
    return part.data.complete or bool(part.conditions)


def _strength(part: Slice, first: int, second: int) -> tuple[Strength, str]:
    """Strong: the lead over the second exceeds twice its error; weak: it does not; moderate: no error is known."""
    lead = abs(
        float(part.frame.loc[first, part.column.name]) - float(part.frame.loc[second, part.column.name])
    )
    errors = known_error(part, first), known_error(part, second)
    sd = noise(part)
    if math.isfinite(errors[0]) and math.isfinite(errors[1]):
        error = math.hypot(*errors)
    elif math.isfinite(sd):
        error = sd * math.sqrt(2)
    else:
        return "moderate", "no_error"
    return ("strong", "lead_above_error") if lead > 2 * error else ("weak", "lead_within_error")
