"""The results table for other tools: parquet, SQLite and CSV, columns documented in each."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

import sqlite3
from pathlib import Path

import pandas as pd

from secateur.analysis.document import Table
from secateur.analysis.formats import about
from secateur.analysis.runset import LAYER_COLUMNS, Runs
from secateur.pruning.files import write_atomic

MOST_LAYERS = 1_000_000
"""Above this number of rows the layers are in `layers.parquet` alone: SQLite would take as long as the analysis."""
SLICE = 50_000
"""Rows handed to SQLite at a time."""
LAYER_MEANING = {
    "run_id": ("", "name of the run"),
    "layer": ("", "index of the decoder layer in the dense model"),
    "kept_attention": ("share", "share of the KV groups kept"),
    "kept_mlp": ("share", "share of the MLP channels kept"),
    "grad_mean": ("", "mean abs(gradient) of the layer"),
    "grad_norm": ("", "L2 norm of the layer's gradient"),
    "grad_std": ("", "standard deviation of the layer's gradient"),
    "grad_max": ("", "largest abs(gradient) of the layer"),
}


def results_table(runs: Runs) -> pd.DataFrame:
    """One row per run of every state; columns without a single value are left out."""
    frame = runs.frame.dropna(axis=1, how="all")
    for name in frame.columns:
        if frame[name].dtype == object:
            frame = frame.assign(**{name: _one_type(frame[name])})
    return frame


def _one_type(values: pd.Series) -> pd.Series:
    """A column of mixed objects as numbers where all are, else as text."""
    numbers = pd.to_numeric(values, errors="coerce")
    if (numbers.notna() == values.notna()).all() and not values.map(lambda v: isinstance(v, bool)).any():
        return numbers
    return values.map(lambda value: None if value is None or pd.isna(value) else str(value)).astype("str")


def layers_table(runs: Runs) -> pd.DataFrame:
    """One row per run and decoder layer."""
    table = runs.layers.copy()
    table.insert(0, "run_id", runs.frame["run_id"].to_numpy()[table.pop("row").to_numpy(dtype=int)])
    return table


def column_docs(results: pd.DataFrame) -> pd.DataFrame:
    """Unit and meaning of every column of the exported tables."""
    rows = [
        ("results", str(name), about(str(name))["unit"], about(str(name))["meaning"])
        for name in results.columns
    ]
    rows += [("layers", name, *LAYER_MEANING[name]) for name in ("run_id", *LAYER_COLUMNS)]
    return pd.DataFrame(rows, columns=["table", "column", "unit", "meaning"])


def write_layers(path: Path, runs: Runs) -> None:
    """Write `layers.parquet`: one row per run and decoder layer."""
    write_atomic(path, lambda temporary: layers_table(runs).to_parquet(temporary, index=False))


def write_parquet(path: Path, results: pd.DataFrame) -> None:
    """Write `results.parquet`; unit and meaning of each column are in the field metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(results, preserve_index=False)
    fields = [
        field.with_metadata({key: about(field.name)[key] for key in ("unit", "meaning")})
        for field in table.schema
    ]
    table = table.cast(pa.schema(fields, metadata={b"writer": b"secateur analyze", b"schema_version": b"1"}))
    write_atomic(path, lambda temporary: pq.write_table(table, temporary))


def write_sqlite(path: Path, runs: Runs, results: pd.DataFrame) -> None:
    """Write `results.sqlite` with the tables `results`, `layers` and `columns`; this command is its only writer."""

    def fill(temporary: Path) -> None:
        connection = sqlite3.connect(temporary)
        with connection:
            _insert(connection, "results", results)
            if len(runs.layers) <= MOST_LAYERS:
                _insert(connection, "layers", layers_table(runs))
            _insert(connection, "columns", column_docs(results))
            connection.execute("CREATE UNIQUE INDEX results_row ON results (source)")
            connection.execute("CREATE INDEX results_run ON results (run_id)")
        connection.close()

    write_atomic(path, fill)


def _insert(connection: sqlite3.Connection, name: str, frame: pd.DataFrame) -> None:
    """Create a table from a frame: numbers as REAL or INTEGER, the rest as TEXT, absent values as NULL.

    SQLite has no NaN; it stores infinities.
    """
    kinds = {"f": "REAL", "i": "INTEGER", "b": "INTEGER"}
    columns = ", ".join(
        f'"{column}" {kinds.get(frame[column].dtype.kind, "TEXT")}' for column in frame.columns
    )
    connection.execute(f'CREATE TABLE "{name}" ({columns})')
    marks = ", ".join("?" * frame.shape[1])
    for start in range(0, len(frame), SLICE):
        part = frame.iloc[start : start + SLICE]
        values = [
            part[column].astype(object).where(part[column].notna(), None).tolist() for column in part.columns
        ]
        connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', zip(*values, strict=True))  # noqa: S608  (names of our own)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a CSV file with full precision (UTF-8 with a mark, so that spreadsheets read it)."""
    write_atomic(path, lambda temporary: frame.to_csv(temporary, index=False, encoding="utf-8-sig"))


def write_tables(folder: Path, tables: list[Table]) -> list[Path]:
    """One CSV per table of the report."""
    for table in tables:
        write_csv(
            folder / f"{table.name}.csv", table.frame.map(_flat) if len(table.frame) < 5000 else table.frame
        )
    return [folder / f"{table.name}.csv" for table in tables]


def _flat(value: object) -> object:
    return "; ".join(str(item) for item in value) if isinstance(value, tuple | list) else value
