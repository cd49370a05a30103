"""Does pruning pay? Every pruned model beside its dense one, with what its bytes and FLOPs allow at best."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false, reportReturnType=false

import math
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.speed.compare import student
from secateur.analysis.speed.measurements import DECODE, PREFILL, SETTING, Speeds
from secateur.eval.speed.bounds import decode_bytes, decode_flops, kv_bytes, prefill_bytes, prefill_flops
from secateur.eval.speed.journal import Facts, Roof

CUT = ("method.", "budget.", "guard.", "taylor.", "calibration.", "seed", "bench.plan", "bench.run", "model.name",
       "model.path", "model.revision", "model.dtype")  # fmt: skip
"""Settings in which a pruned model may differ from its dense one; the dtype in memory and all others are equal."""


def pairs(speeds: Speeds) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """(pruned, dense) variants: the same dense model, measured in the same sweep under the same run-time settings."""
    held = [
        n
        for n in speeds.cells.columns
        if n.startswith(SETTING) and not n.removeprefix(SETTING).startswith(CUT)
    ]
    known: dict[tuple[str, int], tuple[str, ...]] = {}
    for place, row in (
        speeds.cells.drop_duplicates(["source", "place"]).set_index(["source", "place"]).iterrows()
    ):
        known[place] = tuple(str(row[name]) for name in held)  # pyright: ignore[reportArgumentType]  a pair, as indexed
    found: list[tuple[tuple[str, int], tuple[str, int]]] = []
    for key, facts in speeds.facts.items():
        if key not in known or facts.dense_parameters in (None, facts.parameters):
            continue
        for other, dense in speeds.facts.items():
            same = (
                other in known
                and other[0] == key[0]
                and known[other] == known[key]
                and dense.dtype == facts.dtype
            )
            if same and dense.fingerprint == facts.fingerprint and dense.parameters == facts.dense_parameters:
                found.append((key, other))
    return found


def sizes_table(speeds: Speeds) -> pd.DataFrame:
    """Per variant of a pair: parameters, bytes of weights and of a token's keys and values, batch, widths."""
    rows: list[dict[str, Any]] = []
    for key in dict.fromkeys(k for pruned, dense in pairs(speeds) for k in (dense, pruned)):
        facts, cells = speeds.facts[key], _cells(speeds, key)
        kept = None if facts.dense_parameters is None else facts.parameters / facts.dense_parameters
        rows.append({
            "subject": cells["subject"].iloc[0], "parameters": facts.parameters, "kept_share": kept,
            "weight_bytes": facts.weight_bytes, "kv_bytes": kv_bytes(facts),
            "peak_bytes": cells["memory_bytes"].astype(float).max(), "layers": len(facts.layers),
            "attention_layers": sum(bool(layer["q"]) for layer in facts.layers),
            "max_batch": facts.max_batch, "round_to": _setting(cells, "guard.round_to"),
            "odd_widths": sum(w % 8 != 0 for w in facts.widths),
        })  # fmt: skip
    return pd.DataFrame(rows)


def speed_table(speeds: Speeds) -> pd.DataFrame:
    """Per pair, phase and batch (1 and the largest): speed-up with interval, and its bounds."""
    rows: list[dict[str, Any]] = []
    for pruned, dense in pairs(speeds):
        ours, theirs = _cells(speeds, pruned), _cells(speeds, dense)
        for phase in (PREFILL, DECODE):
            for largest, batches in _batches(ours):
                a = _chosen(theirs, phase, largest, batches)
                b = _chosen(ours, phase, largest, batches)
                both = b.merge(a, on=["n_prompt", "n_gen"], suffixes=("", "_dense"))
                if len(both):
                    rows.append(_row(speeds, pruned, dense, phase, largest, both))
    return pd.DataFrame(rows)


def _batches(cells: pd.DataFrame) -> list[tuple[bool, int | None]]:
    """Which batches are shown: every fixed one, and the largest that fits."""
    fixed = sorted(int(b) for b in cells.loc[~cells["largest"].astype(bool), "batch"].unique())
    return [*((False, b) for b in fixed), *([(True, None)] if cells["largest"].any() else [])]


def _chosen(cells: pd.DataFrame, phase: str, largest: bool, batch: int | None) -> pd.DataFrame:
    rows = cells[(cells["phase"] == phase) & (cells["largest"].astype(bool) == largest)]
    return rows if batch is None else rows[rows["batch"] == batch]


