"""Benchmark folders in, measurements out: every `sweep.json` below a directory with its journal."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.speed.measurements import DECODE, PREFILL, SETTING, Speeds, join, make
from secateur.eval.speed.journal import (
    JOURNAL,
    SWEEP,
    Entry,
    Facts,
    Failed,
    Load,
    Roof,
    Sample,
    read_journal,
    read_sweep,
)
from secateur.pruning.errors import DataError


def bench_folders(directory: Path) -> Iterator[Path]:
    """Every benchmark folder below a directory, sorted."""
    for root, folders, files in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if SWEEP in files:
            yield Path(root)


def load_benches(directory: Path) -> Speeds:
    """Read all benchmark folders below a directory.

    Raises:
        DataError: The directory does not exist or holds no measurement.
    """
    if not directory.is_dir():
        raise DataError(f"runs={directory}: no such directory. Give the `out=DIR` of `secateur bench`.")
    parts = [load_bench(folder) for folder in bench_folders(directory)]
    parts = [part for part in parts if len(part.cells) or len(part.loads)]
    if not parts:
        raise DataError(
            f"runs={directory}: holds no speed measurement ({SWEEP} with {JOURNAL}). `secateur bench` makes them."
        )
    return join(parts)


def load_bench(folder: Path) -> Speeds:
    """Read one benchmark folder.

    Raises:
        StorageError: A file is damaged; file and line are named.
    """
    sweep = read_sweep(folder)
    entries = list(read_journal(folder / JOURNAL))
    source = str(folder)
    facts = {(source, entry.variant): entry for entry in entries if isinstance(entry, Facts)}
    rows: list[dict[str, Any]] = []
    passes: list[tuple[np.ndarray, np.ndarray]] = []
    for (variant, *_), found in _by_cell(entries).items():
        known = facts[(source, variant)]
        about = sweep.variants[variant]
        common: dict[str, Any] = {
            "source": source, "place": variant, "tool": "secateur bench", "model": about.model,
            "subject": about.subject, "started": sweep.started, "raw": None,
            **{f"{SETTING}{key}": value for key, value in about.settings.items()},
        }  # fmt: skip
        for phase in (PREFILL, DECODE):
            row, seconds = _phase(phase, found, known)
            if row:
                rows.append(common | row)
                passes.append((np.array([s.round for s in found]), seconds))
    cells, samples = make(rows, passes) if rows else (pd.DataFrame(), pd.DataFrame(columns=["cell"]))
    loads = [entry.model_dump() for entry in entries if isinstance(entry, Load)]
    for load in loads:
        about = sweep.variants[load["variant"]]
        load |= {"source": source, "model": about.model, "subject": about.subject}
        load |= {f"{SETTING}{key}": value for key, value in about.settings.items()}
    roofs = tuple((source, entry) for entry in entries if isinstance(entry, Roof))
    return Speeds(
        cells=cells, samples=samples, facts=facts, loads=pd.DataFrame(loads), roofs=roofs,
        sources={source: sweep.provenance}, notes=tuple(_notes(folder, sweep, entries)),
    )  # fmt: skip


def _by_cell(entries: list[Entry]) -> dict[tuple[int, int, int, int, bool], list[Sample]]:
    found: dict[tuple[int, int, int, int, bool], list[Sample]] = defaultdict(list)
    for s in entries:
        if isinstance(s, Sample):
            found[(s.variant, s.n_prompt, s.n_gen, s.batch, s.largest)].append(s)
    return dict(sorted(found.items()))


def _phase(phase: str, found: list[Sample], facts: Facts) -> tuple[dict[str, Any], np.ndarray]:
    """Columns of one phase of a cell, and the seconds of its passes; empty where nothing was decoded."""
    first = found[0]
    if phase == PREFILL:
        tokens, seconds = first.batch * first.n_prompt, np.array([s.prefill_s for s in found])
    elif first.n_gen and all(s.decode_s is not None for s in found):
        tokens, seconds = first.batch * first.n_gen, np.array([s.decode_s or 0.0 for s in found])
    else:
        return {}, np.array([])
    row: dict[str, Any] = {
        "phase": phase, "n_prompt": first.n_prompt, "n_gen": first.n_gen, "batch": first.batch,
        "largest": first.largest, "tokens": tokens, "memory_bytes": _memory(found, facts),
        "host_peak_bytes": _largest([s.host_peak for s in found]),
        "device_peak_bytes": _largest([s.device_peak for s in found]),
        "first_token_s": float(np.median([s.first_token_s for s in found])) if phase == PREFILL else np.nan,
    }  # fmt: skip
    return row, seconds


def _largest(values: list[int | None]) -> float:
    known = [value for value in values if value is not None]
    return float(max(known)) if known else float("nan")


def _memory(found: list[Sample], facts: Facts) -> float:
    """Weights and what the pass took on top of what was there before it, the largest of the passes; bytes."""
    extra: list[int] = []
    for s in found:
        before, peak = (
            (s.device_before, s.device_peak) if s.device_peak is not None else (s.host_before, s.host_peak)
        )
        if before is not None and peak is not None:
            extra.append(peak - before)
    return float(facts.weight_bytes + max(0, *extra, 0)) if extra else float("nan")


def _length(cell: str) -> int:
    """Prompt and output of a cell by its name, tokens."""
    prompt, gen, _ = cell.split("x", 2)
    return int(prompt) + int(gen)


def _notes(folder: Path, sweep: Any, entries: list[Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted = sum(len(v.cells) for v in sweep.variants) * sweep.repetitions
    taken = sum(isinstance(entry, Sample) for entry in entries)
    failed = [entry for entry in entries if isinstance(entry, Failed)]
    if taken < wanted and not failed:
        yield "incomplete", {"source": folder.name, "taken": taken, "wanted": wanted}
    for entry in failed:
        about = sweep.variants[entry.variant]
        yield "failed", {"subject": about.subject, "cell": entry.cell, "reason": entry.reason}
    left = {v.model: (len(v.left_out), v.context) for v in sweep.variants if v.left_out}
    for model, (count, context) in left.items():
        yield "left_out", {"model": model, "n": count, "context": context}
    past = sorted(
        {v.model for v in sweep.variants if any(_length(cell) > (v.context or 2**62) for cell in v.cells)}
    )
    if past:
        yield "beyond", {"models": ", ".join(past)}
