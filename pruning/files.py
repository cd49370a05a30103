"""Files that are either whole or absent: atomic writes, strict JSON, content digests."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateur.pruning.errors import StorageError

TEMPORARY = ".tmp"
"""How the names of files and folders end that are being written."""


def strict(value: Any) -> Any:
    """Return `value` with every non-finite float as None, so that the JSON is strict."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    return value


def dumps(value: Any, *, indent: int | None = 1) -> str:
    """Serialise to strict JSON (no NaN tokens; keys keep their order)."""
    return json.dumps(strict(value), indent=indent, ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """Serialise to the one JSON text that digests are taken of (sorted keys, no spaces)."""
    return json.dumps(
        strict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any, length: int = 16) -> str:
    """SHA-256 of the canonical JSON of `value`, the first `length` hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def file_digest(path: Path, length: int = 16) -> str:
    """SHA-256 of a file's bytes, the first `length` hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:length]


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it into place."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        _flush(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error}. Free some space or choose another `out=DIR`."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically."""
    text = dumps(value) + "\n"

    def fill(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomic(path, fill)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: The file is missing or not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(
            f"{path} is damaged ({error}). Delete it and run the same command again."
        ) from error


@contextmanager
def new_directory(final: Path) -> Generator[Path]:
    """Give a temporary directory that becomes `final` when the block ends without an error.

    When another process has put `final` there meanwhile, its version stays and ours is dropped.
    """
    temporary: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=TEMPORARY, dir=final.parent))
        yield temporary
        for item in temporary.rglob("*"):
            if item.is_file():
                _flush(item)
        temporary.chmod(0o755)
        try:
            temporary.rename(final)
        except OSError as error:
            if not final.is_dir():
                raise StorageError(f"cannot create {final}: {error}") from error
    except OSError as error:
        raise StorageError(
            f"cannot write {final}: {error}. Free some space or choose another folder."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Delete what killed writers left in a folder. Call it only while no other process writes there."""
    for path in folder.glob(f".*{TEMPORARY}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Force a file's bytes to the disk, so that a rename never exposes an empty file."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
