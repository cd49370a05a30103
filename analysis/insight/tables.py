"""Tables as they are read: exact counts over every row, and a bounded sample of rows that always has the extremes."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.insight.cells import Cells

ROW, FILE = "@row", "@file"
"""Columns of a frame that say where a row stands, when its index and the table's file do not."""
WIDEST = 2000
"""Columns that are read of one table; what is beyond is said in a note."""
SAMPLES = 3
"""From this many numbers in a list on it counts as repeated measurements."""
TEXT = 200
"""Characters kept of one text cell."""


@dataclass(frozen=True)
class Profile:
    """What is exactly known about a column, over all rows: counts, and moments and extremes of its finite numbers."""

    rows: int
    present: int
    numbers: int
    mean: float = math.nan
    sd: float = math.nan
    minimum: float = math.nan
    maximum: float = math.nan


@dataclass(frozen=True)
class Table:
    """One table of one file.

    Attributes:
        frame: All rows, or a systematic sample that contains the row of every column's minimum and maximum. The index
            is the row's number from 1; `ROW` overrides it (the line of a file), `FILE` the table's file.
        rows: Exact number of rows in the file.
        time: Explicit date of the file (ISO 8601), or None.
        cells: Columns with text in them -> their numbers, odd words and units; whether such a column is one of
            numbers is decided where all tables of its kind are known.
        notes: What could not be read of it.
    """

    file: str
    name: str
    type: str
    frame: pd.DataFrame
    rows: int
    profiles: dict[str, Profile]
    time: str | None = None
    notes: tuple[str, ...] = ()
    cells: dict[str, Cells] = field(default_factory=dict[str, Cells])

    @property
    def complete(self) -> bool:
        """Whether `frame` has every row."""
        return len(self.frame) >= self.rows


@dataclass
class _Moments:
    """Running count, mean and squared deviations (Chan et al. 1979), with the extremes."""

    rows: int = 0
    present: int = 0
    numbers: int = 0
    mean: float = 0.0
    square: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    low_row: int = -1
    high_row: int = -1

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        finite = np.isfinite(values)
        n = int(finite.sum())
        if n == 0:
            return
        kept = values if n == len(values) else values[finite]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(kept.mean())
            square = float(((kept - mean) ** 2).sum())
            total, delta = self.numbers + n, mean - self.mean
            self.square += square + delta * delta * self.numbers * n / total
            self.mean += delta * n / total
        self.numbers = total
        places = rows if n == len(values) else rows[finite]
        low, high = int(kept.argmin()), int(kept.argmax())
        if kept[low] < self.low:
            self.low, self.low_row = float(kept[low]), int(places[low])
        if kept[high] > self.high:
            self.high, self.high_row = float(kept[high]), int(places[high])

    def profile(self) -> Profile:
        if not self.numbers:
            return Profile(self.rows, self.present, 0)
        sd = math.sqrt(self.square / (self.numbers - 1)) if self.numbers > 1 else math.nan
        return Profile(self.rows, self.present, self.numbers, self.mean, sd, self.low, self.high)


