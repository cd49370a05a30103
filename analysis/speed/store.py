"""`benchmark_results.db`: every measurement with all its settings and its source, for SQL; this is its only writer.

Tables (unit and meaning of every column stand in table `columns`, too):

    measurements  one row per cell and phase: source, sizes, speed, spread, memory, the imported row as JSON
    samples       one row per timed pass: measurement, round, seconds, tokens_per_s
    settings      one row per measurement and setting: measurement, name, value (JSON)
    sources       one row per source: versions, machine and commit, as JSON
    models        one row per variant of a benchmark folder: counts and bytes, as JSON in `facts`
    loads         one row per load in a process of its own
    columns       table, column, unit, meaning
"""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from secateur.analysis.speed.measurements import CELL_COLUMNS, SETTING, Speeds
from secateur.pruning.files import dumps, write_atomic

DATABASE = "benchmark_results.db"
SCHEMA_VERSION = 1
REAL = (
    "seconds",
    "tokens_per_s",
    "sd",
    "cv",
    "first_token_s",
    "memory_bytes",
    "host_peak_bytes",
    "device_peak_bytes",
)
WHOLE = ("place", "n_prompt", "n_gen", "batch", "largest", "n", "tokens")
TYPES: dict[str, str] = {**dict.fromkeys(REAL, "REAL"), **dict.fromkeys(WHOLE, "INTEGER")}
MEANING: dict[str, tuple[str, str]] = {
    "source": ("", "benchmark folder or imported file"),
    "place": ("", "number of the variant in its sweep, or line of the imported file"),
    "tool": ("", "what measured"),
    "model": ("", "name of the (dense) model"),
    "subject": ("", "name in the reports: the model, its pruning or its run"),
    "phase": ("", "prefill, decode, or both in one time"),
    "n_prompt": ("tokens", "prompt length, or context before the decoding"),
    "n_gen": ("tokens", "decode steps"),
    "batch": ("sequences", "sequences at once"),
    "largest": ("", "1 when the batch is the largest that fitted"),
    "n": ("passes", "timed passes"),
    "tokens": ("tokens", "tokens of one pass, all sequences together"),
    "seconds": ("s", "time of the median pass (of the mean pass where a source gives only that)"),
    "tokens_per_s": ("tokens/s", "throughput of that pass"),
    "sd": ("tokens/s", "sample standard deviation of the passes (ddof = 1)"),
    "cv": ("share", "the same over the mean"),
    "first_token_s": ("s", "median time until the host has the first token (prefill only)"),
    "memory_bytes": ("bytes", "weights and the largest growth of memory during a pass"),
    "host_peak_bytes": ("bytes", "largest resident memory of the whole process during a pass"),
    "device_peak_bytes": ("bytes", "largest memory of the accelerator's allocator during a pass"),
    "started": ("", "start of the sweep or of the test, ISO 8601"),
    "raw": ("", "the imported row(s) as JSON, every column kept"),
}
OTHERS = (
    ("samples", "measurement", "", "row of measurements (measurements.id)"),
    ("samples", "round", "", "repetition, from 0"),
    ("samples", "seconds", "s", "time of the pass"),
    ("samples", "tokens_per_s", "tokens/s", "throughput of the pass"),
    ("settings", "measurement", "", "row of measurements (measurements.id)"),
    ("settings", "name", "", "dotted key, or column of the imported table"),
    ("settings", "value", "", "JSON"),
    ("sources", "source", "", "benchmark folder or imported file"),
    ("sources", "provenance", "", "versions, machine and commit, as JSON; null where the rows say it (raw)"),
    ("models", "source", "", "benchmark folder"),
    ("models", "place", "", "number of the variant in its sweep"),
    ("models", "facts", "", "parameters, bytes, widths and attention of each layer, as JSON"),
    ("loads", "entry", "", "seconds and bytes of one load, as JSON"),
)


def write_store(path: Path, speeds: Speeds) -> None:
    """Build the database anew beside `path` and rename it into place; readers never see half of it."""

    def fill(temporary: Path) -> None:
        connection = sqlite3.connect(temporary)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        with connection:
            _tables(connection)
            _fill(connection, speeds)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    write_atomic(path, fill)


def _tables(connection: sqlite3.Connection) -> None:
    columns = ", ".join(f"{name} {TYPES.get(name, 'TEXT')}" for name in CELL_COLUMNS)
    for statement in (
        f"CREATE TABLE measurements (id INTEGER PRIMARY KEY, {columns})",
        "CREATE TABLE samples (measurement INTEGER REFERENCES measurements, round INTEGER, seconds REAL, "
        "tokens_per_s REAL)",
        "CREATE TABLE settings (measurement INTEGER REFERENCES measurements, name TEXT, value TEXT, "
        "PRIMARY KEY (measurement, name))",
        "CREATE TABLE sources (source TEXT PRIMARY KEY, provenance TEXT)",
        "CREATE TABLE models (source TEXT, place INTEGER, facts TEXT, PRIMARY KEY (source, place))",
        "CREATE TABLE loads (entry TEXT)",
        'CREATE TABLE columns ("table" TEXT, "column" TEXT, unit TEXT, meaning TEXT)',
        "CREATE INDEX samples_measurement ON samples (measurement)",
        "CREATE INDEX settings_name ON settings (name, value)",
    ):
        connection.execute(statement)


def _fill(connection: sqlite3.Connection, speeds: Speeds) -> None:
    def insert(table: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608  (our own names)

    cells = speeds.cells
    insert("measurements", [
        (place, *(sql(value) for value in row))
        for place, row in enumerate(cells[list(CELL_COLUMNS)].itertuples(index=False, name=None))
    ])  # fmt: skip
    names = [name for name in cells.columns if name.startswith(SETTING)]
    given = cells[names].notna()
    insert("settings", [
        (place, name.removeprefix(SETTING), json.dumps(sql(value, whole=False), ensure_ascii=False))
        for name in names
        for place, (value, known) in enumerate(zip(cells[name], given[name], strict=True))
        if known
    ])  # fmt: skip
    samples = speeds.samples
    insert("samples", [tuple(sql(v) for v in row) for row in samples.itertuples(index=False, name=None)])
    names_of = [str(name) for name in cells["source"].unique()]
    known = {name: speeds.sources.get(name) for name in names_of}
    insert("sources", [(name, None if v is None else dumps(v, indent=None)) for name, v in known.items()])
    insert(
        "models",
        [(key[0], key[1], dumps(f.model_dump(mode="json"), indent=None)) for key, f in speeds.facts.items()],
    )
    insert("loads", [(dumps({k: sql(v, whole=False) for k, v in row.items()}, indent=None),)
                     for row in speeds.loads.to_dict("records")])  # fmt: skip
    insert("columns", [("measurements", name, *MEANING[name]) for name in CELL_COLUMNS])
    insert("columns", list(OTHERS))


def sql(value: Any, *, whole: bool = True) -> Any:
    """A value as SQLite takes it: no numpy type, None for NaN; booleans as 0 and 1 when `whole`."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return int(value) if isinstance(value, bool) and whole else value
