"""Cells of a grid that nobody measured."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

from itertools import product

import numpy as np
import pandas as pd

from secateur.analysis.insight.datasets import Dataset
from secateur.analysis.insight.findings.base import Evidence, Finding, Number, measures, word
from secateur.analysis.insight.tables import FILE

LEVELS = 12
FULL = 0.7
"""Settings are taken for a grid when at least this share of their combinations was measured."""
LARGEST = 2000
LISTED = 12


def find_missing(data: Dataset) -> list[Finding]:
    """Combinations of settings that are not there, or are there without a value."""
    if not data.complete or len(data.frame) < 4:
        return []
    frame = data.frame
    if "kind" in frame and "pruned" in set(
        frame["kind"]
    ):  # the unpruned baseline is no cell of a pruning grid
        frame = frame[frame["kind"] != "dense"]
    columns = [name for name in data.settings() if 2 <= frame[name].nunique() <= LEVELS]
    main = next((c.name for c in measures(data) if c.better != "none"), None)
    if main is None:
        return []
    valued = frame[frame[main].notna()]
    axes = _crossed(frame, columns)
    if len(axes) < 2:
        return []
    levels = [list(dict.fromkeys(frame[name].dropna())) for name in axes]
    present = set(valued[axes].itertuples(index=False, name=None))
    missing = [cell for cell in product(*levels) if cell not in present]
    total = int(np.prod([len(values) for values in levels]))
    if not missing or len(missing) > (1 - FULL) * total:
        return []
    return [_finding(data, axes, levels, missing, total, main)]


def _crossed(frame: pd.DataFrame, columns: list[str]) -> list[str]:
    """The settings that form a grid: those that spoil it most are left out, one by one."""
    axes = list(columns)
    while len(axes) >= 2:
        coverage = _coverage(frame, axes)
        if coverage >= FULL:
            return axes
        axes.remove(max(axes, key=lambda name: _coverage(frame, [n for n in axes if n != name])))
    return []


def _coverage(frame: pd.DataFrame, axes: list[str]) -> float:
    cells = float(np.prod([frame[name].nunique() for name in axes]))
    if cells > LARGEST:
        return 0.0
    return len(frame[axes].dropna().drop_duplicates()) / cells


def _finding(
    data: Dataset,
    axes: list[str],
    levels: list[list[object]],
    missing: list[tuple[object, ...]],
    total: int,
    main: str,
) -> Finding:
    cells = [" ".join(word(name, value) for name, value in zip(axes, cell, strict=True)) for cell in missing]
    spots = tuple(Evidence(str(file), 0, main, None) for file in data.frame[FILE].unique()[:6])
    words = ("missing", "cells", "combinations", "settings", "缺失", "单元", "组合")
    share = 1 - len(missing) / total
    return Finding(
        "missing", data.name, main, "missing", "strong" if share >= 0.9 else "moderate",
        "grid_nearly_full" if share >= 0.9 else "grid_partly_full",
        {
            "missing": Number(len(missing), None, spots, "count", words, data.name, 0),
            "total": Number(total, None, spots, "count", words, data.name, 0),
        },
        {"axes": " × ".join(axes), "cells": "; ".join(cells[:LISTED]) + ("; …" if len(cells) > LISTED else "")},
        spots, tuple(str(value).lower() for values in levels for value in values if isinstance(value, str)),
        len(missing), tuple(cells),
    )  # fmt: skip
