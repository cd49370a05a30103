"""Text cells as numbers: `12.5 ms`, `85 %`, `1.2k`, `1,234.5`, `0,25`; and the odd words among them, counted."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from secateur.analysis.insight.naming import describe
from secateur.analysis.insight.units import Unit, find_unit
from secateur.analysis.missing import is_missing

FIRST = 200
"""Words of a column that are looked at before all are."""
NEARLY_ALL = 0.8
"""Share of a measure's cells that are numbers: up to a fifth of the runs of a sweep may have died with a word for
their fate, and the column still is what its name says; a column with more words than that is one of labels."""
KNOWN = 50
"""Different odd words of a column that are remembered."""
MULTIPLIERS = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
PLAIN = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", re.ASCII)
STARTS = re.compile(r"[-+−]?[.,]?\d")
INFINITE = re.compile(r"([-+]?)inf(inity)?", re.IGNORECASE)
TAIL = r"(?:[eE][-+−]?\d+)?)\s*(?:±\s*[\d.,]+\s*)?([^\d\s,;:()±|-][^\d,;()±|]{0,14})?\s*(?:±\s*[\d.,]+\s*)?$"
POINT = re.compile(r"^\s*[~≈]?\s*([-+−]?(?:\d{1,3}(?:[, ']\d{3})+|\d+)?(?:\.\d*)?" + TAIL)
COMMA = re.compile(r"^\s*[~≈]?\s*([-+−]?(?:\d{1,3}(?:[. ']\d{3})+|\d+)?(?:,\d*)?" + TAIL)
HAS_COMMA = re.compile(
    r"^\s*[-+−]?(?:\d+,(?:\d{1,2}|\d{4,})(?![\d.,])|0,\d|\d{1,3}(?:\.\d{3})+,\d|\d{1,3}(?:\.\d{3}){2,})"
)
"""Proof of a decimal comma: `1,5` and `1.234,5` cannot be anything else, `1,234` can."""
HAS_POINT = re.compile(
    r"^\s*[-+−]?(?:\d*\.(?:\d{1,2}|\d{4,})(?![\d.,])|0?\.\d|\d{1,3}(?:,\d{3})+\.\d|\d{1,3}(?:,\d{3}){2,})"
)


def decimal_sign(words: Iterable[str]) -> str:
    """`,` or `.` where the words prove one of them and not the other, else an empty text."""
    comma = point = False
    for word in words:
        comma = comma or HAS_COMMA.match(word) is not None
        point = point or HAS_POINT.match(word) is not None
    return "," if comma and not point else "." if point else ""


def parse_cell(text: str, decimal: str = ".", in_bytes: bool = False) -> tuple[float, Unit | None] | None:
    """A cell as a number with its unit; None when it is something else.

    Args:
        text: What stands in the cell.
        decimal: The sign before decimals; the other one of `.` and `,` stands between thousands.
        in_bytes: `B` is bytes; a billion otherwise.
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    found = (COMMA if decimal == "," else POINT).match(text)
    if not found or not STARTS.match(found[1]):
        endless = INFINITE.fullmatch(text.strip())
        return None if endless is None else (math.copysign(math.inf, -1 if endless[1] == "-" else 1), None)
    tail = (found[2] or "").strip()
    factor, unit = 1.0, None
    if (
        tail
        and tail[0] in MULTIPLIERS
        and not (in_bytes and tail == "B")
        and (tail == "B" or not find_unit(tail))
    ):
        factor, tail = MULTIPLIERS[tail[0]], tail[1:].strip()
    if tail:
        unit = find_unit(tail)
        if unit is None:
            return None
    thousands = ". '" if decimal == "," else ", '"
    digits = "".join(sign for sign in found[1] if sign not in thousands).replace(",", ".").replace("−", "-")
    return float(digits) * factor, unit


