"""A resumable store of texts that a model wrote: one line of strict JSON each, appended as they come."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateur.pruning.files import digest, write_json

log = logging.getLogger(__name__)


def generation_keys(requests: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Key of each (prompt, generation settings)."""
    return [
        digest([prompt, {key: str(value) for key, value in settings.items()}], 32)
        for prompt, settings in requests
    ]


class Generations:
    """Texts of one model on disk, or in memory only when there is no folder.

    A line that a kill cut off is left out when the file is read, and its text is written again.
    """

    def __init__(self, folder: Path | None, identity: dict[str, Any]) -> None:
        self._path: Path | None = None
        self._known: dict[str, str] = {}
        if folder is None:
            return
        home = folder / digest(identity)
        if not (home / "identity.json").exists():
            write_json(home / "identity.json", identity)
        self._path = home / "texts.jsonl"
        whole = 0
        for line in self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else ():
            try:
                entry: Any = json.loads(line)
                key, text = entry["key"], entry["text"]
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            self._known[str(key)] = str(text)
            whole += len(line)
        if self._path.exists() and whole < self._path.stat().st_size:
            log.warning("%s: its end is damaged; those texts are generated again", self._path)
            with self._path.open("r+b") as handle:
                handle.truncate(whole)

    def get(self, key: str) -> str | None:
        """The text of a request, where it is known."""
        return self._known.get(key)

    def add(self, keys: Sequence[str], texts: Sequence[str], *, keep: bool = True) -> None:
        """Know texts from now on; `keep` them on disk too (one process of several does)."""
        self._known.update(zip(keys, texts, strict=True))
        if self._path is not None and keep:
            lines = [json.dumps({"key": key, "text": text}) for key, text in zip(keys, texts, strict=True)]
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write("".join(f"{line}\n" for line in lines))
