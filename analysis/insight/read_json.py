"""JSON and JSONL as flat tables: nested mappings become dotted columns, lists of mappings tables of their own."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.analysis.insight.cells import parse_cell
from secateur.analysis.insight.json_shapes import as_rows
from secateur.analysis.insight.known_json import Answers, known_rows
from secateur.analysis.insight.naming import describe
from secateur.analysis.insight.plain import UnreadableError
from secateur.analysis.insight.tables import ROW, Gather, Table, from_rows, summarised

WHOLE = 32 << 20
"""Bytes of JSON that are read at once; a larger list is read element by element."""
PIECE = 4 << 20
UNBOUNDED = 1 << 60
SPACE = re.compile(r"[\s,]*")
LINES = 5000
SAMPLES = re.compile(r"^samples_(.+?)(_\d{4}-\d\d-\d\dT.*)?$")
"""`samples_TASK_TIME.jsonl`: how lm-eval names its files of answers."""
DEEPEST = 40
Row = dict[str, Any]


@dataclass
class _Found:
    """Tables found in one document: name -> rows and their places."""

    rows: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])

    def add(self, name: str, row: Row) -> None:
        self.rows.setdefault(name, []).append(row)


def read_json(path: Path, file: str, cells: int) -> Iterator[Table]:
    """Read one JSON document."""
    if path.stat().st_size > WHOLE:
        yield from _elements(path, file, cells)
        return
    try:
        found = tables_of(json.loads(path.read_bytes(), parse_constant=lambda _: None))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(_reason(error)) from error
    if not found:
        raise UnreadableError("no numbers in it")
    for name, rows in found.items():
        table = from_rows(rows, list(range(1, len(rows) + 1)), cells).finish(file, name, "JSON")
        if table is not None:
            yield table


def tables_of(document: Any) -> dict[str, list[Row]]:
    """All tables of a document that hold a number."""
    known = known_rows(document)
    if known is not None:
        return known
    found = _Found()
    if isinstance(document, dict):
        document = as_rows(document)
    if isinstance(document, list):
        _list(document, "", {}, found, 0)
    elif isinstance(document, dict):
        _mapping(document, "", {}, found, 0)
    return {name: rows for name, rows in found.rows.items() if any(map(_has_number, rows))}


def _has_number(row: Row) -> bool:
    return any(
        (isinstance(value, int | float) and not isinstance(value, bool))
        or (isinstance(value, str) and describe(key).better != "none" and parse_cell(value) is not None)
        for key, value in row.items()
    )


def _mapping(node: Row, path: str, above: Row, found: _Found, depth: int) -> None:
    """One mapping: its own scalars are a row, its lists of mappings and mappings of mappings are tables."""
    if not any(isinstance(value, dict | list) for value in node.values()):  # most rows of most files
        row, inner = {key: value for key, value in node.items() if value is not None}, {}
    else:
        row, inner = _flat(node, depth)
    if row:
        found.add(path, above | row if above else row)
    if not inner:
        return
    context = above | {key: value for key, value in row.items() if _is_context(key, value)}
    for key, value in inner.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, list):
            _list(value, name, context, found, depth + 1)
        else:
            label = key.rsplit(".", 1)[-1]
            for entry, content in value.items():
                flat, _ = _flat(content, depth + 1)
                found.add(name, {**context, label: entry, **flat})


def _list(items: list[Any], path: str, above: Row, found: _Found, depth: int) -> None:
    for item in items:
        if isinstance(item, dict):
            _mapping(item, path, above, found, depth + 1)


def _flat(node: Row, depth: int, prefix: str = "") -> tuple[Row, dict[str, Any]]:
    """Scalars of a mapping under dotted keys, and what needs tables of its own."""
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    row: Row = {}
    inner: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}" if prefix else key
        if isinstance(value, str | float | int):
            row[name] = value
        elif isinstance(value, dict):
            rows = as_rows(value)
            if isinstance(rows, list):
                inner[name] = rows
            elif is_table(value):
                inner[name] = value
            else:
                deeper, below = _flat(value, depth + 1, f"{name}.")
                row |= deeper
                inner |= below
        elif isinstance(value, list):
            if value and isinstance(value[0], dict):
                inner[name] = value
            else:
                row |= summarised(name, value)
    return row, inner


def is_table(node: Row) -> bool:
    """Whether a mapping is a table: at least two mappings that share most of their keys, with numbers in them."""
    if len(node) < 2 or not all(isinstance(value, dict) and value for value in node.values()):
        return False
    keys = [frozenset(value) for value in node.values()]
    shared, every = frozenset.intersection(*keys), frozenset.union(*keys)
    return len(shared) * 2 >= len(every) and all(map(_has_number, node.values()))


CONTEXT = re.compile(
    r"model|name|method|date|time|created|version|device|gpu|quant|backend|engine|seed|batch|ctx|n_|num_|config",
    re.I,
)


def _is_context(key: str, value: Any) -> bool:
    """Whether rows of inner tables inherit an entry of the mapping around them: words, and settings."""
    if isinstance(value, str):
        return len(value) <= 120
    return isinstance(value, bool | int | float) and bool(CONTEXT.search(key)) and "·" not in key


def read_jsonl(path: Path, file: str, cells: int) -> Iterator[Table]:
    """Read one JSON value per line; lines that are damaged are counted and left out."""
    gathers: dict[str, Gather] = {}
    bad, line = 0, 0
    found: dict[str, list[Row]] = {}
    places: dict[str, list[int]] = {}
    answers = Answers()
    with path.open("rb") as handle:
        for line, raw in enumerate(handle, 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw, parse_constant=lambda _: None)
                if Answers.fits(row):
                    answers.add(row)
                    continue
                tables = tables_of([row])
            except (ValueError, RecursionError):
                bad += 1
                continue
            _take(tables, line, found, places)
            if line % LINES == 0:
                _flush(found, places, gathers, cells)
    task = SAMPLES.sub(r"\1", Path(file.removesuffix(".gz")).stem)
    _take({"samples": answers.rows(task)}, line, found, places)
    _flush(found, places, gathers, cells)
    yield from _finish(gathers, file, "JSONL", bad, line)


def _take(
    tables: dict[str, list[Row]], place: int, found: dict[str, list[Row]], places: dict[str, list[int]]
) -> None:
    """Add the tables of one line or element; all their rows stand in that place."""
    for name, rows in tables.items():
        found.setdefault(name, []).extend(rows)
        places.setdefault(name, []).extend([place] * len(rows))


def _flush(
    found: dict[str, list[Row]], places: dict[str, list[int]], gathers: dict[str, Gather], cells: int
) -> None:
    for name, rows in found.items():
        gather = gathers.setdefault(name, Gather(cells))
        part = from_rows(rows, places[name], UNBOUNDED)
        gather.notes += [note for note in part.notes if note not in gather.notes]
        frame = part.finish("", "", "")
        if frame is not None:
            gather.add(frame.frame.drop(columns=ROW), frame.frame[ROW].to_numpy())
    found.clear()
    places.clear()


def _finish(gathers: dict[str, Gather], file: str, kind: str, bad: int, lines: int) -> Iterator[Table]:
    if not gathers:
        raise UnreadableError(f"none of {lines} line(s) is JSON with numbers" if lines else "empty")
    for name, gather in gathers.items():
        if bad:
            gather.notes.append(f"{bad} damaged line(s) left out")
        table = gather.finish(file, name, kind)
        if table is not None:
            yield table


def _elements(path: Path, file: str, cells: int) -> Iterator[Table]:
    """A large file that is a list, one element at a time."""
    gathers: dict[str, Gather] = {}
    found: dict[str, list[Row]] = {}
    places: dict[str, list[int]] = {}
    count = 0
    for count, element in enumerate(_parts(path), 1):
        _take(tables_of([element]), count, found, places)
        if count % LINES == 0:
            _flush(found, places, gathers, cells)
    _flush(found, places, gathers, cells)
    yield from _finish(gathers, file, "JSON", 0, count)


def _parts(path: Path) -> Iterator[Any]:
    """The elements of a JSON list; only a few MiB of the file are held.

    Raises:
        UnreadableError: The file is no list, or damaged.
    """
    decoder = json.JSONDecoder(parse_constant=lambda _: None)
    with path.open(encoding="utf-8", errors="replace") as handle:
        buffer = handle.read(PIECE).lstrip("\ufeff \r\n\t")
        if not buffer.startswith("["):
            raise UnreadableError(f"one JSON value above {WHOLE >> 20} MiB; only lists are read in parts")
        at, count = 1, 0
        while True:
            at = SPACE.match(buffer, at).end()  # pyright: ignore[reportOptionalMemberAccess]  matches the empty text
            if buffer.startswith("]", at):
                return
            try:
                element, at = decoder.raw_decode(buffer, at)
            except ValueError as error:
                more = handle.read(PIECE)
                if not more or len(buffer) - at > WHOLE:
                    raise UnreadableError(f"damaged after element {count}: {_reason(error)}") from error
                buffer, at = buffer[at:] + more, 0
                continue
            count += 1
            yield element


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"not JSON: {str(error).splitlines()[0][:150]}"
