"""How far the pruned models are from the dense one: what pruning costs at the least."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from collections.abc import Iterator

import pandas as pd

from secateur.analysis.arithmetic import holm, normal_p
from secateur.analysis.insight.datasets import Dataset
from secateur.analysis.insight.findings.base import (
    MAIN,
    Finding,
    Number,
    Slice,
    evidence,
    known_errors,
    label,
    slices,
    where,
)
from secateur.analysis.insight.findings.noise import LEVEL
from secateur.analysis.insight.units import UNITS


def find_distance(data: Dataset) -> list[Finding]:
    """Per model and main measure: its best pruned run beside its dense one."""
    if "kind" not in data.frame or not {"dense", "pruned"} <= set(data.frame["kind"]):
        return []
    found: list[Finding] = []
    for column, frame in _whole(data):
        for _, rows in frame.groupby("model", sort=False) if "model" in frame else [((), frame)]:
            dense, pruned = rows[rows["kind"] == "dense"], rows[rows["kind"] == "pruned"]
            if len(dense) == 1 and len(pruned):
                order = pruned[column].sort_values(
                    ascending=data.columns[column].better == "lower", kind="stable"
                )
                part = Slice(data, data.columns[column], rows, {})
                found += _distance(part, dense.index[0], order.index[0], len(pruned))
    return found


def _whole(data: Dataset) -> Iterator[tuple[str, pd.DataFrame]]:
    """Main measures with their finite rows, dense and pruned ones together."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for part in slices(data):
        if part.column.plain in MAIN and part.column.better != "none":
            parts.setdefault(part.column.name, []).append(part.frame)
    for name, frames in parts.items():
        yield name, pd.concat(frames)


def _distance(part: Slice, dense: int, best: int, tried: int) -> list[Finding]:
    name, column = part.column.name, part.column
    errors = dict(zip(part.frame.index, known_errors(part), strict=True))
    one, two = float(part.frame.loc[dense, name]), float(part.frame.loc[best, name])
    if one == 0:
        return []
    relative = (two - one) / abs(one)
    error = math.hypot(errors[dense], errors[best])
    p = holm([normal_p((two - one) / error), *[1.0] * (tried - 1)])[0] if error > 0 else math.nan
    strength, reason = ("strong", "distance_clear") if p < LEVEL else ("weak", "lead_within_error")
    strength, reason = ("moderate", "no_error") if math.isnan(p) else (strength, reason)
    spots = evidence(part, dense), evidence(part, best)
    subject = str(part.frame.loc[dense, "model"]) if "model" in part.frame else part.data.name
    text = label(part, best, part.varying("setting"))
    return [Finding(
        "distance", part.data.name, name, f"distance_{'rise' if relative > 0 else 'fall'}", strength, reason,
        {
            "before": Number(one, column.unit, (spots[0],), "", column.words, subject, error=errors[dense]),
            "after": Number(two, column.unit, (spots[1],), "", column.words, subject, error=errors[best]),
            "relative": Number(relative * 100, UNITS["%"], spots, "change", column.words, subject, 1),
        },
        {"label": text, "subject": subject, "where": where(part)}, spots, (subject.lower(),), abs(relative), p=p,
    )]  # fmt: skip
