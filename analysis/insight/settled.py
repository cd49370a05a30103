"""Columns with words among their numbers, settled over all tables of a data set: numbers in one unit, or words."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false

from dataclasses import dataclass, replace

import pandas as pd

from secateur.analysis.insight.cells import Cells, factor, is_numeric
from secateur.analysis.insight.tables import Profile, Table
from secateur.analysis.insight.units import Unit


@dataclass(frozen=True)
class Odd:
    """A word that stands in a column of numbers: how often in a file, and in which row first."""

    file: str
    column: str
    word: str
    count: int
    row: int


def settle(tables: list[Table]) -> tuple[dict[str, Unit | None], tuple[Odd, ...]]:
    """Which columns with text in them are numbers after all, in which unit, and the odd words that they hold."""
    units: dict[str, Unit | None] = {}
    odd: list[Odd] = []
    for name in dict.fromkeys(name for table in tables for name in table.cells):
        holders = [table for table in tables if name in table.profiles]
        cells = [(table, table.cells[name]) for table in holders if name in table.cells]
        found = [item.unit for _, item in cells if item.unit is not None]
        numbers = sum(max(table.profiles[name].numbers, table.cells[name].numbers if name in table.cells else 0)
                      for table in holders)  # fmt: skip
        clash = any(unit.measures != found[0].measures for unit in found)
        # a column that was given up for its first rows alone may still be numbers in the other files
        if clash or any(item.why or (item.given_up and not table.complete) for table, item in cells):
            continue
        if is_numeric(name, numbers, sum(item.strange for _, item in cells)):
            units[name] = found[0] if found else None
            odd += [
                Odd(table.file, name, word, count, row)
                for table, item in cells
                for word, (count, row) in item.odd.items()
            ]
    return units, tuple(odd)


def converted(table: Table, units: dict[str, Unit | None]) -> pd.DataFrame:
    """A table's rows with its mixed columns as numbers, or as words throughout."""
    frame = table.frame.copy()
    for name in frame.columns:
        column = frame[name]
        if name in units and name in table.cells:
            frame[name] = table.cells[name].convert(column, units[name])
    return frame


def scaled(profile: Profile, table: Table, units: dict[str, Unit | None], name: str) -> Profile:
    """The exact profile of a column in the unit of its data set."""
    cells: Cells | None = table.cells.get(name)
    scale = 1.0 if cells is None else factor(cells.unit, units.get(name))
    return replace(
        profile,
        mean=profile.mean * scale, sd=profile.sd * scale, minimum=profile.minimum * scale,
        maximum=profile.maximum * scale,
    )  # fmt: skip
