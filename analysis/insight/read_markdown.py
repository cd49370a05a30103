"""The tables of a Markdown file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from secateur.analysis.insight.plain import UnreadableError
from secateur.analysis.insight.tables import Table, from_rows

LARGEST = 16 << 20
RULE = re.compile(r"^\s*\|?\s*:?-{1,}:?\s*(\|\s*:?-{1,}:?\s*)*\|?\s*$")
EMPHASIS = re.compile(r"\*\*|__|`|~~")


def read_markdown(path: Path, file: str, cells: int) -> Iterator[Table]:
    """Read every pipe table; rows with another number of cells than the header are counted and left out.

    A table is called by the nearest heading above it; a row's place is its line in the file.
    """
    if path.stat().st_size > LARGEST:
        raise UnreadableError(f"Markdown of more than {LARGEST >> 20} MiB")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8 text ({error.reason} at byte {error.start})") from error
    found, heading, at = 0, "", 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("#"):
            heading = EMPHASIS.sub("", line.lstrip("#")).strip()
        if "|" in line and at + 1 < len(lines) and "|" in lines[at + 1] and RULE.match(lines[at + 1]):
            table, at = _table(lines, at, heading or f"line {at + 1}", file, cells)
            if table is not None:
                found += 1
                yield table
            continue
        at += 1
    if not found:
        raise UnreadableError("prose without a table")


def _table(lines: list[str], at: int, name: str, file: str, cells: int) -> tuple[Table | None, int]:
    header = _cells(lines[at])
    names = [cell or f"column {place}" for place, cell in enumerate(header, 1)]
    rows: list[dict[str, str | None]] = []
    places: list[int] = []
    ragged, at = 0, at + 2
    while at < len(lines) and "|" in lines[at]:
        values = _cells(lines[at])
        at += 1
        if len(values) != len(names):
            ragged += 1
            continue
        rows.append({key: value or None for key, value in zip(names, values, strict=True)})
        places.append(at)
    gather = from_rows(_numbered(rows, names), places, cells)
    if ragged:
        gather.notes.append(f"{name}: {ragged} row(s) with another number of cells than the header left out")
    return gather.finish(file, name, "Markdown"), at


def _numbered(rows: list[dict[str, str | None]], names: list[str]) -> list[dict[str, Any]]:
    """The rows with columns that hold plain numbers only as numbers."""
    found: list[dict[str, Any]] = [dict(row) for row in rows]
    for name in names:
        words = [row.get(name) for row in rows]
        try:
            values = [None if word is None else float(word) for word in words]
        except ValueError:
            continue
        for row, value in zip(found, values, strict=True):
            row[name] = value
    return found


def _cells(line: str) -> list[str]:
    text = line.strip()
    text = text[1:] if text.startswith("|") else text
    text = text[:-1] if text.endswith("|") and not text.endswith("\\|") else text
    parts = re.split(r"(?<!\\)\|", text) if "\\" in text else text.split("|")
    if not any(sign in text for sign in "*_`~\\"):
        return [part.strip() for part in parts]
    return [EMPHASIS.sub("", part.replace("\\|", "|")).strip() for part in parts]
