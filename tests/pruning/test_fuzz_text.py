"""Seeded fuzz of text files, as calibration and as evaluation: they are read, or one line says why not."""

import codecs
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secateur.eval.config import EvalConfig, PerplexityConfig
from secateur.eval.perplexity import check_texts
from secateur.pruning.calibration import Samples, load_samples
from secateur.pruning.config import CalibrationConfig, TaylorConfig
from secateur.pruning.documents import read_texts
from secateur.pruning.errors import DataError, SecateurError
from secateur.pruning.leaks import Excluded, leaked
from tests.pruning.commands import documents, one_line, tokenizer

TEXTS = documents(30)
PROSE = "\n\n".join(TEXTS)
ROWS = [json.dumps({"text": text, "n": i}, ensure_ascii=False) for i, text in enumerate(TEXTS)]
TABLE = "n,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS))
EXCLUDED = Excluded((("nothing of this is in the calibration text at all",),))


def samples(path: Path, cache: Path) -> Samples:
    config = CalibrationConfig(path=str(path))
    return load_samples(config, TaylorConfig(seq_len=16, num_samples=8), tokenizer(), cache, EXCLUDED)


def accepted(path: Path, cache: Path) -> bool:
    """Whether a file is read, as calibration and as evaluation text; anything but a SecateurError is a failure."""
    evaluation = EvalConfig(tasks=(), ppl=PerplexityConfig(text=str(path), window=16))
    worked = []
    for attempt in (lambda: samples(path, cache), lambda: check_texts(tokenizer(), evaluation)):
        try:
            attempt()
            worked.append(True)
        except SecateurError as error:
            one_line(error)
            words = (str(path), "calibration: ", "@16: the text has")
            worked.append(not any(word in str(error) for word in words))
            if worked[-1]:
                pytest.fail(f"no file is named: {error}")
    return worked[0]


