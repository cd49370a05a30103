"""Answers to single questions: what paired comparisons of runs and hold-outs over questions are made of."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from secateur.eval.config import METRIC
from secateur.eval.record import ANSWERS

CANDIDATES = 200
"""Runs per model whose answers are read, best ACC first; the rest cannot compete with the best."""


@dataclass(frozen=True)
class Answers:
    """Right and wrong of several runs on the same questions.

    Attributes:
        rows: Index labels of the runs, best ACC first.
        right: [runs, questions], 1 where the answer counts as right by the task's metric.
        task: [questions], task number; `tasks` are the names.
    """

    rows: tuple[int, ...]
    right: np.ndarray
    task: np.ndarray
    tasks: tuple[str, ...]

    def weights(self, keep: np.ndarray | None = None) -> np.ndarray:
        """Weight of each question so that `right @ weights` is the unweighted mean of the task accuracies."""
        chosen = np.ones(len(self.task), dtype=bool) if keep is None else keep
        counts = np.bincount(self.task[chosen], minlength=len(self.tasks))
        return np.where(chosen, 1.0 / (counts[self.task] * len(self.tasks)), 0.0)


def read_answers(valid: pd.DataFrame) -> Answers | None:
    """Answers of the best runs of one model, or None when fewer than two runs have comparable ones.

    Runs whose questions differ from the best run's are left out: pairing needs the same questions.
    """
    best = valid.sort_values("acc_mean", ascending=False, kind="stable").head(CANDIDATES)
    rows: list[int] = []
    values: list[np.ndarray] = []
    key: pd.DataFrame | None = None
    for label, source in zip(best.index, best["source"], strict=True):
        found = _read(Path(str(source)).parent / ANSWERS)
        if found is None:
            continue
        names, right = found
        if key is None:
            key = names
        if (
            len(names) == len(key)
            and names["task"].equals(key["task"])
            and names["question"].equals(key["question"])
        ):
            rows.append(int(label))
            values.append(right)
    if key is None or len(rows) < 2:
        return None
    task, tasks = pd.factorize(key["task"])
    return Answers(tuple(rows), np.stack(values), task, tuple(str(name) for name in tasks))


def paired_difference(answers: Answers, left: int, right: int) -> tuple[float, float]:
    """Difference of the mean of task accuracies of two runs (positions), and its standard error.

    The error is that of the per-question differences (within tasks, then over tasks): questions that both runs
    answer alike cancel, which is why it is smaller than the error of two independent runs.
    """
    d = answers.right[left].astype(float) - answers.right[right]
    n = np.bincount(answers.task).astype(float)
    mean = np.bincount(answers.task, weights=d) / n
    square = np.bincount(answers.task, weights=d * d)
    variance = np.where(n > 1, (square - n * mean**2) / np.maximum(n - 1, 1), 0.0)
    k = len(answers.tasks)
    return float(mean.mean()), float(np.sqrt((variance / n).sum()) / k)


def paired_folders(left: Path, right: Path) -> tuple[float, float, int] | None:
    """Right minus left for two run folders: (difference of acc_mean, standard error, questions).

    None when one stored no answers or they answered different questions.
    """
    a, b = _read(left / ANSWERS), _read(right / ANSWERS)
    if a is None or b is None or not a[0].equals(b[0]) or a[0].empty:
        return None
    task, tasks = pd.factorize(a[0]["task"])
    both = Answers((0, 1), np.stack([b[1], a[1]]), task, tuple(str(name) for name in tasks))
    return (*paired_difference(both, 0, 1), len(task))


def _read(path: Path) -> tuple[pd.DataFrame, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        table = pd.read_parquet(path, columns=["task", "question", "acc", "acc_norm"])
    except (OSError, ValueError, KeyError):
        return None
    task = table["task"].astype("str")
    counts = task.map(METRIC).fillna("acc").to_numpy()
    right = np.where(counts == "acc_norm", table["acc_norm"].to_numpy(), table["acc"].to_numpy())
    keys = pd.DataFrame(
        {"task": task.reset_index(drop=True), "question": table["question"].reset_index(drop=True)}
    )
    return keys, np.nan_to_num(right.astype(float)).astype(np.int8)
