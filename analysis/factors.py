"""Which knobs differ between the runs: factors, matched cells and settings."""

import numpy as np
import pandas as pd

BASE = ("method", "seq_len", "num_samples", "ratio", "calibration", "batch_size", "seed")
SAME = frozenset({
    "config.taylor.seq_len", "config.taylor.num_samples", "config.taylor.batch_size", "config.budget.ratio",
    "config.seed",
})  # fmt: skip
"""Config keys that are columns of their own already."""


def find_factors(frame: pd.DataFrame) -> list[str]:
    """Columns that distinguish runs of the same model, each carrying something the ones before do not.

    `method` stands for everything that its preset decides: a config key is a factor only when it differs between
    runs of the same model and method, and not when a factor found earlier determines it.
    """
    found: list[str] = []
    model = _codes(frame["model"])
    method = _pair(model, _codes(frame["method"]))
    others = [name for name in frame.columns if name.startswith("config.") and name not in SAME]
    for name in (*BASE, *others):
        if name not in frame:
            continue
        codes = _codes(frame[name])
        if codes.max(initial=0) == 0:
            continue
        group = model if name in BASE else method
        if _determined(codes, group):
            continue
        if name in BASE or not _determined_by_any(codes, group, [_codes(frame[other]) for other in found]):
            found.append(name)
    return found


def cell_key(frame: pd.DataFrame, names: list[str]) -> np.ndarray:
    """An integer per row; rows are in the same cell exactly when all named columns agree."""
    codes = np.zeros(len(frame), dtype=np.int64)
    for name in names:
        codes = _pair(codes, _codes(frame[name]))
    return codes


def setting_text(run: pd.Series, names: list[str]) -> str:
    """A run's setting in words: `blockwise 64x128`, then what else differs as key=value."""
    parts = [str(run["method"])]
    if pd.notna(run["seq_len"]) and pd.notna(run["num_samples"]):
        parts.append(f"{run['seq_len']:g}x{run['num_samples']:g}")
    for name in names:
        if name not in ("method", "seq_len", "num_samples"):
            value = run[name]
            parts.append(f"{name.removeprefix('config.')}={value:g}" if isinstance(value, float) else
                         f"{name.removeprefix('config.')}={value}")  # fmt: skip
    return " ".join(parts)


def setting_texts(frame: pd.DataFrame, names: list[str]) -> pd.Series:
    """`setting_text` of every row, computed once per distinct setting."""
    key = pd.Series(cell_key(frame, list(dict.fromkeys(["method", "seq_len", "num_samples", *names]))), frame.index)
    first = frame.loc[key.drop_duplicates().index]
    words = {key[index]: setting_text(row, names) for index, row in first.iterrows()}
    return key.map(words)


def _codes(values: pd.Series) -> np.ndarray:
    """Level numbers from 0; a missing value is a level of its own."""
    return pd.factorize(values, use_na_sentinel=False)[0]


def _pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Level numbers of the combination of two columns."""
    return pd.factorize(left.astype(np.int64) * (int(right.max(initial=0)) + 1) + right)[0]


def _determined(codes: np.ndarray, by: np.ndarray) -> bool:
    """Whether `by` fixes `codes`: no group of `by` holds two levels."""
    return int(_pair(by, codes).max(initial=0)) == int(by.max(initial=0))


def _determined_by_any(codes: np.ndarray, group: np.ndarray, others: list[np.ndarray]) -> bool:
    return any(_determined(codes, _pair(group, other)) for other in others)
