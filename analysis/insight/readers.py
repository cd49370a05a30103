"""CSV, parquet and SQLite, read in chunks."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import codecs
import csv
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as arrow_parquet

from secateur.analysis.insight.cells import decimal_sign
from secateur.analysis.insight.plain import UnreadableError
from secateur.analysis.insight.tables import WIDEST, Gather, Table
from secateur.analysis.missing import SPELLINGS

BLOCK = 4 << 20
"""Bytes of a CSV that are read at a time."""
ROWS = 20_000
"""Rows of parquet and SQLite that are read at a time."""
HEAD = 1 << 16


def read_csv(path: Path, file: str, cells: int) -> Iterator[Table]:
    """Read a delimited text file; lines with another number of cells than the header are counted and left out."""
    delimiter, names = _header(path)
    _check_text(path)
    decimal = _decimal(path, delimiter)
    texts: set[str] = set()
    for _ in range(len(names) + 1):
        gather = Gather(cells, decimal=decimal)
        try:
            _stream(path, delimiter, names, texts, gather)
        except pa.ArrowInvalid as error:
            place = re.search(r"In CSV column #(\d+): .*conversion error to (?!string)", str(error))
            if place is None:
                raise UnreadableError(_first_line(error)) from error
            texts.add(names[int(place[1])])
            if len(texts) > 20:  # a table that changes its mind everywhere is read as text
                texts = set(names)
            continue
        table = gather.finish(file, "", "CSV")
        if table is None:
            raise UnreadableError("a header and no rows")
        yield table
        return


def _stream(path: Path, delimiter: str, names: list[str], texts: set[str], gather: Gather) -> None:
    bad: list[int] = []

    def skip(row: object) -> str:
        bad.append(1)
        return "skip"

    convert = arrow_csv.ConvertOptions(
        null_values=SPELLINGS, strings_can_be_null=True, decimal_point=gather.decimal or ".",
        column_types=_types(path, delimiter, names, texts, gather.decimal or "."),
    )  # fmt: skip
    # no threads here: several processes read several files
    with arrow_csv.open_csv(
        path,
        arrow_csv.ReadOptions(block_size=BLOCK, use_threads=False, column_names=names, skip_rows=1),
        arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip, newlines_in_values=True),
        convert,
    ) as reader:
        for batch in reader:
            gather.add(batch.to_pandas())
    if bad:
        gather.notes.append(f"{len(bad)} line(s) with another number of cells than the header left out")


def _decimal(path: Path, delimiter: str) -> str:
    """The decimal sign that the first cells prove; empty where they prove none. Points win where both stand."""
    with path.open("rb") as handle:
        lines = handle.read(HEAD).decode("utf-8-sig", "replace").splitlines()[1:]
    try:
        return decimal_sign(cell for row in csv.reader(lines, delimiter=delimiter) for cell in row)
    except csv.Error:
        return ""


def _types(path: Path, delimiter: str, names: list[str], texts: set[str], decimal: str) -> dict[str, Any]:
    """Numbers are float64 everywhere, so that a late `1.5` in a column of integers is no surprise."""
    with path.open("rb") as handle:
        head = handle.read(HEAD)
    complete = head.rsplit(b"\n", 1)[0] if len(head) == HEAD else head
    try:
        first = arrow_csv.read_csv(
            pa.BufferReader(complete),
            arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            arrow_csv.ParseOptions(
                delimiter=delimiter, invalid_row_handler=lambda row: "skip", newlines_in_values=True
            ),
            arrow_csv.ConvertOptions(null_values=SPELLINGS, strings_can_be_null=True, decimal_point=decimal),
        ).schema
    except pa.ArrowInvalid as error:
        raise UnreadableError(_first_line(error)) from error
    types: dict[str, Any] = {}
    for item in first:
        number = (
            pa.types.is_integer(item.type) or pa.types.is_floating(item.type) or pa.types.is_null(item.type)
        )
        types[item.name] = pa.float64() if number and item.name not in texts else pa.string()
    return types


def _check_text(path: Path) -> None:
    """Refuse what is not UTF-8 throughout: pyarrow cannot hand over lines that are not.

    Raises:
        UnreadableError: Naming the first byte that is wrong.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    at = 0
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                raise UnreadableError(
                    f"not UTF-8 text ({error.reason} near byte {at + error.start})"
                ) from error
            at += len(block)


def _header(path: Path) -> tuple[str, list[str]]:
    with path.open("rb") as handle:
        head = handle.read(HEAD)
    if not head.strip():
        raise UnreadableError("empty")
    if b"\0" in head:
        raise UnreadableError("not text (it holds zero bytes)")
    line = head.splitlines()[0]
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8 text ({error.reason} at byte {error.start})") from error
    delimiter = max(",;\t|", key=text.count)
    if delimiter not in text and len(head.splitlines()) < 2:
        raise UnreadableError("one line and no table")
    names = [
        name.strip() or f"column {place}"
        for place, name in enumerate(next(csv.reader([text], delimiter=delimiter)), 1)
    ]
    if len(names) > 50 * WIDEST:
        raise UnreadableError(f"{len(names)} columns")
    for place, name in enumerate(names):
        if name in names[:place]:
            names[place] = f"{name} ({place + 1})"
    return delimiter, names


def read_parquet(path: Path, file: str, cells: int) -> Iterator[Table]:
    """Read a parquet file; nested columns are left out and named."""
    try:
        opened = arrow_parquet.ParquetFile(path)
        schema = opened.schema_arrow
        flat = [item.name for item in schema if not pa.types.is_nested(item.type)]
        gather = Gather(cells)
        if len(flat) < len(schema):
            gather.notes.append(f"{len(schema) - len(flat)} nested column(s) left out")
        for batch in opened.iter_batches(batch_size=ROWS, columns=flat[:WIDEST], use_threads=False):
            gather.add(batch.to_pandas())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UnreadableError(_first_line(error)) from error
    table = gather.finish(file, "", "parquet")
    if table is None:
        raise UnreadableError("no rows")
    yield table


def read_sqlite(path: Path, file: str, cells: int) -> Iterator[Table]:
    """Read every table of a SQLite file, which is opened read-only."""
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error as error:
        raise UnreadableError(str(error)) from error
    try:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        query = (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        )
        names = [str(row[0]) for row in connection.execute(query)]
        found = 0
        for name in names:
            gather = Gather(max(1000, cells // max(1, len(names))))
            quoted = name.replace('"', '""')
            for chunk in pd.read_sql_query(f'SELECT * FROM "{quoted}"', connection, chunksize=ROWS):  # noqa: S608  (quoted)
                gather.add(chunk)
            table = gather.finish(file, name, "SQLite")
            if table is not None:
                found += 1
                yield table
        if not found:
            raise UnreadableError("no table with rows")
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise UnreadableError(_first_line(error)) from error
    finally:
        connection.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
