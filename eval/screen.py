"""Which questions of a task are asked: all, the first `limit`, or a screening subset.

A screening subset (`eval.screen=N`) is fixed by the seed below, the same for every model, and stratified: the
task is cut into N equal stretches in file order (passages, sources and lengths are neighbours there) and one
question is drawn from each. Its results are labelled as screening and compared as paired differences on the
same questions.
"""

import itertools
import random
import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from secateur.eval.config import METRIC, EvalConfig

SEED = 20_240_229
Z95 = 1.959964
"""97.5 % quantile of the normal distribution."""


def questions(config: EvalConfig, task: str, total: int) -> list[int]:
    """Rows of a task's data file that are asked, ascending."""
    if config.screen is not None and config.screen < total:
        rng = random.Random(SEED + zlib.crc32(task.encode()))
        edges = [round(i * total / config.screen) for i in range(config.screen + 1)]
        return [rng.randrange(low, high) for low, high in itertools.pairwise(edges)]
    return list(range(total if config.limit is None else min(config.limit, total)))


@dataclass(frozen=True)
class Difference:
    """Paired difference of two models on the same questions (first minus second).

    Attributes:
        value: Mean difference of accuracy.
        stderr: Standard error of the paired differences.
        low, high: 95 % interval.
        n: Questions.
    """

    value: float
    stderr: float
    low: float
    high: float
    n: int


def paired_difference(answers: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Difference]:
    """Accuracy differences to a reference (the dense model) per task, and `acc_mean` over the tasks.

    Pairing removes the variance of the questions' difficulty: with strongly agreeing models the interval is a
    fraction of the unpaired one. Each task counts with its leading metric.

    Args:
        answers: `Measurements.answers` of one model.
        reference: The same of the other; only questions that both have are compared.
    """
    both = answers.merge(reference, on=["task", "question"], suffixes=("", "_reference"))
    result: dict[str, Difference] = {}
    for task in dict.fromkeys(both["task"].tolist()):
        rows = both[both["task"] == task]
        metric = METRIC.get(task, "acc")
        delta = np.asarray(rows[metric], dtype=float) - np.asarray(rows[f"{metric}_reference"], dtype=float)
        spread = float(np.std(delta, ddof=1)) if len(delta) > 1 else float("inf")
        result[task] = _interval(float(delta.mean()), spread / len(delta) ** 0.5, len(delta))
    if result:
        parts = list(result.values())
        value = sum(part.value for part in parts) / len(parts)
        error = sum(part.stderr**2 for part in parts) ** 0.5 / len(parts)
        result["acc_mean"] = _interval(value, error, sum(part.n for part in parts))
    return result


def _interval(value: float, stderr: float, n: int) -> Difference:
    return Difference(value, stderr, value - Z95 * stderr, value + Z95 * stderr, n)
