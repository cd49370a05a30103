"""Results of other tools in: `llama-bench -o json|jsonl|csv`, without loss, and any CSV table with a mapping file.

The fields of llama-bench are those that its printers emit (llama.cpp, tools/llama-bench). Every column that is no
result is a setting, known to us or not; the whole row is kept as JSON beside it.
"""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from secateur.analysis.foreign import read_text
from secateur.analysis.speed.measurements import BOTH, DECODE, PREFILL, SETTING, Speeds, make
from secateur.pruning.errors import DataError

NEEDED = ("model_filename", "n_prompt", "n_gen", "avg_ns", "avg_ts")
RESULTS = ("avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts", "test_time")
SIZES = ("n_prompt", "n_gen")
NUMBERS = ("n_prompt", "n_gen", "n_depth", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts")


def load_llama_bench(path: Path) -> Speeds:
    """Read the output of `llama-bench -o json`, `-o jsonl` or `-o csv`, whichever it is.

    Raises:
        DataError: The file is missing or malformed; line and reason are named.
    """
    rows: list[dict[str, Any]] = []
    passes: list[tuple[np.ndarray, np.ndarray]] = []
    for line, raw in llama_rows(path):
        row, seconds = _llama_row(path, line, raw)
        rows.append(row)
        passes.append((np.arange(len(seconds)), seconds))
    cells, samples = make(rows, passes)
    return Speeds(cells, samples)


def llama_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and fields of every result, as the file has them.

    Raises:
        DataError: Naming the line and the reason.
    """
    text = read_filled(path, "llama_bench")
    start = text.lstrip()[:1]
    reader = _json_rows if start == "[" else _jsonl_rows if start == "{" else _csv_rows
    count = 0
    for line, raw in reader(path, text):
        lacking = [name for name in NEEDED if name not in raw]
        if lacking:
            raise DataError(f"{path}, line {line}: no llama-bench result: {', '.join(lacking)} missing")
        count += 1
        yield line, raw
    if not count:
        raise DataError(f"{path}, line 1: holds no result")


def read_filled(path: Path, key: str) -> str:
    """The text of a file that holds any.

    Raises:
        DataError: It is missing, empty or not UTF-8.
    """
    text = read_text(path, key)
    if not text.strip():
        raise DataError(f"{path}, line 1: the file is empty")
    return text


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Elements of one JSON array, each with the line on which it begins."""
    decoder = json.JSONDecoder()
    at = _skip(text, text.index("[") + 1)
    while text[at : at + 1] != "]":
        line = text.count("\n", 0, at) + 1
        if at >= len(text):
            raise DataError(f"{path}, line {line}: the array is cut off: ']' is missing")
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: {error.msg} (column {error.colno})") from error
        yield line, _object(path, line, value)
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif at < len(text) and text[at] != "]":
            line = text.count("\n", 0, at) + 1
            raise DataError(f"{path}, line {line}: expected ',' or ']' after a result")


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, item in enumerate(text.splitlines(), 1):
        if item.strip():
            try:
                value = json.loads(item)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {line}: {error.msg} (column {error.colno})") from error
            yield line, _object(path, line, value)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    header, rows = csv_rows(path, text)
    for line, cells in rows:
        yield line, dict(zip(header, cells, strict=True))


def csv_rows(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows of a CSV text, each with its line.

    Raises:
        DataError: A row has another number of cells than the header, or there is none; the line is named.
    """
    reader = csv.reader(io.StringIO(text), strict=True)
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if not row:
                continue
            if not header:
                header = [name.strip() for name in row]
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise DataError(
                        f"{path}, line {reader.line_num}: column {', '.join(twice)} appears twice"
                    )
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, the header has {len(header)}"
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    if not rows:
        raise DataError(f"{path}, line {reader.line_num}: has a header and no rows")
    return header, rows


def _llama_row(path: Path, line: int, raw: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    number = {name: as_number(path, line, name, raw[name]) for name in NUMBERS if name in raw}
    prompt, gen = int(number["n_prompt"]), int(number["n_gen"])
    if prompt + gen <= 0 or number["avg_ns"] <= 0:
        raise DataError(f"{path}, line {line}: n_prompt + n_gen and avg_ns must be above 0")
    phase = BOTH if prompt and gen else PREFILL if prompt else DECODE
    given: Any = raw.get("samples_ns") or []
    if not isinstance(given, list):
        raise DataError(f"{path}, line {line}: samples_ns={given!r} is not a list of numbers")
    seconds = np.array([as_number(path, line, "samples_ns", value) for value in given]) / 1e9
    if (seconds <= 0).any():
        raise DataError(f"{path}, line {line}: samples_ns holds a time that is not above 0")
    name = PurePath(str(raw["model_filename"]).replace("\\", "/")).stem
    sd = number.get("stddev_ts", math.nan)
    row: dict[str, Any] = {
        "source": str(path), "place": line, "tool": "llama-bench", "model": name, "subject": name, "phase": phase,
        # a depth is context that is there before the test: what is decoded after it stands at that prompt length
        "n_prompt": prompt or int(number.get("n_depth", 0)), "n_gen": gen, "batch": 1, "largest": False,
        "n": math.nan, "tokens": prompt + gen, "seconds": number["avg_ns"] / 1e9, "tokens_per_s": number["avg_ts"],
        "sd": sd, "cv": sd / number["avg_ts"], "started": raw.get("test_time"),
        "raw": json.dumps(raw, ensure_ascii=False),
    }  # fmt: skip
    # the depth of a decode test is its prompt length already, and no depth is no setting
    sizes = (*SIZES, "n_depth") if phase == DECODE or not number.get("n_depth") else SIZES
    row |= {f"{SETTING}{k}": _plain(v) for k, v in raw.items() if k not in (*RESULTS, *sizes)}
    return row, seconds


def as_number(path: Path, line: int, name: str, value: Any) -> float:
    """A value as a finite number.

    Raises:
        DataError: It is none; line and column are named.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise DataError(f"{path}, line {line}: {name}={value!r} is not a number")
    return number


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _object(path: Path, line: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{path}, line {line}: {str(value)[:40]!r} is not an object with the fields of a result"
        )
    return value


def _skip(text: str, at: int) -> int:
    """The next place that is no white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at
