"""Text files as lists of documents, and documents as streams of tokens. No torch here.

The one place that says which files are text: `.txt` and `.md` (one document), `.jsonl`, `.csv` and `.parquet` (one
document per row), in upper or lower case, all but parquet also as `.gz`. UTF-8, with or without a byte order mark;
UTF-16 and UTF-32 with one.
"""

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from secateur.pruning.errors import DataError

PROSE = (".txt", ".md")
LINES = (".jsonl", ".ndjson", ".json")
TABLES = (".parquet", ".jsonl")
"""What the files of an `eval.data_dir` may be, in this order."""
KINDS = "a .txt, .md, .jsonl, .csv or .parquet file (all but parquet also as .gz)"
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
          codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
_HALF = re.compile("[\ud800-\udfff]")
_SHOWN = 60


def check_file(path: Path, key: str = "") -> str:
    """The kind of a text file (`.txt`, `.jsonl`, ...). `key` is the config key that names it.

    Raises:
        DataError: There is no such file, or it is of a kind that cannot be read.
    """
    name = f"{key}={path}" if key else str(path)
    if path.is_dir():
        raise DataError(f"{name} is a folder; give {KINDS}")
    if not path.is_file():
        raise DataError(f"{name}: no such file; give {KINDS}")
    suffix = _bare(path).suffix.lower()
    if suffix not in (*PROSE, *LINES, ".csv", ".parquet") or (suffix == ".parquet" and _bare(path) != path):
        raise DataError(f"{name}: a file of kind {path.suffix!r} cannot be read; give {KINDS}")
    return suffix


def stem_of(path: Path) -> str:
    """The name of a text file without its suffixes."""
    return _bare(path).stem


def _bare(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a parquet, JSONL or CSV file as a list of rows.

    Raises:
        DataError: The file is missing, damaged or empty.
    """
    kind = check_file(path)
    if kind in PROSE:
        raise DataError(f"{path} is one text; rows are wanted: give a .jsonl, .csv or .parquet file")
    rows = {".parquet": _parquet, ".csv": _csv}.get(kind, _jsonl)(path)
    if not rows:
        raise DataError(f"{path} holds no rows")
    bad = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
    if bad is not None:
        raise DataError(f"{path}: row {bad} is {_short(rows[bad])}, not a JSON object with a text column")
    return rows


def read_texts(path: Path, field: str, key: str) -> list[str]:
    """Read the documents of a text file (prose is one document). `key` is the config key that names the column.

    Raises:
        DataError: The file or the column is missing or is not text.
    """
    if check_file(path) in PROSE:
        return [_decoded(path)]
    rows = read_rows(path)
    if field not in rows[0]:
        raise DataError(
            f"{path} has no column {field!r}; it has {_short(', '.join(rows[0]), str)} ({key}=NAME)"
        )
    texts = [row.get(field) for row in rows]
    bad = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if bad is not None:
        raise DataError(f"{path}: row {bad} of column {field!r} is {_short(texts[bad])}, not text")
    found = [str(text) for text in texts]
    half = next((i for i, text in enumerate(found) if not text.isascii() and _HALF.search(text)), None)
    if half is not None:
        raise DataError(
            f"{path}: row {half} of column {field!r} holds half a character (a lone surrogate such as \\ud800), which "
            "is no text. Write the file again from its source"
        )
    return found


def _parquet(path: Path) -> list[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a readable parquet file: {_short(error, str)}") from error


def _jsonl(path: Path) -> list[Any]:
    rows = list[Any]()
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path} is not a readable JSONL file: line {number}: {_short(error, str)}"
                ) from error
    return rows


def _csv(path: Path) -> list[Any]:
    text = _decoded(path)
    limit = csv.field_size_limit(sys.maxsize)
    try:
        return list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise DataError(f"{path} is not a readable CSV file: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _decoded(path: Path) -> str:
    """The text of a file, unpacked, without its byte order mark, with single line feeds."""
    try:
        data = path.read_bytes()
        if _bare(path) != path:
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({_short(error, str)}): copy it again") from error
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not {encoding.upper()} text ({error.reason}, byte {error.start}, line {line}): save "
            "it as UTF-8"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path} holds null characters: it is no text, or UTF-16 without its mark; save it as UTF-8"
        )
    if not text.strip():
        raise DataError(f"{path} is empty: it holds no rows and no text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _short(value: Any, shown: Any = repr) -> str:
    """A value in a message: one line, not too long."""
    text = " ".join(str(shown(value)).split()) or type(value).__name__
    return text if len(text) <= 2 * _SHOWN else text[:_SHOWN] + "..."


def single_breaks(text: str) -> str:
    """The text with every run of blank lines replaced by one line break, and stripped."""
    return "\n".join(line for line in text.split("\n") if line.strip()).strip()


def document_tokens(texts: Sequence[str], tokenizer: Any, at_once: int = 1000) -> Iterator[list[int]]:
    """Token ids of each document: it begins with BOS or, where there is none, ends with EOS."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    for start in range(0, len(texts), at_once):
        batch = tokenizer(list(texts[start : start + at_once]), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        for ids in batch:
            yield [bos, *ids] if bos is not None else [*ids, eos] if eos is not None else ids
