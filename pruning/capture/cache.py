"""The capture cache: content-addressed, whole or absent, one computation however many processes ask."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from secateur.pruning.capture.result import FACTS, Capture
from secateur.pruning.capture.views import Level
from secateur.pruning.files import clear_leftovers

log = logging.getLogger(__name__)


class CaptureCache:
    """Captures of one (model, text, size) below `folder`; each entry is a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, level: Level, samples: int, prior: str, share: float) -> Capture | None:
        """A stored capture that serves a run with these needs, the cheapest to read first.

        Raises:
            StorageError: An entry is damaged.
        """
        entries = sorted(self.folder.glob("*/" + FACTS)) if self.folder.is_dir() else []
        for entry in entries:
            if entry.parent.name.startswith("."):
                continue
            capture = Capture.load(entry.parent)
            if capture.has(level, samples, prior, share):
                return capture
        return None

    def put(self, capture: Capture) -> None:
        """Store a capture under what it contains."""
        priors = "".join(kind[0] for kind in ("loss", "cosine", "gate") if capture.priors(kind) is not None)
        points = "-".join(str(n) for n in capture.snapshots)
        capture.save(self.folder / f"level{int(capture.level)}-{points}-{priors or 'none'}")

    @contextmanager
    def alone(self) -> Generator[None]:
        """Hold the right to compute: other processes wait here. The lock of a killed process is free again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            yield

    def get(self, find: Callable[[], Capture | None], compute: Callable[[], Capture]) -> tuple[Capture, bool]:
        """Find, or compute and store. Returns the capture and whether it was found."""
        found = find()
        if found is not None:
            return found, True
        with self.alone():
            found = find()  # another process may have stored it meanwhile
            if found is not None:
                return found, True
            clear_leftovers(self.folder)
            capture = compute()
            self.put(capture)
            return capture, False
