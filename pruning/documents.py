"""Text files as lists of documents, and documents as streams of tokens. No torch here."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pruning.errors import DataError


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a parquet or JSONL file as a list of rows.

    Raises:
        DataError: The file is missing, damaged or empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a .txt, .jsonl or .parquet file")
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows: list[Any] = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a readable parquet file: {error}") from error
    else:
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines if line.strip()]
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a readable JSONL file: {error}") from error
    if not rows:
        raise DataError(f"{path} holds no rows")
    bad = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
    if bad is not None:
        raise DataError(f"{path}: row {bad} is {rows[bad]!r}, not a JSON object with a text column")
    return rows


def read_texts(path: Path, field: str, key: str) -> list[str]:
    """Read the documents of a text file (a .txt file is one document). `key` is the config key that names the column.

    Raises:
        DataError: The file or the column is missing or is not text.
    """
    if path.suffix == ".txt":
        if not path.is_file():
            raise DataError(f"{path}: no such file; give a .txt, .jsonl or .parquet file")
        try:
            return [path.read_text(encoding="utf-8")]
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text: {error}") from error
    rows = read_rows(path)
    if field not in rows[0]:
        raise DataError(f"{path} has no column {field!r}; it has {', '.join(rows[0])} ({key}=NAME)")
    texts = [row.get(field) for row in rows]
    bad = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if bad is not None:
        raise DataError(f"{path}: row {bad} of column {field!r} is {texts[bad]!r}, not text")
    return [str(text) for text in texts]


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
