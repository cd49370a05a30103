"""Tables that belong together as one data set, its columns understood, and what kind of results it holds."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
import posixpath
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from secateur.analysis.insight.ingest import DATE
from secateur.analysis.insight.naming import Column, describe
from secateur.analysis.insight.settled import Odd, converted, scaled, settle
from secateur.analysis.insight.tables import FILE, ROW, Profile, Table
from secateur.analysis.insight.units import SHARE, Unit
from secateur.analysis.insight.walk import RUN

TIME = "@time"
TABLE = "table"
"""The name of the table within its file, where tables of one shape stand under several headings."""
ORIGIN = "origin"
"""The part of a file's name that tells it from the others, where nothing in the file does."""
LEVELS = 60
"""A text column with more distinct values than this, and than half the rows, is a name and not a setting."""
ALIKE = 0.75
"""Tables whose columns overlap by at least this share are one data set."""
KINDS = ("pruning runs", "speed measurements", "evaluation results", "unknown")


@dataclass(frozen=True)
class Dataset:
    """Rows of one or more tables with the same columns.

    Attributes:
        name: What the files' names have in common, and the table's name within them.
        kind: One of `KINDS`.
        frame: Rows with `FILE`, `ROW` and `TIME` (explicit time or None).
        columns: Name -> what the column is.
        rows: Exact number of rows in the files; `frame` may hold a sample of them.
        profiles: Exact profile per file and numeric column; sampled tables only.
        odd: Words that stand among the numbers of a column.
    """

    name: str
    kind: str
    frame: pd.DataFrame
    columns: dict[str, Column]
    rows: int
    files: tuple[str, ...]
    profiles: dict[tuple[str, str], Profile]
    odd: tuple[Odd, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether `frame` has every row."""
        return len(self.frame) >= self.rows

    def of(self, *roles: str) -> list[str]:
        """Names of the columns with one of these roles."""
        return [name for name, column in self.columns.items() if column.role in roles]

    def settings(self) -> list[str]:
        """Columns that say what was measured: subject, conditions, settings (no replicate, no time)."""
        return self.of("subject", "condition", "setting")


def build(tables: tuple[Table, ...]) -> list[Dataset]:
    """Group tables into data sets, the largest first."""
    groups: list[tuple[frozenset[str], str, list[Table]]] = []
    known: dict[tuple[frozenset[str], str], int] = {}
    for table in tables:
        names = frozenset(str(name) for name in table.frame.columns if not str(name).startswith("@"))
        marker = table.name if table.type == RUN else ""
        place = known.get((names, marker))
        if place is None and len(groups) <= 400:
            place = next(
                (i for i, (other, mark, _) in enumerate(groups) if mark == marker and _alike(names, other)),
                None,
            )
        if place is None:
            place = len(groups)
            groups.append((names, marker, []))
        known[names, marker] = place
        groups[place][2].append(table)
    found = [_dataset(members) for _, _, members in groups]
    return sorted(found, key=lambda data: (KINDS.index(data.kind), -data.rows, data.name))


def _alike(left: frozenset[str], right: frozenset[str]) -> bool:
    return len(left & right) >= ALIKE * max(1, len(left | right))


def _dataset(tables: list[Table]) -> Dataset:
    parts: list[pd.DataFrame] = []
    profiles: dict[tuple[str, str], Profile] = {}
    inner = Counter(table.file for table in tables)
    several = tables[0].type != RUN and max(inner.values()) > 1
    units, odd = settle(tables)
    for table in tables:
        part = converted(table, units)
        if FILE not in part:
            part[FILE] = table.file
        if ROW not in part:
            part[ROW] = part.index
        part[TIME] = table.time
        if several and table.name:
            part[TABLE] = table.name
        parts.append(part)
        if not table.complete:
            profiles |= {
                (table.file, name): scaled(value, table, units, name)
                for name, value in table.profiles.items()
                if value.numbers and pd.api.types.is_numeric_dtype(part[name].dtype)
            }
    frame = pd.concat([p.dropna(axis=1, how="all") for p in parts], ignore_index=True)
    for name in (FILE, TIME):
        if name not in frame:
            frame[name] = None
    frame[ROW] = frame[ROW].astype(int)
    columns = {
        str(name): _column(frame, str(name), units.get(str(name)))
        for name in frame.columns
        if not str(name).startswith("@")
    }
    frame[TIME] = _times(frame, columns)
    if tables[0].type != RUN:
        _add_origin(frame, columns)
    files = tuple(str(name) for name in frame[FILE].unique())
    kind = _kind(tables[0], columns)
    return Dataset(
        _name(files, tables), kind, frame, columns, sum(t.rows for t in tables), files, profiles, odd
    )


def _add_origin(frame: pd.DataFrame, columns: dict[str, Column]) -> None:
    """Files that measure different things under the same settings (one per model, say): their names become a subject.

    They do when most settings that two of them share have different values; else the files speak of the same thing.
    """
    stems = {
        str(name): DATE.sub("", posixpath.splitext(str(name))[0]).strip("-_./ ")
        for name in frame[FILE].unique()
    }
    if len(set(stems.values())) < 2 or any(column.role == "subject" for column in columns.values()):
        return
    keys = [name for name, column in columns.items() if column.role in ("condition", "setting", "replicate")]
    measure = next((n for n, c in columns.items() if c.role == "measure" and frame[n].nunique() >= 2), None)
    if measure is None:
        return
    origin = frame[FILE].map(stems)
    groups = (
        frame.assign(_origin=origin).groupby(keys, dropna=False, sort=False)
        if keys
        else [((), frame.assign(_origin=origin))]
    )
    shared, different = 0, 0
    for _, rows in groups:
        values = rows.groupby("_origin")[measure].first().dropna()
        if len(values) > 1:
            shared += 1
            different += int(values.nunique() >= 2)
    if shared >= (4 if keys else 1) and different > shared / 2:
        front = posixpath.commonprefix(list(stems.values()))
        cut = front.rfind("/") + 1
        frame[ORIGIN] = origin.map(lambda stem: stem[cut:])
        columns[ORIGIN] = replace(describe("model"), name=ORIGIN, plain="model")


def _column(frame: pd.DataFrame, name: str, unit: Unit | None) -> Column:
    """What a column is, from its name and its values; `unit` is what its cells say."""
    about = describe(name)
    about = replace(about, unit=about.unit or unit)
    values = frame[name]
    if not pd.api.types.is_numeric_dtype(values.dtype):
        frame[name] = values = values.map(_as_word)
        return about if about.role not in ("measure", "spread") else replace(about, role=_word_role(values))
    if about.role == "text":
        return replace(about, role="measure")
    if about.role == "time":  # a column `time` of numbers is a duration
        return replace(describe(f"duration {name}"), name=name, plain=about.plain, metric="duration")
    if about.unit is SHARE and np.nanmax(values.to_numpy(dtype=float), initial=0.0) > 1.5:
        return replace(about, unit=replace(SHARE, name="%", factor=0.01))
    return about


def _as_word(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else f"{value:g}"
    return value


def _word_role(values: pd.Series) -> str:
    levels, present = values.nunique(), int(values.notna().sum())
    longest = values.dropna().map(len).max() if present else 0
    if levels > LEVELS or longest > 60 or (levels > 20 and levels > present / 2):
        return "identity"
    return "setting"


def _times(frame: pd.DataFrame, columns: dict[str, Column]) -> pd.Series:
    """Explicit time of each row: a time column, else the date in the file's name."""
    given = frame[TIME].astype("object")
    for name, column in columns.items():
        if column.role == "time":
            stamps = pd.to_datetime(frame[name], errors="coerce", utc=True, format="mixed")
            text = stamps.dt.strftime("%Y-%m-%dT%H:%M:%S").astype("object")
            text = text.where(stamps.notna(), None)
            return text.str.removesuffix("T00:00:00").where(text.notna(), given)
    return given.where(given.notna(), None)


def _kind(table: Table, columns: dict[str, Column]) -> str:
    if table.type == RUN:
        return KINDS[0]
    measures = [c for c in columns.values() if c.role in ("measure", "spread")]
    metrics = {column.metric for column in measures}
    names = {column.plain for column in columns.values()}
    quality = metrics & {"acc", "exact_match", "f1", "ppl", "score", "loss"}
    pruned = any(re.search(r"prun|sparsity|estimator", name) for name in names)
    if quality and (pruned or ("method" in names and names & {"seq_len", "num_samples", "ratio"})):
        return KINDS[0]
    speed = metrics & {"throughput", "ttft", "latency"}
    if speed or (
        "duration" in metrics and any(c.role == "setting" for c in columns.values()) and not quality
    ):
        return KINDS[1]
    return KINDS[2] if quality else KINDS[3]


def _name(files: tuple[str, ...], tables: list[Table]) -> str:
    """`speed_2025*.csv`, or `a.json: results`; runs are called by their folder."""
    if tables[0].type == RUN:
        return tables[0].name
    names = {table.name for table in tables}
    inner = f": {next(iter(names))}" if len(names) == 1 and "" not in names else ""
    return pattern(list(files)) + inner


def pattern(names: list[str]) -> str:
    """What names have in common, with `*` for what they do not: `runs/a_*.json`."""
    if len(names) == 1:
        return names[0]
    front = posixpath.commonprefix(names)
    back = posixpath.commonprefix([name[::-1] for name in names])[::-1]
    shortest = min(map(len, names))
    back = back[max(0, len(front) + len(back) - shortest) :]
    return f"{front}*{back}"
