"""Tables of values and of differences: what some cells measured, and what comparisons found."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from secateur.analysis.speed.compare import Difference, prepared, values_of
from secateur.analysis.speed.measurements import Speeds


def summary(speeds: Speeds, setting: str) -> pd.DataFrame:
    """Per model, phase and value: cells, passes, throughput over the cells, noise of a pass, sizes, memory."""
    rows: list[dict[str, Any]] = []
    for (label, phase, value), part in prepared(speeds, setting).groupby(
        ["label", "phase", "value"], sort=False
    ):
        rows.append({"subject": label, "phase": phase, "value": value, **describe(part)})
    order = {value: place for place, value in enumerate(values_of(speeds.cells, setting))}
    frame = pd.DataFrame(rows)
    return frame.sort_values(["subject", "phase", "value"], key=lambda c: c.map(order) if c.name == "value" else c,
                             ignore_index=True, kind="stable")  # fmt: skip


def describe(part: pd.DataFrame) -> dict[str, Any]:
    """Points, passes, sizes and speed of some cells: spread over the cells, and noise of single passes."""
    speed = part["tokens_per_s"].astype(float)
    cv = part["cv"].astype(float)
    return {
        "points": len(part), "passes": float(part["n"].astype(float).sum(min_count=1)),
        "n_prompt_range": sizes(part["n_prompt"]), "n_gen_range": sizes(part["n_gen"]),
        "batch_range": sizes(part["batch"]), "speed_mean": float(speed.mean()),
        "speed_sd": float(speed.std(ddof=1)) if len(speed) > 1 else math.nan, "speed_min": float(speed.min()),
        "speed_max": float(speed.max()), "cv_mean": float(cv.mean()), "cv_min": float(cv.min()),
        "cv_max": float(cv.max()), "memory_bytes": float(part["memory_bytes"].astype(float).max()),
    }  # fmt: skip


def sizes(values: pd.Series) -> str:
    """Smallest and largest of some sizes."""
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} – {high}"


def differences_frame(found: Sequence[Difference]) -> pd.DataFrame:
    """Comparisons as a table."""
    names = {
        "model": "subject", "phase": "phase", "left": "reference", "right": "compared", "cells": "cells",
        "unit": "counted", "n": "n", "effect": "change", "low": "change_low", "high": "change_high",
        "verdict": "verdict", "t_p": "t_p", "t_holm": "t_holm", "w_p": "w_p",
        "cv_left": "cv_reference", "cv_right": "cv_compared", "same_session": "same_session",
    }  # fmt: skip
    frame = pd.DataFrame([vars(d) for d in found], columns=list(names)).rename(columns=names)
    frame["cv_change"] = frame["cv_compared"] - frame["cv_reference"]
    return frame
