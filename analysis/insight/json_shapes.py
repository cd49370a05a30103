"""JSON that holds a table by its columns, as pandas and many tools write it, turned into rows."""

from typing import Any

from secateur.analysis.insight.naming import describe

Row = dict[str, Any]


def as_rows(node: Row) -> Row | list[Row]:
    """The rows of a mapping that is a table by columns; any other mapping as it is."""
    values = list(node.values())
    if len(values) < 2:
        return node
    if set(node) >= {"columns", "data"} and set(node) <= {"columns", "data", "index"}:
        return _split(node)
    if all(isinstance(value, list) for value in values) and _is_columns(node):
        return [dict(zip(node, cells, strict=True)) for cells in zip(*values, strict=True)]
    if all(isinstance(value, dict) and value for value in values) and _is_numbered(values):
        return [{name: column[place] for name, column in node.items()} for place in values[0]]
    return node


def _split(node: Row) -> Row | list[Row]:
    names, lines = node["columns"], node["data"]
    fits = isinstance(names, list) and isinstance(lines, list) and bool(lines)
    if not fits or any(not isinstance(line, list) or len(line) != len(names) for line in lines):
        return node
    return [dict(zip(map(str, names), line, strict=True)) for line in lines]


def _is_columns(node: Row) -> bool:
    """Lists of one length, one of which tells the rows apart; else they are samples of several measurements."""
    lengths = {len(value) for value in node.values()}
    if len(lengths) != 1 or min(lengths) < 2:
        return False
    if any(isinstance(cell, dict | list) for value in node.values() for cell in value):
        return False
    return any(
        describe(name).role not in ("measure", "spread") or all(isinstance(cell, str) for cell in value)
        for name, value in node.items()
    )


def _is_numbered(columns: list[Row]) -> bool:
    """Mappings from the same row numbers, counted from 0."""
    first = list(columns[0])
    return first == [str(place) for place in range(len(first))] and all(list(c) == first for c in columns)
