"""Which files a folder holds, of which type each is, and which are left out and why."""

import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from secateur.eval.record import FAILED, RECORD

TYPES: dict[str, str] = {
    ".json": "JSON", ".jsonl": "JSONL", ".ndjson": "JSONL", ".csv": "CSV", ".tsv": "CSV", ".parquet": "parquet",
    ".sqlite": "SQLite", ".sqlite3": "SQLite", ".db": "SQLite", ".md": "Markdown", ".markdown": "Markdown",
    ".xlsx": "Excel",
}  # fmt: skip
PACKED = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".md"})
"""What is read from within a `.gz`."""
PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".npy", ".npz", ".bin"})
REPORT = ("report.html", "findings.json", "results.parquet")
CACHES = frozenset({"captures", "requests", "search", "stages", "tokens"})
"""Folders below `OUT/cache`: what runs share on their way, no results."""
BOOKKEEPING = "secateur's bookkeeping"
OURS = {"plan.json": b'"kv_groups"', "stage.json": b'"stage"', "sweep.json": b'"variants"'}
"""What secateur writes for itself beside its results, and by which words such a file is known."""
RUN = "secateur run"
MARK = "secateur insight"
"""What `insight.json` names as its writer: our own reports are never read as results."""


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        name: Path below the folder, with `/`.
        type: One of `TYPES`' values, `secateur run`, or the bare suffix.
        excluded: Why it is not read; empty when it is.
    """

    name: str
    path: Path
    type: str
    size: int
    modified: float
    excluded: str = ""


def walk(folder: Path, out: Path) -> list[Source]:
    """Every file below a folder, sorted by name; links to folders are not followed, hidden files are left out."""
    found: list[Source] = []
    parts: dict[Path, str] = {}
    out = out.resolve()
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        run = RECORD in files or FAILED in files
        part = parts[here] = parts.get(here.parent, "") or _part(here, files)
        report = _is_report(here) or here.resolve() == out
        for name in sorted(files):
            if name.startswith("."):
                continue
            path = here / name
            type_, why = _judge(path, run, report)
            why = why or (part if type_ != RUN or parts.get(here.parent) else "")
            try:
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):
                    type_, why = "special", "not a plain file"
                size, modified = status.st_size, status.st_mtime
            except OSError as error:
                size, modified, why = 0, 0.0, f"cannot be read: {error.strerror}"
            found.append(
                Source(_clean(path.relative_to(folder).as_posix()), path, type_, size, modified, why)
            )
    if any(source.type == RUN for source in found):
        found = [_derived(source) for source in found]
    return sorted(found, key=lambda source: source.name)


def _derived(source: Source) -> Source:
    """The same file, left out when `secateur analyze` made it from the runs that are read here."""
    for folder in source.path.parents[:2]:
        if all((folder / name).is_file() for name in REPORT):
            return replace(
                source, excluded=source.excluded or "made by secateur analyze from runs that are read"
            )
    return source


def _part(folder: Path, files: list[str]) -> str:
    """Why nothing at all below a folder is a result; empty when it may hold some."""
    if RECORD in files or FAILED in files:
        return "part of a secateur run, whose record is read"
    if folder.parent.name == "cache" and folder.name in CACHES:
        return "secateur's cache"
    if folder.parent.name == "grids" and (folder.name in ("_tasks", "_claims") or "plan.json" in files):
        return BOOKKEEPING
    model = "config.json" in files and any(name.endswith(".safetensors") for name in files)
    return "part of a model" if model else ""


def _judge(path: Path, run: bool, report: bool) -> tuple[str, str]:
    """Type of a file, and why it is left out."""
    suffix = path.suffix.lower()
    if suffix == ".gz" and Path(path.stem).suffix.lower() in PACKED:
        suffix = Path(path.stem).suffix.lower()
    type_ = TYPES.get(suffix, suffix.lstrip(".") or "no suffix")
    if report:
        return type_, "part of an insight report"
    if run:
        if path.name in (RECORD, FAILED):
            both = path.name == FAILED and (path.parent / RECORD).exists()
            return RUN, "an older failure of a finished run" if both else ""
        return type_, "part of a secateur run, whose record is read"
    if path.name in OURS and _holds(path, OURS[path.name]):
        return type_, BOOKKEEPING
    if suffix in PICKLES:
        return type_, "may hold pickled code, which is never loaded"
    return type_, "" if suffix in TYPES else "not a format of results"


def _holds(path: Path, word: bytes) -> bool:
    try:
        with path.open("rb") as handle:
            return word in handle.read(4096)
    except OSError:
        return False


def _is_report(folder: Path) -> bool:
    path = folder / "insight.json"
    if not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8") as handle:
            return json.dumps(MARK) in handle.read(200)
    except (OSError, UnicodeDecodeError):
        return False


def _clean(name: str) -> str:
    """A name that can be printed: bytes that are not UTF-8 and control characters become `?`."""
    name = name.encode("utf-8", "replace").decode("utf-8")
    return "".join(char if char.isprintable() else "?" for char in name)
