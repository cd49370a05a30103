"""Standard errors and intervals of accuracies."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

import math

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import normal_quantile, wilson
from secateur.eval.config import TASKS


def with_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill `acc_mean_se` where it is absent and add the 95 % interval `acc_low` .. `acc_high`.

    The mean of k independent task accuracies has the standard error sqrt(sum of squared task errors) / k. This is
    the error of sampling questions; that of sampling calibration text is seen only in repeated seeds.
    """
    errors = frame[[f"se_{task}" for task in TASKS]].to_numpy(dtype=float)
    measured = np.isfinite(frame[[f"acc_{task}" for task in TASKS]].to_numpy(dtype=float))
    known = (np.isfinite(errors) == measured).all(axis=1) & measured.any(axis=1)
    count = np.maximum(measured.sum(axis=1), 1)
    mean_error = np.where(known, np.sqrt(np.nansum(errors**2, axis=1)) / count, np.nan)
    error = frame["acc_mean_se"].to_numpy(dtype=float)
    error = np.where(np.isfinite(error), error, mean_error)
    half = normal_quantile() * error
    accuracy = frame["acc_mean"].to_numpy(dtype=float)
    return frame.assign(acc_mean_se=error, acc_low=accuracy - half, acc_high=accuracy + half)


def task_table(run: pd.Series) -> pd.DataFrame:
    """Per task: accuracy, standard error, 95 % interval (Wilson when n is known, else normal) and n."""
    rows: list[dict[str, object]] = []
    for task in TASKS:
        value, error, n = (float(run[f"{prefix}_{task}"]) for prefix in ("acc", "se", "n"))
        if math.isnan(value):
            continue
        if math.isnan(n):
            half = normal_quantile() * error
            low, high = max(0.0, value - half), min(1.0, value + half)
        else:
            low, high = wilson(value * n, n)
        rows.append({"task": task, "acc": value, "se": error, "low": low, "high": high, "n": n})
    return pd.DataFrame(rows, columns=["task", "acc", "se", "low", "high", "n"])


def replicate_noise(frame: pd.DataFrame, cell: np.ndarray) -> tuple[float, int]:
    """Pooled sd of ACC between runs that differ in nothing but the seed, and its degrees of freedom."""
    values = pd.Series(frame["acc_mean"].to_numpy(dtype=float)).groupby(cell)
    df = len(frame) - values.ngroups
    if df < 1:
        return math.nan, 0
    squares = float((values.var(ddof=1) * (values.count() - 1)).sum())
    return math.sqrt(squares / df), df
