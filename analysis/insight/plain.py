"""Any text file as UTF-8 without compression: `.gz` is unpacked, UTF-16 recoded, into a temporary file."""

import codecs
import gzip
import tempfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 1 << 20
LARGEST = 4 << 30
"""Bytes that a compressed file may unpack to."""
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
TEXTS = frozenset({"CSV", "JSON", "JSONL", "Markdown"})


class UnreadableError(Exception):
    """A file that cannot be read; the message is the reason."""


@contextmanager
def plain(path: Path, kind: str) -> Generator[Path]:
    """The file as its reader wants it: itself, or a temporary copy.

    Raises:
        UnreadableError: The file is damaged, or unpacks to more than it may.
    """
    packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if packed else path.open("rb") as handle:
        try:
            head = handle.read(4)
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableError(f"not a gzip file ({error})") from error
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), "") if kind in TEXTS else ""
    if not packed and not encoding:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="insight-") as folder:
        copy = Path(folder) / (path.stem if packed else path.name)
        with copy.open("wb") as target:
            for block in _recoded(_blocks(path, packed), encoding):
                target.write(block)
        yield copy


def _blocks(path: Path, packed: bool) -> Iterator[bytes]:
    size = 0
    with gzip.open(path) if packed else path.open("rb") as handle:
        try:
            while block := handle.read(BLOCK):
                size += len(block)
                if size > LARGEST:
                    raise UnreadableError(f"unpacks to more than {LARGEST >> 30} GiB")
                yield block
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableError(f"a damaged gzip file ({error})") from error


def _recoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    if not encoding:
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in blocks:
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise UnreadableError(f"not {encoding.upper()} text, as its first bytes say ({error})") from error
