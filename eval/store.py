"""A resumable store of log-likelihoods: what was computed for a model is never computed again.

One folder per (model identity, everything else that changes a value); in it segments, each written by rename,
so a killed process leaves only whole ones. Values are keyed by the request's text, so another task list or
limit reuses what is there.
"""

import hashlib
import logging
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from secateur.pruning.files import digest, write_atomic, write_json

log = logging.getLogger(__name__)

KEY = np.dtype("S32")
FLUSH_SECONDS = 15.0
MERGE_ABOVE = 8


def request_keys(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Key of each (context, continuation): 128 bits of BLAKE2b as 32 hex digits [R]."""
    result = np.empty(len(pairs), dtype=KEY)
    for i, (context, continuation) in enumerate(pairs):
        head = context.encode("utf-8", "surrogatepass")
        state = hashlib.blake2b(len(head).to_bytes(8, "little"), digest_size=16)
        state.update(head)
        state.update(continuation.encode("utf-8", "surrogatepass"))
        result[i] = state.hexdigest().encode()
    return result


class Store:
    """Log-likelihoods of one model on disk, or in memory only when there is no folder.

    Attributes:
        flush_seconds: Longest time that computed values stay unsaved.
    """

    def __init__(
        self, folder: Path | None, identity: dict[str, Any], *, flush_seconds: float = FLUSH_SECONDS
    ) -> None:
        self.folder = None if folder is None else folder / digest(identity)
        self.flush_seconds = flush_seconds
        self._known: dict[bytes, tuple[float, bool]] = {}
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._saved = time.monotonic()
        self._known_paths: set[Path] = set()
        if self.folder is not None:
            if not (self.folder / "identity.json").exists():
                write_json(self.folder / "identity.json", identity)
            for path in self._segments():
                self._read(path)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look requests up.

        Returns:
            found [R] bool, log-likelihood [R] float64 (0 where not found), greedy [R] bool.
        """
        found = np.zeros(len(keys), dtype=bool)
        values = np.zeros(len(keys), dtype=np.float64)
        greedy = np.zeros(len(keys), dtype=bool)
        if self._known:
            for i, key in enumerate(keys.tolist()):
                entry = self._known.get(key)
                if entry is not None:
                    found[i], values[i], greedy[i] = True, *entry
        return found, values, greedy

    def add(self, keys: np.ndarray, values: np.ndarray, greedy: np.ndarray) -> None:
        """Keep computed values; they reach the disk within `flush_seconds` (or at `flush`)."""
        self._remember(keys, values, greedy)
        self._pending.append((keys, values, greedy))
        if time.monotonic() - self._saved >= self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one new segment."""
        self._saved = time.monotonic()
        if not self._pending or self.folder is None:
            self._pending = []
            return
        parts = [np.concatenate(column) for column in zip(*self._pending, strict=True)]
        name = hashlib.blake2b(parts[0].tobytes(), digest_size=8).hexdigest()
        path = self.folder / f"segment-{name}.npz"
        _write(path, *parts)
        self._known_paths.add(path)
        self._pending = []

    def merge(self) -> None:
        """Flush, and replace many small segments by one."""
        self.flush()
        if self.folder is None:
            return
        old = self._known_paths  # never what another process wrote meanwhile
        if len(old) <= MERGE_ABOVE:
            return
        keys = np.array(list(self._known), dtype=KEY)
        values = np.array([value for value, _ in self._known.values()], dtype=np.float64)
        greedy = np.array([flag for _, flag in self._known.values()], dtype=bool)
        target = self.folder / "segment-merged.npz"
        _write(target, keys, values, greedy)
        for path in old - {target}:
            path.unlink(missing_ok=True)
        self._known_paths = {target}

    def _segments(self) -> list[Path]:
        assert self.folder is not None
        return sorted(self.folder.glob("segment-*.npz"))

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as data:
                keys, values, greedy = data["keys"], data["values"], data["greedy"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s is damaged (%s); its requests are computed again", path, error)
            path.unlink(missing_ok=True)
            return
        self._known_paths.add(path)
        self._remember(keys, values, greedy)

    def _remember(self, keys: np.ndarray, values: np.ndarray, greedy: np.ndarray) -> None:
        pairs = zip(values.tolist(), greedy.tolist(), strict=True)
        self._known.update(zip(keys.astype(KEY).tolist(), pairs, strict=True))


def _write(path: Path, keys: np.ndarray, values: np.ndarray, greedy: np.ndarray) -> None:
    def fill(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            np.savez(handle, keys=keys, values=values, greedy=greedy)

    write_atomic(path, fill)
