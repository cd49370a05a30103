"""Run records of secateur as one table: the columns of the analysis package."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.factors import find_factors
from secateur.analysis.insight.tables import FILE, Gather, Table
from secateur.analysis.insight.walk import RUN, Source
from secateur.analysis.load import Builder
from secateur.analysis.protocol import choose_perplexity, separate
from secateur.analysis.runset import DUPLICATE, INVALID, STATES, VALID, join
from secateur.analysis.runset import FAILED as STOPPED
from secateur.eval.config import TASKS

MEASURES = (
    "acc_mean", "ppl", *(f"acc_{task}" for task in TASKS), "pruning_ratio", "params_after", "speed", "extreme_layers",
    "grad_mean_ratio", "grad_norm_ratio", "elapsed_s", "memory_bytes",
)  # fmt: skip
ERRORS = ("acc_mean_se", *(f"se_{task}" for task in TASKS))
RUNS = "runs"
UNBOUNDED = 1 << 60


def read_records(sources: list[Source]) -> tuple[list[Table], dict[str, str], dict[str, str]]:
    """All run records: their table, source name -> why it cannot be read, and source name -> state that is no result.

    Rows of a protocol other than the most frequent one are in a table of their own: they are never compared.
    """
    builder = Builder()
    for source in sources:
        builder.add_file(source.path)
    runs = choose_perplexity(separate(join([builder.finish()])))
    frame = runs.frame.reset_index(drop=True)
    names = {str(source.path): source.name for source in sources}
    frame["file"] = frame["source"].map(names)
    damaged = (frame["state"] == INVALID) & frame["reason"].str.startswith("damaged record", na=False)
    unreadable = {str(row.file): str(row.reason) for row in frame[damaged].itertuples()}
    other = frame[~damaged & frame["state"].isin(STATES) & (frame["state"] != VALID)]
    states = {str(row.file): f"{row.state}: {_short(row.reason)}" for row in other.itertuples()}
    kept = frame[~damaged & (frame["state"] != DUPLICATE)]
    tables: list[Table] = []
    for protocol, part in kept.groupby(kept["protocol"].fillna("-"), sort=False):
        tables += _tables(part, str(protocol))
    return tables, unreadable, states


def _tables(part: pd.DataFrame, protocol: str) -> list[Table]:
    """One table with one row per run: each run is its own file."""
    valid = part[(part["state"] == VALID) & (part["kind"] != "dense")]
    factors = [name for name in find_factors(valid) if name in part] if len(valid) else []
    dims = dict.fromkeys(("model", "method", "kind", *factors))
    columns: dict[str, Any] = {"run_id": part["run_id"]}
    for name in dims:
        columns[name.removeprefix("config.")] = part[name]
    for name in (*MEASURES, *ERRORS):
        if name in part and part[name].notna().any():
            columns[name] = pd.to_numeric(part[name], errors="coerce").where(part["state"] != STOPPED)
    columns["started"] = part["started"]
    columns[FILE] = part["file"]
    gather = Gather(UNBOUNDED)
    gather.add(pd.DataFrame(columns).dropna(axis=1, how="all"), np.ones(len(part), dtype=int))
    table = gather.finish("", f"{RUNS} {protocol}", RUN)
    return [] if table is None else [table]


def _short(reason: object) -> str:
    return str(reason).splitlines()[0][:160] if isinstance(reason, str) and reason else "no reason given"
