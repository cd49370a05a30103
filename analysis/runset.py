"""The set of runs that an analysis is about: one frame of runs, one of layers, and where they came from."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportReturnType=false

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.model_names import Origin, merge, named
from secateur.eval.config import TASKS

VALID, FAILED, INVALID, DUPLICATE, SET_ASIDE = "valid", "failed", "invalid", "duplicate", "set_aside"
STATES = (VALID, FAILED, INVALID, DUPLICATE, SET_ASIDE)
"""What became of a run: ranked; failed; finished without a usable ACC; the same run again; other protocol."""

GRADIENTS = ("grad_mean_ratio", "grad_norm_ratio", "grad_mean_range", "grad_norm_range")
"""The gradient statistics that the reference study correlates with ACC, in its order."""

TEXT_COLUMNS = (
    "run_id",
    "identity",
    "source",
    "kind",
    "state",
    "reason",
    "model",
    "model_key",
    "method",
    "calibration",
    "protocol",
    "started",
)
NUMBER_COLUMNS = (
    "seq_len", "num_samples", "batch_size", "ratio", "seed",
    "acc_mean", "acc_mean_se", "ppl",
    *(f"acc_{task}" for task in TASKS), *(f"se_{task}" for task in TASKS), *(f"n_{task}" for task in TASKS),
    "pruning_ratio", "params_before", "params_after", "speed",
    "grad_mean_ratio", "grad_norm_ratio", "grad_std_ratio", "grad_max_ratio", "grad_mean_range", "grad_norm_range",
    "extreme_layers", "elapsed_s", "memory_bytes",
)  # fmt: skip
LAYER_COLUMNS = ("layer", "kept_attention", "kept_mlp", "grad_mean", "grad_norm", "grad_std", "grad_max")


@dataclass(frozen=True)
class Runs:
    """Runs as loaded.

    Attributes:
        frame: One row per run and folder or CSV line, every state; columns `TEXT_COLUMNS` and `NUMBER_COLUMNS`
            (absent facts are NaN), then `config.<key>` and `metric.<name>` for whatever else the records hold.
        layers: One row per run and decoder layer: `row` (index into `frame`) and `LAYER_COLUMNS`; kept shares in 0..1.
        protocols: Protocol id -> the protocol card entries that it stands for.
        ppl_protocol: Full name of the perplexity in column `ppl`, or None.
        mixed: Rows of several protocols are ranked together because the user asked for it.
        notes: Facts about the loading that the report must state (source, what was found).
        origins: `model_key` -> what its rows say of the model; names in column `model` are unique after `join`.
    """

    frame: pd.DataFrame
    layers: pd.DataFrame
    protocols: dict[str, dict[str, Any]]
    ppl_protocol: str | None = None
    mixed: bool = False
    notes: tuple[str, ...] = field(default=())
    origins: dict[str, Origin] = field(default_factory=dict[str, Origin])

    def models(self) -> list[str]:
        """Names of the models, in order of first appearance."""
        return [str(name) for name in self.frame["model"].dropna().unique()]

    def pruned(self, model: str | None = None) -> pd.DataFrame:
        """All pruned runs (any state but duplicate) of one model, or of all."""
        rows = self.frame[(self.frame["kind"] != "dense") & (self.frame["state"] != DUPLICATE)]
        return rows if model is None else rows[rows["model"] == model]

    def valid(self, model: str | None = None) -> pd.DataFrame:
        """The pruned runs that may be ranked."""
        rows = self.pruned(model)
        return rows[rows["state"] == VALID]

    def dense(self, model: str) -> pd.Series | None:
        """The unpruned baseline of a model, or None when it was not measured under the ranked protocol."""
        keep = (
            (self.frame["kind"] == "dense") & (self.frame["model"] == model) & (self.frame["state"] == VALID)
        )
        rows = self.frame[keep]
        return None if rows.empty else rows.iloc[0]

    def problems(self) -> pd.DataFrame:
        """Every run that is not ranked, with the state and the reason."""
        rows = self.frame[self.frame["state"] != VALID]
        return rows[["model", "run_id", "state", "reason", "source"]]


def complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Give a frame every column of the contract, in order, with the right types."""
    missing = [name for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if name not in frame]
    if missing:
        frame = pd.concat([frame, pd.DataFrame(np.nan, index=frame.index, columns=missing)], axis=1)
    rest = [name for name in frame.columns if name not in TEXT_COLUMNS and name not in NUMBER_COLUMNS]
    frame = frame[[*TEXT_COLUMNS, *NUMBER_COLUMNS, *rest]].copy()
    for name in TEXT_COLUMNS:
        frame[name] = frame[name].astype("str").where(frame[name].notna(), None)
    return frame


def empty_layers() -> pd.DataFrame:
    """A layer frame without rows."""
    return pd.DataFrame({name: pd.Series(dtype="float32") for name in ("row", *LAYER_COLUMNS)})


def join(parts: list[Runs]) -> Runs:
    """Put several loaded sources together, name their models and mark the runs that appear twice."""
    offset = 0
    frames: list[pd.DataFrame] = []
    layers: list[pd.DataFrame] = []
    protocols: dict[str, dict[str, Any]] = {}
    for part in parts:
        frames.append(part.frame)
        if len(part.layers):
            layers.append(part.layers.assign(row=part.layers["row"] + offset))
        offset += len(part.frame)
        protocols |= part.protocols
    frame = pd.concat(frames, ignore_index=True) if frames else complete(pd.DataFrame())
    origins = merge(part.origins for part in parts)
    return Runs(
        frame=mark_duplicates(named(frame, origins)),
        layers=pd.concat(layers, ignore_index=True) if layers else empty_layers(),
        protocols=protocols,
        notes=tuple(note for part in parts for note in part.notes),
        origins=origins,
    )


def mark_duplicates(frame: pd.DataFrame) -> pd.DataFrame:
    """Mark all but one row of each run identity as duplicate, and make the names of the others unique.

    A finished run wins over a failed one, then the one that started last, then the first that was read.
    """
    if frame.empty or not frame["run_id"].duplicated().any():
        return frame
    frame = frame.copy()
    order = pd.DataFrame({
        "identity": frame["identity"],
        "bad": frame["state"].ne(VALID),
        "started": frame["started"].fillna(""),
        "row": np.arange(len(frame)),
    }).sort_values(["identity", "bad", "started", "row"], ascending=[True, True, False, True])  # fmt: skip
    winner = order.drop_duplicates("identity").set_index("identity")["row"]
    first = frame["identity"].map(winner).to_numpy()
    loser = first != np.arange(len(frame))
    kept = frame["source"].to_numpy()[first]
    frame.loc[loser, "state"] = DUPLICATE
    frame.loc[loser, "reason"] = [f"= {source}" for source in kept[loser]]
    count = frame[~loser].groupby("run_id").cumcount()
    again = count[count > 0]
    frame.loc[again.index, "run_id"] = frame.loc[again.index, "run_id"] + "#" + (again + 1).astype("str")
    return frame


def with_frame(runs: Runs, frame: pd.DataFrame, **changes: Any) -> Runs:
    """The same runs with another frame (rows unchanged in order)."""
    return replace(runs, frame=frame, **changes)
