"""The tidy table of facts: one row per number, with its file, row, column, time, value and unit."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as arrow_parquet

from secateur.analysis.insight.datasets import TIME, Dataset
from secateur.analysis.insight.tables import FILE, ROW
from secateur.pruning.files import write_atomic

SCHEMA = pa.schema([
    ("file", pa.dictionary(pa.int32(), pa.string())), ("dataset", pa.dictionary(pa.int32(), pa.string())),
    ("row", pa.int64()), ("column", pa.dictionary(pa.int32(), pa.string())), ("time", pa.string()),
    ("value", pa.float64()), ("unit", pa.dictionary(pa.int32(), pa.string())),
])  # fmt: skip


def parts(datasets: list[Dataset]) -> Iterator[pd.DataFrame]:
    """The facts of each numeric column."""
    for data in datasets:
        for name, column in data.columns.items():
            if not pd.api.types.is_numeric_dtype(data.frame[name].dtype):
                continue
            values = data.frame[name].to_numpy(dtype=np.float64)
            keep = np.isfinite(values)
            rows = data.frame.loc[keep, [FILE, ROW, TIME]]
            unit = column.unit.name if column.unit is not None else ""
            yield pd.DataFrame({
                "file": rows[FILE], "dataset": data.name, "row": rows[ROW], "column": name,
                "time": rows[TIME].astype("object"), "value": values[keep], "unit": unit,
            })  # fmt: skip


def write_facts(path: Path, datasets: list[Dataset]) -> int:
    """Write `facts.parquet`; returns how many facts it holds."""
    count = 0

    def fill(temporary: Path) -> None:
        nonlocal count
        with arrow_parquet.ParquetWriter(temporary, SCHEMA) as writer:
            for part in parts(datasets):
                count += len(part)
                writer.write_table(pa.Table.from_pandas(part, SCHEMA, preserve_index=False))

    write_atomic(path, fill)
    return count
