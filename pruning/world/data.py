"""Write the task sets and the held-out text, and the manifest that says what they must be."""

import hashlib
import json
from pathlib import Path
from typing import Any

from secateur.pruning.world.tasks import SPLITS, Row, task_rows
from secateur.pruning.world.text import held_out_documents

TEXT_FILE = "text/world/test.jsonl"
MANIFEST = "manifest.json"


def files() -> dict[str, list[Row]]:
    """Build every data file in memory: path within the data folder -> rows."""
    built = {f"tasks/{task}/{split}.jsonl": task_rows(task) for task, split in SPLITS.items()}
    built[TEXT_FILE] = [{"text": text} for text in held_out_documents()]
    return built


def canonical(rows: list[Row]) -> str:
    """Write rows as JSON lines in the one form that is hashed: sorted keys, no spaces, UTF-8."""
    lines = [
        json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        for row in rows
    ]
    return "".join(f"{line}\n" for line in lines)


def manifest(built: dict[str, list[Row]]) -> dict[str, Any]:
    """Return how many rows each file has and the sha256 of its canonical form."""
    return {
        path: {"rows": len(rows), "sha256": hashlib.sha256(canonical(rows).encode()).hexdigest()}
        for path, rows in sorted(built.items())
    }


def write(folder: Path) -> dict[str, Any]:
    """Write all data files and their manifest into a folder.

    Args:
        folder: The data folder; made where it is missing.

    Returns:
        The manifest.
    """
    built = files()
    for path, rows in built.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(canonical(rows), encoding="utf-8", newline="\n")
    listed = manifest(built)
    text = json.dumps(listed, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    return listed