def parquet(columns: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


# --- what is right, in whatever clothes


RIGHT: dict[str, bytes] = {
    "plain.jsonl": "\n".join(ROWS).encode(),
    "mark.jsonl": codecs.BOM_UTF8 + "\n".join(ROWS).encode(),
    "UPPER.JSONL": "\n".join(ROWS).encode(),
    "lines.ndjson": "\n".join(ROWS).encode(),
    "crlf.jsonl": "\r\n".join(ROWS).encode(),
    "cr.jsonl": "\r".join(ROWS).encode(),
    "blank-lines.jsonl": "\n\n\n".join(["", *ROWS, ""]).encode(),
    "little.jsonl": codecs.BOM_UTF16_LE + "\n".join(ROWS).encode("utf-16-le"),
    "big.jsonl": codecs.BOM_UTF16_BE + "\n".join(ROWS).encode("utf-16-be"),
    "wide.jsonl": codecs.BOM_UTF32_LE + "\n".join(ROWS).encode("utf-32-le"),
    "packed.jsonl.gz": gzip.compress("\n".join(ROWS).encode()),
    "PACKED.JSONL.GZ": gzip.compress(codecs.BOM_UTF8 + "\r\n".join(ROWS).encode()),
    "table.csv": TABLE.encode(),
    "mark.csv": codecs.BOM_UTF8 + TABLE.encode(),
    "Table.Csv": TABLE.replace("\n", "\r\n").encode(),
    "wide.csv": codecs.BOM_UTF16_LE + TABLE.encode("utf-16-le"),
    "table.csv.gz": gzip.compress(TABLE.encode()),
    "rows.parquet": parquet({"text": TEXTS, "n": list(range(30))}),
    "ROWS.PARQUET": parquet({"text": TEXTS}),
}
RIGHT_PROSE: dict[str, bytes] = {
    "plain.txt": PROSE.encode(),
    "mark.txt": codecs.BOM_UTF8 + PROSE.encode(),
    "UPPER.TXT": PROSE.encode(),
    "crlf.txt": PROSE.replace("\n", "\r\n").encode(),
    "little.txt": codecs.BOM_UTF16_LE + PROSE.encode("utf-16-le"),
    "packed.txt.gz": gzip.compress(PROSE.encode()),
    "notes.md": PROSE.encode(),
    "notes.MD.gz": gzip.compress(codecs.BOM_UTF16_BE + PROSE.encode("utf-16-be")),
}


@pytest.mark.parametrize("name", [*RIGHT, *RIGHT_PROSE])
def test_the_same_text_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    right = RIGHT if name in RIGHT else RIGHT_PROSE
    first = next(iter(right))
    for each in {name, first}:
        (tmp_path / each).write_bytes(right[each])
    assert (
        samples(tmp_path / name, tmp_path / "cache").digest
        == samples(tmp_path / first, tmp_path / "c").digest
    )


def test_line_breaks_and_long_cells_in_a_table(tmp_path: Path) -> None:
    """A cell of a CSV may hold line breaks, quotes, commas, and more than the csv module's 131072 characters."""
    long = " ".join(["w4 w5"] * 40_000)
    (tmp_path / "a.csv").write_text(f'text\n"w4,\nw5 ""w6"""\n"{long}"\n', encoding="utf-8")
    assert read_texts(tmp_path / "a.csv", "text", "calibration.field") == ['w4,\nw5 "w6"', long]


# --- what is wrong, one by one

PACKED = RIGHT_PROSE["packed.txt.gz"]

WRONG: dict[str, tuple[bytes, str]] = {
    "empty.jsonl": (b"", "is empty"),
    "empty.txt": (b"", "is empty"),
    "empty.csv": (b"", "is empty"),
    "empty.parquet": (b"", "not a readable parquet"),
    "empty.jsonl.gz": (b"", "is empty"),
    "mark-alone.txt": (codecs.BOM_UTF8, "is empty"),
    "blank.txt": (b" \n\t\n", "is empty"),
    "header.csv": (b"text\n", "holds no rows"),
    "latin.txt": ("caf\u00e9 ".encode("latin-1") * 99, "UTF-8"),
    "latin.jsonl": (b'{"text": "caf\xe9"}', "line 1"),
    "no-mark.txt": (PROSE.encode("utf-16-le"), "null characters"),
    "nulls.txt": (b"w4 w5\0w6", "null characters"),
    "cut.txt": (codecs.BOM_UTF16_LE + PROSE.encode("utf-16-le")[:-1], "UTF-16"),
    "surrogate.jsonl": (
        b'{"text": "w4"}\n{"text": "w4 \\ud800 w5"}\n',
        "row 1 of column 'text' holds half a character",
    ),
    "half.jsonl": (b'{"text": "w4"}\n{"text": "w', "line 2"),
    "list.jsonl": (b"[1, 2]\n", "row 0 is"),
    "number.jsonl": (b'{"text": 1}\n', "row 0 of column 'text' is 1"),
    "null.jsonl": (b'{"text": "w4"}\n{"text": null}\n', "row 1 of column 'text' is None"),
    "missing.jsonl": (b'{"text": "w4"}\n{"body": "w4"}\n', "row 1 of column 'text' is None"),
    "column.csv": (b"a;b\n1;2\n", "no column 'text'"),
    "open.csv": (b'text\n"never closed\n', "CSV"),
    "short.csv": (b"n,text\n1,w4 w5\n2\n", "row 1"),
    "deep.jsonl": (b"[" * 100_000, "line 1"),
    "digits.jsonl": (b'{"text": ' + b"9" * 5000 + b"}", "line 1"),
    "numbers.parquet": (parquet({"text": [1, 2]}), "row 0 of column 'text' is 1"),
    "lists.parquet": (parquet({"text": [["a"], ["b"]]}), "not text"),
    "bytes.parquet": (parquet({"text": [b"\xff", b"a"]}), "not text"),
    "other.parquet": (parquet({"body": ["a"]}), "it has body"),
    "none.parquet": (parquet({"text": pa.array([], pa.string())}), "no rows"),
    "cut.parquet": (RIGHT["rows.parquet"][:-7], "parquet"),
    "rows.parquet.gz": (gzip.compress(RIGHT["rows.parquet"]), "cannot be read"),
    "cut.jsonl.gz": (RIGHT["packed.jsonl.gz"][:-9], "cannot be read"),
    "plain.txt.gz": (b"w4 w5", "cannot be read"),
    "broken.txt.gz": (
        RIGHT_PROSE["packed.txt.gz"][:30] + b"\0\0\0\0" + RIGHT_PROSE["packed.txt.gz"][34:],
        "cannot be read",
    ),
    "book.docx": (b"PK", "kind '.docx'"),
    "nothing": (b"w4", "kind ''"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_used_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(WRONG[name][0])
    with pytest.raises(DataError) as caught:
        samples(path, tmp_path / "cache")
    one_line(caught.value)
    assert str(path) in str(caught.value)
    assert WRONG[name][1] in str(caught.value)
    assert not accepted(path, tmp_path / "cache")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder; give a \.txt"):
        samples(tmp_path, tmp_path / "cache")


# --- what a file may become by accident


def flipped(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randint(1, 8)):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    return bytes(changed)


def cut(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data))]


def dropped(data: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(data))
    return data[:start] + data[start + generator.randint(1, 200) :]


def inserted(data: bytes, generator: random.Random) -> bytes:
    pieces = (
        b"\0",
        b"\xff\xfe",
        codecs.BOM_UTF8,
        b"\r",
        b"\\ud83d",
        b'"',
        b"}",
        b",",
        b"\n\n",
        b"\xed\xa0\x80",
        b"\xe9",
    )
    start = generator.randrange(len(data))
    return data[:start] + generator.choice(pieces) * generator.randint(1, 3) + data[start:]


def renamed(data: bytes, generator: random.Random) -> bytes:
    """The bytes of another kind of file under this name."""
    return generator.choice([*RIGHT.values(), *RIGHT_PROSE.values()])


def long_line(data: bytes, generator: random.Random) -> bytes:
    """One line of many kilobytes."""
    return b'{"text": "' + b"w4 w5 " * generator.randint(5_000, 20_000) + b'"}'


CHANGES = (flipped, cut, dropped, inserted, renamed, long_line)
SEEDS = range(12)


@pytest.mark.parametrize("name", [*RIGHT, *RIGHT_PROSE])
def test_a_changed_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    """27 files, 12 changes of each: 324 inputs."""
    data = {**RIGHT, **RIGHT_PROSE}[name]
    for seed in SEEDS:
        generator = random.Random(f"{name}-{seed}")
        path = tmp_path / str(seed) / name
        path.parent.mkdir()
        path.write_bytes(CHANGES[seed % len(CHANGES)](data, generator))
        accepted(path, tmp_path / "cache")


@pytest.mark.slow
def test_a_line_of_a_hundred_megabytes(tmp_path: Path) -> None:
    """Read, and compared with evaluation text; tokenising it is the tokenizer's affair."""
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"text": "' + b"w4 w5 w6 " * 11_000_000 + b'"}')
    texts = read_texts(path, "text", "calibration.field")
    assert [len(text) for text in texts] == [99_000_000]
    assert leaked(texts, EXCLUDED) == []
