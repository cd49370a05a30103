"""Files that disagree about the same thing."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from itertools import combinations
from typing import Any

import pandas as pd

from secateur.analysis.insight.datasets import TIME, Dataset
from secateur.analysis.insight.findings.base import Evidence, Finding, Number, Strength, word
from secateur.analysis.insight.naming import Column
from secateur.analysis.insight.tables import FILE, ROW
from secateur.analysis.insight.units import UNITS, Unit

NOISE = 1e-9
MOST = 30
PAIRS = 400
DIFFERENT = 0.5
"""When more than this share of at least four shared settings differ, two files measure different things."""
KEEP = ("subject", "condition", "setting", "replicate")


def find_contradictions(datasets: list[Dataset]) -> list[Finding]:
    """Pairs of values of one measure under one setting, from two files, that differ beyond their printed precision."""
    found: list[Finding] = []
    usable = [data for data in datasets if data.complete and (data.settings() or data.of("identity"))]
    for data in usable:
        found += _within(data)
    for left, right in list(combinations(usable, 2))[:PAIRS]:
        found += _between(left, right)
    return sorted(found, key=lambda item: -item.weight)[:MOST]


def _within(data: Dataset) -> list[Finding]:
    """Files of one data set: rows that agree in every setting and in time."""
    keys = [name for name in data.of(*KEEP) if data.frame[name].notna().any()]
    frame = data.frame.assign(_time=data.frame[TIME].astype(str))
    frame = frame[frame.duplicated([*keys, "_time"], keep=False)]
    if frame.empty or frame[FILE].nunique() < 2:
        return []
    found: list[Finding] = []
    for column in _measures(data):
        same, different, pairs = 0, 0, list[tuple[int, int]]()
        for _, rows in frame.groupby([*keys, "_time"], dropna=False, sort=False):
            rows = rows[rows[column.name].notna()].drop_duplicates(FILE)
            if len(rows) < 2:
                continue
            values = rows[column.name]
            if _differ(float(values.min()), float(values.max())):
                different += 1
                pairs.append((values.idxmin(), values.idxmax()))
            else:
                same += 1
        if different > DIFFERENT * (same + different) and same + different >= 4:
            continue  # the files measure different things (other models, other machines)
        for one, two in pairs:
            found.append(_finding(data, column, one, data, column, two, keys))
    return found


def _between(left: Dataset, right: Dataset) -> list[Finding]:
    """Two data sets: settings with several levels must be the same on both sides."""
    if set(left.files) == set(right.files) and len(left.files) == 1:
        return []
    shared = _shared(left, right)
    matched = [(a, b) for a, b in _pairs(left, right)] if shared else []
    if not matched:
        return []
    found: list[Finding] = []
    for one, two in matched:
        ones = _keyed(left, [pair[0] for pair in shared], one.name)
        twos = _keyed(right, [pair[1] for pair in shared], two.name)
        pairs = [(ones[key], twos[key]) for key in ones if key in twos]
        factor = _factor(one.unit, two.unit)
        differing = [
            (a, b)
            for a, b in pairs
            if _apart(left.frame.loc[a], one.name, right.frame.loc[b], two.name, factor)
        ]
        if len(differing) > DIFFERENT * len(pairs) and len(pairs) >= 4:
            continue
        names = [pair[0] for pair in shared]
        found += [_finding(left, one, a, right, two, b, names, factor) for a, b in differing]
    return found


def _shared(left: Dataset, right: Dataset) -> list[tuple[str, str]]:
    """Settings of the same meaning on both sides; none when one side has a varying setting that the other lacks."""
    if named := _named(left, right):
        return named
    sides: list[dict[str, str]] = []
    for data in (left, right):
        side: dict[str, str] = {}
        for name in data.of(*KEEP):
            plain = "model" if data.columns[name].role == "subject" else data.columns[name].plain
            side.setdefault(plain, name)
        sides.append(side)
    shared = [(sides[0][plain], sides[1][plain]) for plain in sides[0] if plain in sides[1]]
    for data, side, other in ((left, sides[0], sides[1]), (right, sides[1], sides[0])):
        for plain, name in side.items():
            if plain not in other and plain != "kind" and data.frame[name].nunique(dropna=False) >= 2:
                return []
    named = [
        p
        for p in shared
        if left.columns[p[0]].role == "subject" or not pd.api.types.is_numeric_dtype(left.frame[p[0]].dtype)
    ]
    return shared if named else []


def _named(left: Dataset, right: Dataset) -> list[tuple[str, str]]:
    """A column of names, a run's id for one, that tells the rows of both sides apart and that they share."""
    for name in left.of("identity"):
        for other in right.of("identity"):
            if left.columns[name].plain == right.columns[other].plain:
                ours, theirs = left.frame[name].dropna(), right.frame[other].dropna()
                words = all(isinstance(value, str) for value in (*ours, *theirs))
                if words and ours.is_unique and theirs.is_unique and set(ours) & set(theirs):
                    return [(name, other)]
    return []


