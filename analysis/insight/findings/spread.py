"""Measurements that are unstable: a coefficient of variation above 10 %."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import chi2_p
from secateur.analysis.insight.datasets import Dataset
from secateur.analysis.insight.findings.base import (
    Evidence,
    Finding,
    Number,
    Slice,
    evidence,
    label,
    names_of,
    slices,
    where,
)  # fmt: skip
from secateur.analysis.insight.findings.noise import LEVEL, judged
from secateur.analysis.insight.tables import FILE, ROW
from secateur.analysis.insight.units import UNITS

UNSTABLE, SHAKY = 0.10, 0.25
MOST = 30


def find_unstable(data: Dataset) -> list[Finding]:
    """Measurements whose coefficient of variation exceeds 10 %: stated, of a list of samples, or of repeated rows.

    Where it is known of how many values, the excess must be beyond chance (chi squared, Holm over the table).
    """
    found = _stated(data) + [item for part in slices(data) for item in _repeated(part)]
    kept = [item for item in judged(found) if math.isnan(item.p) or item.p < LEVEL]
    return sorted((item for item in kept if item.weight > UNSTABLE), key=lambda item: -item.weight)[:MOST]


def _stated(data: Dataset) -> list[Finding]:
    """From columns: a CV itself, or a standard deviation beside its mean."""
    found: list[Finding] = []
    for name in data.of("spread"):
        column = data.columns[name]
        if not pd.api.types.is_numeric_dtype(data.frame[name].dtype):
            continue
        values = data.frame[name].to_numpy(dtype=float)
        if re.search(r"(^|_)cv(_|$)|cv$", column.plain) and not re.search(r"diff|差", column.plain):
            percent = column.unit is not None and column.unit.name == "%"
            shares, base = values / (100 if percent else 1), name
        else:
            base = _mean_column(data, name)
            if base is None:
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = values / np.abs(data.frame[base].to_numpy(dtype=float))
        counts = name.replace("·sd", "·n")
        n = data.frame[counts].to_numpy(dtype=float) if counts != name and counts in data.frame else None
        tested = np.isfinite(shares) & (shares > (0 if n is not None else UNSTABLE))
        for place in np.flatnonzero(tested):
            item = _unstable_row(data, base, name, int(place), float(shares[place]))
            found.append(item if n is None else replace(item, p=_excess(float(shares[place]), int(n[place]))))
    return found


def _excess(share: float, n: int) -> float:
    """The p of a coefficient of variation over `n` normal values, when the true one is `UNSTABLE`."""
    return chi2_p((n - 1) * (share / UNSTABLE) ** 2, n - 1)


def _mean_column(data: Dataset, spread: str) -> str | None:
    """The column whose standard deviation a column is; None when it is something else."""
    if "·" in spread:
        base, _, statistic = spread.partition("·")
        return f"{base}·mean" if statistic == "sd" and f"{base}·mean" in data.columns else None
    plain = data.columns[spread].plain
    found = re.search(r"(^|_)(std|stdev|stddev|sd)(_|$)|标准差", plain)
    if not found:
        return None
    rest = (plain[: found.start()] + "_" + plain[found.end() :]).strip("_")
    for name in data.of("measure"):
        other = data.columns[name].plain
        if other in (rest, f"{rest}_mean", f"mean_{rest}", f"{rest}_avg", f"avg_{rest}", f"平均{rest}"):
            return name
    return None


def _unstable_row(data: Dataset, base: str, spread: str, place: int, share: float) -> Finding:
    row = data.frame.iloc[place]
    column = data.columns[base]
    part = Slice(data, column, data.frame, {})
    about = label(part, data.frame.index[place])
    spots = tuple(
        Evidence(str(row[FILE]), int(row[ROW]), name, float(row[name]), "")
        for name in dict.fromkeys((base, spread))
    )
    return _finding(part, share, about, spots, names_of(part, data.frame.index[place]), "")


def _repeated(part: Slice) -> list[Finding]:
    """Rows of one setting, three or more of them at one time, that scatter."""
    keys = [name for name in part.data.settings() if part.frame[name].nunique(dropna=False) >= 2]
    if part.data.rows != len(part.data.frame) or (not keys and not part.varying("replicate")):
        return []
    found: list[Finding] = []
    groups = part.frame.groupby(keys, dropna=False, sort=False) if keys else [((), part.frame)]
    for _, rows in groups:
        if len(rows) < 3:
            continue
        values = rows[part.column.name].to_numpy(dtype=float)
        mean = float(values.mean())
        share = float(values.std(ddof=1)) / abs(mean) if mean else math.nan
        if math.isfinite(share):
            spots = tuple(evidence(part, index) for index in rows.index[:6])
            about = label(part, rows.index[0], keys)
            item = _finding(part, share, about, spots, names_of(part, rows.index[0]), where(part), len(rows))
            seeds = any(rows[name].nunique() > 1 for name in part.data.of("replicate"))
            found.append(replace(item, form="unstable_seeds" if seeds else item.form))
    return found


def _finding(
    part: Slice,
    share: float,
    about: str,
    spots: tuple[Evidence, ...],
    names: tuple[str, ...],
    place: str,
    n: int = 0,
) -> Finding:
    words = (*part.column.words, "cv", "variation", "unstable", "变异系数", "波动")
    numbers = {"cv": Number(share * 100, UNITS["%"], spots, "cv", words, about, 1)}
    if n:
        numbers["n"] = Number(
            n, None, spots, "count", ("measurements", "rows", "runs", "seeds", "次", "行"), about, 0
        )
    return Finding(
        "unstable", part.data.name, part.column.name, "unstable_repeated" if n else "unstable_stated",
        "strong" if share > SHAKY else "moderate", "cv_large" if share > SHAKY else "cv_above",
        numbers, {"label": about, "where": place}, spots, names, share, p=_excess(share, n) if n else math.nan,
    )  # fmt: skip
