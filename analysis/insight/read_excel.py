"""The sheets of an Excel workbook."""

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from secateur.analysis.insight.plain import UnreadableError
from secateur.analysis.insight.tables import WIDEST, Table, from_rows


def read_excel(path: Path, file: str, cells: int) -> Iterator[Table]:
    """Read every sheet: its first row that is not empty names the columns, a row's place is its row in the sheet.

    Formulas are what they came to when the workbook was last saved.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise UnreadableError("Excel needs openpyxl: pip install 'secateur[insight]'") from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a damaged workbook raises whatever its parts do
        raise UnreadableError(f"not an Excel workbook ({type(error).__name__})") from error
    found = 0
    try:
        for sheet in book.worksheets:
            table = _table(sheet.iter_rows(values_only=True), sheet.title, file, cells)
            if table is not None:
                found += 1
                yield table
    finally:
        book.close()
    if not found:
        raise UnreadableError("no sheet with a header and rows")


def _table(lines: Iterator[tuple[Any, ...]], name: str, file: str, cells: int) -> Table | None:
    header: list[str] = []
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    for place, line in enumerate(lines, 1):
        values = [_plain(value) for value in line[:WIDEST]]
        if all(value is None for value in values):
            continue
        if not header:
            header = [str(value or f"column {at}").strip() for at, value in enumerate(values, 1)]
            header = [f"{key} ({at + 1})" if key in header[:at] else key for at, key in enumerate(header)]
            continue
        rows.append(dict(zip(header, values, strict=False)))
        places.append(place)
    return from_rows(rows, places, cells).finish(file, name, "Excel")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return value.strip() or None
    return value