def _pairs(left: Dataset, right: Dataset) -> list[tuple[Column, Column]]:
    """Measures of the same name, or of the same metric where each side has one of it only."""
    ours, theirs = _measures(left), _measures(right)
    found = [(one, two) for one in ours for two in theirs if one.plain == two.plain]
    taken = {one.name for one, _ in found}
    for one in ours:
        same = [two for two in theirs if two.metric == one.metric]
        if one.name not in taken and len(same) == 1 and sum(o.metric == one.metric for o in ours) == 1:
            found.append((one, same[0]))
    return [(one, two) for one, two in found if _factor(one.unit, two.unit)]


def _measures(data: Dataset) -> list[Column]:
    numeric = (c for n, c in data.columns.items() if pd.api.types.is_numeric_dtype(data.frame[n].dtype))
    return [column for column in numeric if column.role == "measure"]


def _keyed(data: Dataset, names: list[str], measure: str) -> dict[tuple[Any, ...], int]:
    """Setting -> the one row that has a value of the measure under it."""
    frame = data.frame[data.frame[measure].notna()]
    if "kind" in frame and "kind" not in names:  # tables of others speak of pruned runs
        frame = frame[frame["kind"] != "dense"]
    frame = frame[~frame.duplicated(names, keep=False)]
    keys = [tuple(_level(value) for value in row) for row in frame[names].itertuples(index=False, name=None)]
    return dict(zip(keys, frame.index, strict=True))


def _level(value: Any) -> Any:
    return (
        value.strip().lower()
        if isinstance(value, str)
        else None
        if value is None or pd.isna(value)
        else float(value)
    )


def _factor(one: Unit | None, two: Unit | None) -> float:
    """What a value of the second unit is multiplied with to be one of the first; 0 when that is impossible."""
    if one is None or two is None:
        return 1.0
    return two.factor / one.factor if one.measures == two.measures else 0.0


def _apart(left: pd.Series, one: str, right: pd.Series, two: str, factor: float) -> bool:
    a, b = float(left[one]), float(right[two]) * factor
    times = left[TIME], right[TIME]
    if isinstance(times[0], str) and isinstance(times[1], str) and times[0] != times[1]:
        return False  # measured at different times: a change, no contradiction
    return math.isfinite(a) and math.isfinite(b) and _differ(a, b)


def _differ(a: float, b: float) -> bool:
    """Whether two numbers differ beyond rounding: the one printed shorter is compared at its own precision."""
    if abs(a - b) <= NOISE * max(abs(a), abs(b)):
        return False
    return abs(a - b) > 0.5 * max(_precision(a), _precision(b)) * (1 + 1e-9)


def _precision(value: float) -> float:
    """The last printed digit of a number's shortest text."""
    text = repr(abs(value))
    mantissa, _, exponent = text.partition("e")
    decimals = len(mantissa.partition(".")[2].rstrip("0"))
    digits = len(mantissa.replace(".", "").strip("0"))
    if decimals == 0 or digits > 12:
        return 10.0 ** int(exponent or 0) * 1e-12 if digits > 12 else 10.0 ** int(exponent or 0)
    return 10.0 ** (int(exponent or 0) - decimals)


def _finding(
    left: Dataset,
    one: Column,
    a: int,
    right: Dataset,
    two: Column,
    b: int,
    names: list[str],
    factor: float = 1.0,
) -> Finding:
    rows = left.frame.loc[a], right.frame.loc[b]
    spots = _spot(rows[0], one), _spot(rows[1], two)
    about = " ".join(w for w in (word(name, rows[0][name]) for name in names) if w)
    first, second = float(rows[0][one.name]), float(rows[1][two.name])
    scale = max(abs(first), abs(second * factor))
    relative = abs(first - second * factor) / scale if scale else 0.0
    strength, reason = _strength(relative)
    return Finding(
        "contradiction", left.name, one.name, "contradiction", strength, reason,
        {
            "one": Number(first, one.unit, (spots[0],), "", one.words, f"{about} {spots[0].file}"),
            "two": Number(second, two.unit, (spots[1],), "", two.words, f"{about} {spots[1].file}"),
            "relative": Number(relative * 100, UNITS["%"], spots, "difference", one.words, about, 1),
        },
        {"label": about, "file_one": spots[0].file, "file_two": spots[1].file},
        spots, tuple(_words(rows[0], names)), relative,
    )  # fmt: skip


def _words(row: pd.Series, names: list[str]) -> list[str]:
    return [row[name].lower() for name in names if isinstance(row[name], str)]


def _spot(row: pd.Series, column: Column) -> Evidence:
    unit = column.unit.name if column.unit is not None else ""
    time = row[TIME] if isinstance(row[TIME], str) else None
    return Evidence(str(row[FILE]), int(row[ROW]), column.name, float(row[column.name]), unit, time)


def _strength(relative: float) -> tuple[Strength, str]:
    if relative > 0.05:
        return "strong", "differ_much"
    return ("moderate", "differ_some") if relative > 0.01 else ("weak", "differ_little")
