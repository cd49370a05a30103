"""What changed between dated results: the same setting measured at different times."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math

import numpy as np
import pandas as pd

from analysis.insight.datasets import TIME, Dataset
from analysis.insight.findings.base import (
    Finding,
    Number,
    Slice,
    Strength,
    evidence,
    label,
    names_of,
    noise,
    slices,
    where,
)  # fmt: skip
from analysis.insight.units import UNITS

LEAST = 0.02
"""Relative changes below this are not reported."""
MOST = 40


def find_changes(data: Dataset) -> list[Finding]:
    """The first against the last dated value of every setting that was measured at two times or more."""
    if data.frame[TIME].nunique() < 2 or not data.complete:
        return []
    found: list[Finding] = []
    for part in slices(data):
        dated = part.frame[part.frame[TIME].notna()]
        if dated[TIME].nunique() < 2:
            continue
        part = Slice(part.data, part.column, dated, part.conditions)
        keys = [
            name
            for name in data.of("subject", "setting", "replicate")
            if dated[name].nunique(dropna=False) > 1
        ]
        groups = dated.groupby(keys, dropna=False, sort=False) if keys else [((), dated)]
        for _, rows in groups:
            if rows[TIME].nunique() > 1:
                finding = _change(part, rows.sort_values(TIME, kind="stable"))
                found += [finding] if finding is not None else []
    return sorted(found, key=lambda item: -item.weight)[:MOST]


def _change(part: Slice, rows: pd.DataFrame) -> Finding | None:
    name, column = part.column.name, part.column
    first, last = rows.index[0], rows.index[-1]
    one, two = float(part.frame.loc[first, name]), float(part.frame.loc[last, name])
    if one == 0 or not math.isfinite(two / one):
        return None
    relative = (two - one) / abs(one)
    if abs(relative) < LEAST:
        return None
    evidences = evidence(part, first), evidence(part, last)
    strength, reason = _strength(part, abs(two - one), abs(relative))
    good = None if column.better == "none" else (relative > 0) == (column.better == "higher")
    text = label(part, first, part.varying("subject", "setting", "replicate"))
    return Finding(
        "change", part.data.name, name, f"change_{'rise' if relative > 0 else 'fall'}", strength, reason,
        {
            "before": Number(one, column.unit, (evidences[0],), "", column.words, text),
            "after": Number(two, column.unit, (evidences[1],), "", column.words, text),
            "relative": Number(relative * 100, UNITS["%"], evidences, "change", column.words, text, 1),
        },
        {"label": text, "where": where(part), "from": str(evidences[0].time), "to": str(evidences[1].time),
         "verdict": "none" if good is None else "better" if good else "worse"},
        evidences, names_of(part, first), abs(relative),
    )  # fmt: skip


def _strength(part: Slice, absolute: float, relative: float) -> tuple[Strength, str]:
    """Against the noise of repeated measurements at one time where there are such, else by size."""
    same_time = part.frame.assign(_time=part.frame[TIME].astype(str))
    keys = [*part.data.settings(), "_time"]
    groups = same_time.groupby(keys, dropna=False, sort=False)[part.column.name]
    counts = groups.count()
    df = float((counts - 1).clip(lower=0).sum())
    if df >= 2:
        sd = math.sqrt(float((groups.var(ddof=1).fillna(0.0) * (counts - 1)).sum()) / df)
        if absolute > 3 * sd * math.sqrt(2):
            return "strong", "change_above_noise"
        return "weak", "change_within_noise"
    return (
        ("moderate", "change_single")
        if relative >= 0.05 or np.isnan(noise(part))
        else ("weak", "change_single")
    )
