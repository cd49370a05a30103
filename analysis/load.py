"""Run folders in, `Runs` out: every `record.json` and `failed.json` below a directory, none dropped in silence."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportGeneralTypeIssues=false

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.model_names import Origin
from secateur.analysis.parallel import fork_map
from secateur.analysis.rows import check, layer_values, origin_of, row_of
from secateur.analysis.runset import INVALID, LAYER_COLUMNS, VALID, Runs, complete, empty_layers, join
from secateur.eval.record import FAILED, RECORD, RunRecord
from secateur.pruning.errors import DataError

CHUNK = 4000
"""Records turned into columns at a time, so that memory grows with the columns and not with the objects."""
SEVERAL = 3
"""From this number of chunks on, several processes read."""


def record_paths(directory: Path) -> Iterator[Path]:
    """The record of every run folder below a directory, sorted; a finished record wins over an older failure."""
    for root, folders, files in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if RECORD in files:
            yield Path(root, RECORD)
        elif FAILED in files:
            yield Path(root, FAILED)


def load_runs(directory: Path) -> Runs:
    """Read all run folders below a directory.

    Raises:
        DataError: The directory does not exist or holds no record at all.
    """
    if not directory.is_dir():
        raise DataError(f"runs={directory}: no such directory. Give the `out=DIR` of your runs.")
    paths = list(record_paths(directory))
    if not paths:
        raise DataError(
            f"runs={directory}: holds no {RECORD} and no {FAILED}. Is it the `out=DIR` of your runs?"
        )
    parts = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    return join(fork_map(lambda place: _read(parts[place]), len(parts), SEVERAL))


def _read(paths: list[Path]) -> Runs:
    builder = Builder()
    for path in paths:
        builder.add_file(path)
    return builder.finish()


def from_records(records: list[RunRecord] | tuple[RunRecord, ...], source: str = "memory") -> Runs:
    """Make `Runs` of records that are in memory already."""
    builder = Builder()
    for record in records:
        builder.add(record.model_dump(mode="json"), f"{source}/{record.run_id}")
    return join([builder.finish()])


class Builder:
    """Collects records into columns, a chunk at a time."""

    def __init__(self) -> None:
        self.count = 0
        self._rows: list[dict[str, Any]] = []
        self._frames: list[pd.DataFrame] = []
        self._layers: list[np.ndarray] = []
        self._protocols: dict[str, dict[str, Any]] = {}
        self._origins: dict[str, Origin] = {}

    def add_file(self, path: Path) -> None:
        """Read one record; a damaged one becomes an invalid row that names the damage."""
        try:
            self.add(json.loads(path.read_bytes()), str(path))
        except (OSError, ValueError, DataError, KeyError, TypeError, AttributeError) as error:
            reason = f"damaged record: {type(error).__name__ if isinstance(error, KeyError) else ''}{error}"
            self._append({
                "run_id": path.parent.name, "identity": path.parent.name, "source": str(path), "kind": "pruned",
                "state": INVALID, "reason": reason,
            })  # fmt: skip

    def add(self, raw: Any, source: str) -> None:
        """Add one record, as its JSON reads."""
        record = check(raw)
        row, name, protocol = row_of(record, source)
        self._origins.setdefault(row["model_key"], origin_of(record))
        values = layer_values(record)
        if name not in self._protocols:
            self._protocols[name] = protocol
        if values is not None:
            self._layers.append(np.column_stack([np.full(len(values), self.count, dtype=np.float64), values]))
        self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        self.count += 1
        self._rows.append(row)
        if len(self._rows) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._frames.append(_columns(self._rows))
            self._rows = []
            if len(self._layers) > 1:
                self._layers = [np.concatenate(self._layers)]

    def finish(self) -> Runs:
        """All that was added, as `Runs`."""
        self._flush()
        frame = (
            complete(pd.concat(self._frames, ignore_index=True)) if self._frames else complete(pd.DataFrame())
        )
        layers = empty_layers()
        if self._layers:
            layers = pd.DataFrame(np.concatenate(self._layers), columns=["row", *LAYER_COLUMNS])
            layers = layers.astype(
                {"row": "int64", "layer": "int16"} | dict.fromkeys(LAYER_COLUMNS[1:], "float32")
            )
        return Runs(
            frame=check_accuracy(frame), layers=layers, protocols=self._protocols, origins=self._origins
        )


def _columns(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame, column by column (several times faster than pandas' own way from dicts)."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in names})


def check_accuracy(frame: pd.DataFrame) -> pd.DataFrame:
    """Mark finished runs without a usable mean accuracy as invalid, as the study does."""
    lacking = (frame["state"] == VALID) & ~np.isfinite(
        frame["acc_mean"].to_numpy(dtype=float, na_value=np.nan)
    )
    if not lacking.any():
        return frame
    frame = frame.copy()
    given = frame["reason"].notna() & lacking
    frame.loc[lacking & ~given, "reason"] = "acc_mean: -"
    frame.loc[lacking, "state"] = INVALID
    return frame
