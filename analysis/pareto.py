"""Runs that no other run beats in everything: ACC, PPL, size and speed."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportGeneralTypeIssues=false

import numpy as np
import pandas as pd

OBJECTIVES: dict[str, int] = {"acc_mean": 1, "ppl": -1, "params_after": -1, "speed": 1}
"""Column -> 1 when more is better, -1 when less is."""


def objectives(frame: pd.DataFrame) -> list[str]:
    """The objectives that at least one run has measured and that are not the same for all."""
    return [name for name in OBJECTIVES if frame[name].nunique() > 1]


def front(frame: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Index labels of the non-dominated runs, best ACC first.

    Runs that lack one of the objectives take no part. Equal runs are all on the front.
    """
    values = np.column_stack([OBJECTIVES[name] * frame[name].to_numpy(dtype=float) for name in names])
    known = np.isfinite(values).all(axis=1)
    labels, values = frame.index.to_numpy()[known], values[known]
    order = np.lexsort(tuple(-values[:, column] for column in range(values.shape[1] - 1, -1, -1)))
    labels, values = labels[order], values[order]
    place = 0
    while place < len(values):
        # everything still listed that the current run does not beat stays; the list shrinks as it is walked
        current = values[place]
        beaten = (values <= current).all(axis=1) & (values < current).any(axis=1)
        before = int((~beaten[:place]).sum())
        labels, values = labels[~beaten], values[~beaten]
        place = before + 1
    return labels
