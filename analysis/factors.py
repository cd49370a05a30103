"""Which knobs differ between the runs: factors, matched cells and settings."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

from collections.abc import Callable
from typing import Any

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


def setting_texts(frame: pd.DataFrame, names: list[str]) -> pd.Series:
    """Every run's setting in words: `blockwise 64x128`, then what else differs as key=value."""
    parts = [_words(frame["method"], str)]
    lengths, samples = (_words(frame[name], "{:g}".format) for name in ("seq_len", "num_samples"))
    parts.append([f"{one}x{two}" if one and two else "" for one, two in zip(lengths, samples, strict=True)])
    for name in names:
        if name not in ("method", "seq_len", "num_samples"):
            short = name.removeprefix("config.")
            parts.append(
                _words(
                    frame[name], lambda v, key=short: f"{key}={v:g}" if isinstance(v, float) else f"{key}={v}"
                )
            )
    texts = [" ".join(word for word in words if word) for words in zip(*parts, strict=True)]
    return pd.Series(texts, index=frame.index, dtype="str")


def _words(values: pd.Series, word: Callable[[Any], str]) -> list[str]:
    """Each value as a word, each level put into words once; missing values are empty words."""
    codes, levels = pd.factorize(values)
    table = [*(word(level) for level in levels), ""]  # code -1, missing, is the last
    return [table[code] for code in codes]


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