def _row(
    speeds: Speeds,
    pruned: tuple[str, int],
    dense: tuple[str, int],
    phase: str,
    largest: bool,
    both: pd.DataFrame,
) -> dict[str, Any]:
    ratio = np.log(both["tokens_per_s"].astype(float) / both["tokens_per_s_dense"].astype(float)).to_numpy()
    values = ratio if len(ratio) > 4 else _rounds(speeds, both, ratio)
    mean, low, high, _, p = student(values)
    bounds = _bounds(speeds, speeds.facts[pruned], speeds.facts[dense], phase, both)
    return {
        "subject": both["subject"].iloc[0], "phase": phase, "batch_kind": "max" if largest else "fixed",
        "batch": int(both["batch"].iloc[0]), "batch_dense": int(both["batch_dense"].iloc[0]), "points": len(both),
        "n": len(values),
        "speed_mean": float(both["tokens_per_s"].astype(float).mean()),
        "dense_speed": float(both["tokens_per_s_dense"].astype(float).mean()),
        "speedup": math.exp(mean), "speedup_low": math.exp(low), "speedup_high": math.exp(high), "p": p, **bounds,
    }  # fmt: skip


def _rounds(speeds: Speeds, both: pd.DataFrame, ratio: np.ndarray) -> np.ndarray:
    """Log ratios by round, mean over the cells; those of the cells where single passes are not known."""
    samples = speeds.samples.assign(log=np.log(speeds.samples["tokens_per_s"].astype(float)))
    sides: list[pd.Series] = []
    for name, sign in (("row", 1.0), ("row_dense", -1.0)):
        part = samples[samples["cell"].isin(both[name])]
        sides.append(sign * part.groupby("round")["log"].mean())
    table = pd.concat(sides, axis=1, join="inner").sum(axis=1).to_numpy(dtype=float)
    return table if len(table) > len(ratio) else ratio


def _bounds(speeds: Speeds, ours: Facts, theirs: Facts, phase: str, both: pd.DataFrame) -> dict[str, float]:
    """Speed-up when FLOPs, when bytes decide, and when the slower of the two does on this machine; mean over cells."""
    roof = _roof(speeds, ours, both)
    flops: list[float] = []
    moved: list[float] = []
    machine: list[float] = []
    share: list[float] = []
    for row in both.itertuples():
        a = _work(ours, phase, row.batch, row.n_prompt, row.n_gen)
        b = _work(theirs, phase, row.batch_dense, row.n_prompt, row.n_gen)
        per = row.batch / row.batch_dense  # type: ignore[operator]  a number
        flops.append(per * b[0] / a[0])
        moved.append(per * b[1] / a[1])
        if roof is not None:
            machine.append(per * _seconds(b, roof) / _seconds(a, roof))
            share.append(_seconds(a, roof) / float(row.seconds))  # type: ignore[arg-type]  a number
    nan = math.nan
    return {
        "flop_bound": float(np.mean(flops)),
        "byte_bound": float(np.mean(moved)),
        "roof_bound": float(np.mean(machine)) if machine else nan,
        "roof_share": float(np.mean(share)) if share else nan,
    }


def _roof(speeds: Speeds, facts: Facts, both: pd.DataFrame) -> Roof | None:
    """The machine's limits as measured in the same sweep, for the same dtype and threads."""
    found = [r for source, r in speeds.roofs if source == both["source"].iloc[0] and r.dtype == facts.dtype]
    threads = _setting(both, "bench.threads")
    same = [r for r in found if r.threads == threads]
    return (same or found or [None])[0]


def _work(facts: Facts, phase: str, batch: Any, prompt: Any, gen: Any) -> tuple[float, float]:
    """FLOPs and bytes of one pass."""
    if phase == PREFILL:
        return prefill_flops(facts, batch, prompt), prefill_bytes(facts, batch, prompt)
    return decode_flops(facts, batch, prompt, gen), decode_bytes(facts, batch, prompt, gen)


def _seconds(work: tuple[float, float], roof: Roof) -> float:
    """The shortest time that the machine's limits allow (Williams et al. 2009, CACM 52(4):65)."""
    return max(work[0] / roof.flops, work[1] / roof.bandwidth)


def _cells(speeds: Speeds, key: tuple[str, int]) -> pd.DataFrame:
    cells = speeds.cells
    mask = (cells["source"] == key[0]) & (cells["place"] == key[1])
    return cells[mask].assign(row=np.flatnonzero(mask))


def _setting(cells: pd.DataFrame, name: str) -> Any:
    column = SETTING + name
    return cells[column].iloc[0] if column in cells else None
