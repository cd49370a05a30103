"""What changed between dated results: the same setting measured at different times."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import holm, t_p
from secateur.analysis.insight.datasets import TIME, Dataset
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
from secateur.analysis.insight.findings.noise import LEVEL
from secateur.analysis.insight.units import UNITS

LEAST = 0.02
"""Relative changes below this are not reported."""
MOST = 40
PAIRED = 3
"""From this many settings on it is tested whether they moved together."""


def find_changes(data: Dataset) -> list[Finding]:
    """The first against the last dated value of every setting that was measured at two times or more.

    Tested against repeated measurements where there are such; else over all settings of a measure together (paired).
    """
    if data.frame[TIME].nunique() < 2 or not data.complete:
        return []
    groups: dict[str, list[Finding]] = defaultdict(list)
    for part in slices(data):
        dated = part.frame[part.frame[TIME].notna()]
        if dated[TIME].nunique() < 2:
            continue
        part = Slice(part.data, part.column, dated, part.conditions)
        sd, df = _repeats(part)
        keys = part.varying("subject", "setting", "replicate")
        for _, rows in dated.groupby(keys, dropna=False, sort=False) if keys else [((), dated)]:
            if rows[TIME].nunique() > 1:
                groups[part.column.name] += _change(part, rows.sort_values(TIME, kind="stable"), sd, df)
    found = [item for items in groups.values() for item in _together(items)]
    adjusted = holm([item.p for item in found])
    judged = [_claimed(item, p) for item, p in zip(found, adjusted, strict=True)]
    return sorted((item for item in judged if item.weight >= LEAST), key=lambda item: -item.weight)[:MOST]


def _repeats(part: Slice) -> tuple[float, float]:
    """Standard deviation of rows of one setting and one time, and its degrees of freedom."""
    keys = [*part.data.settings(), "_time"]
    groups = part.frame.assign(_time=part.frame[TIME].astype(str)).groupby(keys, dropna=False, sort=False)
    counts, variances = groups[part.column.name].count(), groups[part.column.name].var(ddof=1)
    df = float((counts - 1).clip(lower=0).sum())
    return (
        (math.sqrt(float((variances.fillna(0.0) * (counts - 1)).sum()) / df), df)
        if df >= 2
        else (math.nan, 0.0)
    )


def _change(part: Slice, rows: pd.DataFrame, sd: float, df: float) -> list[Finding]:
    name, column = part.column.name, part.column
    first, last = rows.index[0], rows.index[-1]
    one, two = float(part.frame.loc[first, name]), float(part.frame.loc[last, name])
    if one == 0 or not math.isfinite(two / one):
        return []
    relative = (two - one) / abs(one)
    p = t_p((two - one) / (sd * math.sqrt(2)), df) if df and sd > 0 else float(one == two) if df else math.nan
    evidences = evidence(part, first), evidence(part, last)
    good = None if column.better == "none" else (relative > 0) == (column.better == "higher")
    text = label(part, first, part.varying("subject", "setting", "replicate"))
    error = sd if df else math.nan
    return [Finding(
        "change", part.data.name, name, f"change_{'rise' if relative > 0 else 'fall'}", "weak",
        "change_within_noise" if df else "change_single",
        {
            "before": Number(one, column.unit, (evidences[0],), "", column.words, text, error=error),
            "after": Number(two, column.unit, (evidences[1],), "", column.words, text, error=error),
            "relative": Number(relative * 100, UNITS["%"], evidences, "change", column.words, text, 1),
        },
        {"label": text, "where": where(part), "from": str(evidences[0].time), "to": str(evidences[1].time),
         "verdict": "none" if good is None else "better" if good else "worse"},
        evidences, names_of(part, first), abs(relative), p=p,
    )]  # fmt: skip


def _together(items: list[Finding]) -> list[Finding]:
    """Single measurements: the p of one paired t test over their log ratios; none for those that went the other way."""
    ratios = [item.numbers["after"].value / item.numbers["before"].value for item in items]
    if len(items) < PAIRED or any(not math.isnan(item.p) for item in items) or min(ratios) <= 0:
        return items
    logs = np.log(ratios)
    mean, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(logs))
    p = t_p(mean / error, len(logs) - 1) if error > 1e-12 else float(mean == 0)
    return [
        replace(item, p=p if log * mean > 0 else math.nan) for item, log in zip(items, logs, strict=True)
    ]  # fmt: skip


def _claimed(item: Finding, adjusted: float) -> Finding:
    item = replace(item, p=adjusted)
    if not adjusted < LEVEL:
        return replace(item, words=item.words | {"verdict": "open"})
    repeats = item.reason == "change_within_noise"
    return replace(item, strength="strong" if repeats else "moderate",
                   reason="change_above_noise" if repeats else "change_together")  # fmt: skip