@dataclass
class Cells:
    """The words of one column, chunk by chunk.

    Attributes:
        decimal: The decimal sign; empty while nothing has proved one.
        unit: Unit of the numbers: that of the column's name, else the first that a cell has.
        odd: Word -> how often it stands where a number should, and the first row.
        others: Odd words beyond those that are remembered.
        given_up: The column is text: its name says so, most words are no numbers, or its units do not agree.
    """

    name: str
    decimal: str = ""
    unit: Unit | None = None
    numbers: int = 0
    odd: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    others: int = 0
    given_up: bool = False
    why: str = ""
    _guessed: bool = False
    _bytes: bool = False

    def __post_init__(self) -> None:
        about = describe(self.name)
        self.unit = about.unit
        self._bytes = about.metric == "memory" or (about.unit is not None and about.unit.measures == "bytes")
        self.given_up = about.role not in ("measure", "spread", "setting", "replicate")

    def trouble(self) -> str:
        """Why a column that is named like a measure is read as words; empty where there is nothing to say."""
        if self.why:
            return f"{self.name}: {self.why}; read as words"
        if describe(self.name).better == "none" or is_numeric(self.name, self.numbers, self.strange):
            return ""
        return (
            f"{self.name}: {self.numbers} numbers beside {self.strange} words; read as words"
            if self.numbers
            else ""
        )

    @property
    def strange(self) -> int:
        """How many cells hold an odd word."""
        return self.others + sum(count for count, _ in self.odd.values())

    def add(self, values: pd.Series, places: np.ndarray) -> np.ndarray | None:
        """The numbers of a chunk, NaN where there is none; None once the column is given up."""
        if self.given_up:
            return None
        words = [value for value in values.iloc[:FIRST] if isinstance(value, str) and not is_missing(value)]
        sign = self.decimal or decimal_sign(words)
        good = sum(parse_cell(word, sign or ".") is not None for word in words)
        if not self.numbers and len(words) >= 10 and good < len(words) / 2:
            self._numbers(values.iloc[:FIRST], places)
            self.given_up = True
            return None
        sign = sign or decimal_sign(word for word in values if isinstance(word, str))
        if sign and self._guessed and sign != (self.decimal or "."):
            self.given_up, self.why = True, "commas between thousands or before decimals, which is not clear"
            return None
        self.decimal = sign
        return self._numbers(values, places)

    def convert(self, values: pd.Series, unit: Unit | None) -> pd.Series:
        """The column as numbers in `unit`, which measures what the column's own unit does."""
        scale = factor(self.unit, unit)
        numbers = [self._number(value) for value in values]
        plain = [math.nan if number is None else number * scale for number in numbers]
        return pd.Series(plain, index=values.index, dtype=np.float64)

    def _numbers(self, values: pd.Series, places: np.ndarray) -> np.ndarray | None:
        result = np.full(len(values), math.nan)
        for at, value in enumerate(values):
            if value is None or (isinstance(value, float) and math.isnan(value)):
                continue
            number = self._number(value)
            if self.given_up:
                return None
            if number is None:
                self._note(str(value).strip(), int(places[at]))
            elif not math.isnan(number):
                result[at] = number
                self.numbers += 1
        return result

    def _number(self, value: object) -> float | None:
        """One cell in the column's unit; NaN where it says that nothing is there, None where it is odd."""
        if value is None or (isinstance(value, str) and is_missing(value)):
            return math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, str):
            return None
        if PLAIN.fullmatch(value) and (self.decimal == "." or "." not in value):
            return float(value)
        pair = parse_cell(value, self.decimal or ".", self._bytes)
        return None if pair is None else self._in_unit(value, *pair)

    def _in_unit(self, word: str, number: float, unit: Unit | None) -> float | None:
        self._guessed = self._guessed or (not self.decimal and ("," in word or "." in word))
        if unit is None:
            return number
        self.unit = self.unit or unit
        if unit.measures != self.unit.measures:
            self.given_up, self.why = True, f"{unit.name} and {self.unit.name} in one column"
            return None
        return number * factor(unit, self.unit)

    def _note(self, word: str, place: int) -> None:
        count, first = self.odd.get(word, (0, place))
        if count or len(self.odd) < KNOWN:
            self.odd[word] = (count + 1, first)
        else:
            self.others += 1


def factor(given: Unit | None, wanted: Unit | None) -> float:
    """What a number in one unit is multiplied with in another one of the same kind."""
    if given is None or wanted is None or given == wanted or given.measures != wanted.measures:
        return 1.0
    return given.factor / wanted.factor


def is_numeric(name: str, numbers: int, odd: int) -> bool:
    """Whether a column is one of numbers: nearly all cells of a measure are, all of a setting or a seed."""
    role = describe(name).role
    least = NEARLY_ALL if role in ("measure", "spread") else 1.0
    return role in ("measure", "spread", "setting", "replicate") and numbers >= max(
        1, least * (numbers + odd)
    )