@dataclass
class Gather:
    """Takes a table chunk by chunk; memory is bounded by `cells`, whatever the length of the table."""

    cells: int
    stride: int = 1
    seen: int = 0
    notes: list[str] = field(default_factory=list[str])
    _parts: list[pd.DataFrame] = field(default_factory=list[pd.DataFrame])
    _held: int = 0
    decimal: str = ""
    _moments: dict[str, _Moments] = field(default_factory=dict[str, _Moments])
    _cells: dict[str, Cells] = field(default_factory=dict[str, Cells])
    _extremes: dict[tuple[str, str], pd.DataFrame] = field(
        default_factory=dict[tuple[str, str], pd.DataFrame]
    )

    def add(self, chunk: pd.DataFrame, rows: np.ndarray | None = None) -> None:
        """Add rows; `rows` are their places in the file (default: counted on)."""
        if rows is not None:
            chunk = chunk.assign(**{ROW: rows})
        if chunk.shape[1] > WIDEST:
            if not self.notes:
                self.notes.append(f"{chunk.shape[1]} columns; the first {WIDEST} are read")
            chunk = chunk.iloc[:, :WIDEST]
        places = np.arange(self.seen + 1, self.seen + 1 + len(chunk))
        chunk = chunk.set_axis(places, axis=0)
        for name in chunk.columns:
            if name not in (ROW, FILE):
                self._column(str(name), chunk, places)
        start = -self.seen % self.stride
        self.seen += len(chunk)
        kept = chunk.iloc[start :: self.stride]
        if len(kept):
            self._parts.append(kept.copy() if self.stride > 1 else kept)
            self._held += len(kept)
        while self._held * max(1, len(self._moments)) > self.cells and self._held > 2:
            self._thin()

    def _column(self, name: str, chunk: pd.DataFrame, places: np.ndarray) -> None:
        column = chunk[name]
        known = self._moments.setdefault(name, _Moments(rows=self.seen))
        known.rows += len(column)
        known.present += int(column.notna().sum())
        values = self._numbers(name, column, places)
        if values is None:
            return
        low, high = known.low_row, known.high_row
        known.add(values, places)
        for key, before, after in (("low", low, known.low_row), ("high", high, known.high_row)):
            if before != after:
                self._extremes[name, key] = chunk.loc[[after]]

    def _numbers(self, name: str, column: pd.Series, places: np.ndarray) -> np.ndarray | None:
        """The numbers of a column; None of one that is text."""
        if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
            return None
        if pd.api.types.is_numeric_dtype(column.dtype):
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
        if name not in self._cells:
            self._cells[name] = Cells(name, self.decimal)
        return self._cells[name].add(column, places)

    def _thin(self) -> None:
        """Keep every second of the sampled rows and sample half as often from now on."""
        whole = pd.concat(self._parts) if len(self._parts) > 1 else self._parts[0]
        half = whole.iloc[::2].copy()
        self._parts, self._held = [half], len(half)
        self.stride *= 2

    def finish(self, file: str, name: str, kind: str, time: str | None = None) -> Table | None:
        """The table, or None when it has no row."""
        if not self.seen:
            return None
        parts = [part for part in self._parts if len(part)]
        if self.stride > 1:
            parts += list(self._extremes.values())
        frame = pd.concat(parts)
        frame = frame[~frame.index.duplicated()].sort_index()
        troubles = [cells.trouble() for cells in self._cells.values()]
        self.notes += [note for note in troubles if note]
        profiles = {key: moments.profile() for key, moments in self._moments.items()}
        for key, profile in profiles.items():
            if profile.rows < self.seen:  # a column that later chunks did not have
                profiles[key] = Profile(self.seen, *list(profile.__dict__.values())[1:])
        return Table(
            file, name, kind, _tidy(frame), self.seen, profiles, time, tuple(self.notes), dict(self._cells)
        )


def from_rows(rows: list[dict[str, Any]], places: list[int], cells: int) -> Gather:
    """Gather a list of flat rows."""
    gather = Gather(cells)
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row))[: WIDEST + 1]
        columns = {name: _series([row.get(name) for row in rows]) for name in names}
        gather.add(pd.DataFrame(columns), np.asarray(places))
    return gather


def _series(values: list[Any]) -> pd.Series:
    """Values as numbers when all that are there are numbers (truth values stay words), else as they are."""
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, float}:
        return pd.Series([math.nan if value is None else _float(value) for value in values], dtype="float64")
    return pd.Series([value if value is None else str(value)[:TEXT] for value in values], dtype="object")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as float64, all else as short text or None; column names as text."""
    columns: dict[str, pd.Series] = {}
    for name in frame.columns:
        column = frame[name]
        kind = column.dtype
        if pd.api.types.is_bool_dtype(kind) or not pd.api.types.is_numeric_dtype(kind):
            text = column.astype("object").where(column.notna(), None)
            columns[str(name)] = text.map(lambda value: None if value is None else str(value)[:TEXT])
        else:
            columns[str(name)] = pd.Series(
                column.to_numpy(dtype=np.float64, na_value=np.nan), index=frame.index
            )
    return pd.DataFrame(columns, index=frame.index)


def summarised(name: str, values: list[Any]) -> dict[str, Any]:
    """A list of numbers as its mean, standard deviation and count; a list of words as one text."""
    if len(values) >= SAMPLES and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        finite = [float(value) for value in values if math.isfinite(value)]
        if len(finite) >= SAMPLES:
            mean = sum(finite) / len(finite)
            sd = math.sqrt(sum((value - mean) ** 2 for value in finite) / (len(finite) - 1))
            return {f"{name}·mean": mean, f"{name}·sd": sd, f"{name}·n": len(finite)}
    words = [str(value) for value in values if isinstance(value, str | int | float)]
    return {name: ", ".join(words[:20])} if words else {}
