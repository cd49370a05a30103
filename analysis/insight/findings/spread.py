"""Outliers, and measurements that are unstable (coefficient of variation)."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
import re
from collections import Counter

import numpy as np
import pandas as pd

from analysis.insight.datasets import Dataset
from analysis.insight.findings.base import (
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
from analysis.insight.tables import FILE, ROW
from analysis.insight.units import UNITS

OUTLIER, FAR = 5.0, 10.0
"""Modified z scores from which a value is an outlier, and a strong one (Iglewicz and Hoaglin 1993 use 3.5)."""
LEAST = 6
UNSTABLE, SHAKY = 0.10, 0.25
MOST, PER_ROW = 30, 2
Z_WORDS = ("z", "deviation", "outlier", "偏差", "异常值")


def find_outliers(data: Dataset) -> list[Finding]:
    """Values far from what their settings let expect: residuals after median polish, against their median spread."""
    found: list[Finding] = []
    if data.kind == "unknown" and all(name.lower().endswith((".md", ".markdown")) for name in data.files):
        return []  # tables of prose: their numbers are seldom of one kind
    for part in slices(data):
        if len(part.frame) < LEAST:
            continue
        values = part.values
        skewed = bool((values > 0).all()) and float(values.max()) > 20 * float(values.min())
        scale = np.log(values) if skewed else values
        fit, parameters = _polished(part, scale)
        residual, expected = scale - fit, fit
        z = _scores(residual) * math.sqrt(1 - parameters / len(values))
        for place in np.flatnonzero(np.abs(z) >= OUTLIER):
            usual = math.exp(float(expected[place])) if skewed else float(expected[place])
            if abs(values[place] - usual) > 0.02 * abs(usual):
                found.append(_outlier(part, part.frame.index[place], float(z[place]), usual))
    return _once_per_row(sorted(found, key=lambda item: -item.weight))[:MOST]


def _once_per_row(found: list[Finding]) -> list[Finding]:
    """A row that is off in many measures is reported for the two in which it is most."""
    seen: Counter[tuple[str, int]] = Counter()
    kept: list[Finding] = []
    for finding in found:
        place = finding.evidence[0].file, finding.evidence[0].row
        seen[place] += 1
        if seen[place] <= PER_ROW:
            kept.append(finding)
    return kept


def _polished(part: Slice, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Fit of an additive model of medians (Tukey 1977) over the settings that rows enough vary, and its parameters."""
    fit = np.full(len(values), float(np.median(values)))
    factors: list[np.ndarray] = []
    parameters = 1
    for name in part.varying("subject", "setting"):
        codes = pd.factorize(part.frame[name], use_na_sentinel=False)[0]
        count = int(codes.max()) + 1
        if np.bincount(codes).min() >= 2 and (parameters + count - 1) * 1.5 <= len(values):
            factors.append(codes)
            parameters += count - 1
    for _ in range(4 if factors else 0):
        for codes in factors:
            fit = fit + pd.Series(values - fit).groupby(codes).transform("median").to_numpy()
    return fit, parameters


def _scores(residual: np.ndarray) -> np.ndarray:
    """Modified z scores: 0.6745 (r - median) / MAD; with a MAD of zero the mean absolute deviation takes its place."""
    centred = residual - np.median(residual)
    spread = float(np.median(np.abs(centred))) / 0.6745
    if spread <= 1e-12 * max(1e-300, float(np.abs(residual).max())):
        spread = float(np.abs(centred).mean()) * 1.253314
    return centred / spread if spread > 0 else np.zeros(len(residual))


def _outlier(part: Slice, row: int, z: float, usual: float) -> Finding:
    column = part.column
    spot = evidence(part, row)
    strength = "strong" if abs(z) >= FAR else "moderate"
    about = label(part, row)
    return Finding(
        "outlier", part.data.name, column.name, "outlier", strength, "outlier_far" if abs(z) >= FAR else "outlier_near",
        {
            "value": Number(float(part.frame.loc[row, column.name]), column.unit, (spot,), "", column.words, about),
            "usual": Number(usual, column.unit, (spot,), "median polish", column.words, about, 4),
            "z": Number(abs(z), None, (spot,), "modified z", (*column.words, *Z_WORDS), about, 1),
        },
        {"label": about, "where": where(part)}, (spot,), names_of(part, row), abs(z),
    )  # fmt: skip


def find_unstable(data: Dataset) -> list[Finding]:
    """Measurements whose coefficient of variation exceeds 10 %: stated, of a list of samples, or of repeated rows."""
    found = _stated(data)
    for part in slices(data):
        found += _repeated(part)
    return sorted(found, key=lambda item: -item.weight)[:MOST]


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
        for place in np.flatnonzero(np.isfinite(shares) & (shares > UNSTABLE)):
            found.append(_unstable_row(data, base, name, int(place), float(shares[place])))  # noqa: PERF401  no clearer as one call
    return found


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
        if math.isfinite(share) and share > UNSTABLE:
            spots = tuple(evidence(part, index) for index in rows.index[:6])
            about = label(part, rows.index[0], keys)
            found.append(
                _finding(part, share, about, spots, names_of(part, rows.index[0]), where(part), len(rows))
            )
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
        numbers["n"] = Number(n, None, spots, "count", ("measurements", "rows", "runs", "次", "行"), about, 0)
    return Finding(
        "unstable", part.data.name, part.column.name, "unstable_repeated" if n else "unstable_stated",
        "strong" if share > SHAKY else "moderate", "cv_large" if share > SHAKY else "cv_above",
        numbers, {"label": about, "where": place}, spots, names, share,
    )  # fmt: skip
