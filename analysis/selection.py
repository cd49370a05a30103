"""The best run, the runs it cannot be told from, and what its accuracy is once it is not picked on the same test."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from secateur.analysis.answers import Answers, paired_difference
from secateur.analysis.arithmetic import holm, normal_p
from secateur.eval.config import TASKS

LEVEL = 0.05
SPLITS = 200


@dataclass(frozen=True)
class Ties:
    """Runs beside the best of a model.

    Attributes:
        table: Per run: `run_id`, `acc`, `difference` to the best (>= 0), `se`, `p`, `p_holm`, `basis` (`questions`
            when paired on single answers, `errors` when from the standard errors of both runs, which ignores that
            they saw the same questions and so calls too many runs equal).
        labels: Index labels of the runs that are not distinguishable from the best, itself first.
    """

    table: pd.DataFrame
    labels: tuple[int, ...]


def not_distinguishable(valid: pd.DataFrame, answers: Answers | None) -> Ties:
    """Compare every run with the best one; Holm over all comparisons, level 5 %.

    The best was itself chosen by its ACC, so the list is one of candidates, not a proof that the others are worse.
    """
    order = valid.sort_values("acc_mean", ascending=False, kind="stable")
    accuracy, error = order["acc_mean"].to_numpy(dtype=float), order["acc_mean_se"].to_numpy(dtype=float)
    difference = accuracy[0] - accuracy
    se = np.sqrt(error**2 + error[0] ** 2)
    basis = np.where(np.isfinite(se), "errors", "-").astype(object)
    if answers is not None and answers.rows[0] == order.index[0]:
        place = {label: position for position, label in enumerate(order.index)}
        for position, label in enumerate(answers.rows[1:], start=1):
            _, se[place[label]] = paired_difference(answers, 0, position)
            basis[place[label]] = "questions"
    p = np.array([_p(d, s) for d, s in zip(difference, se, strict=True)])
    p[0] = math.nan
    adjusted = np.array(holm(list(p)))
    same = ~(adjusted < LEVEL) & (np.isfinite(p) | (difference <= 0))
    same[0] = True
    table = pd.DataFrame({
        "run_id": order["run_id"].to_numpy(), "acc": accuracy, "difference": difference,
        "se": se, "p": p, "p_holm": adjusted, "basis": basis, "same": same,
    })  # fmt: skip
    table.loc[0, ["se", "p", "p_holm"]] = math.nan
    return Ties(table, tuple(int(label) for label in order.index[same]))


def _p(difference: float, se: float) -> float:
    if math.isnan(se):
        return math.nan
    if se == 0:
        return 1.0 if difference == 0 else 0.0
    return normal_p(difference / se)


@dataclass(frozen=True)
class HeldOut:
    """The winner picked on one part and reported on the other.

    Attributes:
        basis: `tasks` (leave one task out) or `questions` (random halves of every task).
        naive: ACC of the best run where it was picked (what the study reports).
        honest: Mean ACC of the picked run on what it was not picked on.
        honest_sd: Spread of that over the splits; NaN for tasks (tasks differ in difficulty).
        optimism: Mean of (ACC on the picking part - ACC on the held-out part) of the picked run, beyond the same
            difference for the average run, which removes the difference in difficulty.
        table: Per task, or per picked run: how often picked and with what result.
    """

    basis: str
    naive: float
    honest: float
    honest_sd: float
    optimism: float
    splits: int
    table: pd.DataFrame


def hold_out_tasks(valid: pd.DataFrame) -> HeldOut | None:
    """Leave one task out: pick by the mean of the others, report the one; None below two tasks or two runs."""
    tasks = [task for task in TASKS if valid[f"acc_{task}"].notna().all()] if len(valid) > 1 else []
    if len(tasks) < 2:
        return None
    values = valid[[f"acc_{task}" for task in tasks]].to_numpy(dtype=float)
    total = values.sum(axis=1)
    rows: list[dict[str, object]] = []
    gaps: list[float] = []
    for column, task in enumerate(tasks):
        others = (total - values[:, column]) / (len(tasks) - 1)
        pick = int(others.argmax())
        here = values[:, column]
        gaps.append(float((others[pick] - here[pick]) - (others - here).mean()))
        rows.append({
            "task": task, "picked": valid["run_id"].iloc[pick], "acc": here[pick], "best_acc": here.max(),
            "regret": here.max() - here[pick], "rank": int((here > here[pick]).sum()) + 1, "n": len(here),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    return HeldOut(
        "tasks", float((total / len(tasks)).max()), float(table["acc"].mean()), math.nan, float(np.mean(gaps)),
        len(tasks), table,
    )  # fmt: skip


def hold_out_questions(valid: pd.DataFrame, answers: Answers | None, seed: int = 0) -> HeldOut | None:
    """Pick on a random half of the questions of every task, report on the other half; `SPLITS` times.

    None below two runs.
    """
    if answers is None or len(answers.rows) < 2:
        return None
    rng = np.random.default_rng(seed)
    halves = np.stack([_half(answers.task, rng) for _ in range(SPLITS)])
    picking = np.stack([answers.weights(half) for half in halves], axis=1).astype(np.float32)
    reporting = np.stack([answers.weights(~half) for half in halves], axis=1).astype(np.float32)
    right = answers.right.astype(np.float32)
    inside, outside = right @ picking, right @ reporting
    pick = inside.argmax(axis=0)
    split = np.arange(SPLITS)
    honest = outside[pick, split].astype(float)
    gap = (inside[pick, split] - honest) - (inside - outside).mean(axis=0)
    whole = right @ answers.weights().astype(np.float32)
    names = valid.loc[list(answers.rows), "run_id"].to_numpy()
    counts = pd.Series(pick).value_counts()
    table = pd.DataFrame({
        "run_id": names[counts.index], "picked_share": counts.to_numpy() / SPLITS,
        "acc": whole[counts.index].astype(float),
    })  # fmt: skip
    return HeldOut(
        "questions", float(whole.max()), float(honest.mean()), float(honest.std(ddof=1)), float(gap.mean()),
        SPLITS, table,
    )  # fmt: skip


def _half(task: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the questions of every task (at least one on each side where a task has two)."""
    order = rng.permutation(len(task))
    place = np.empty(len(task), dtype=np.int64)
    by_task = order[np.argsort(task[order], kind="stable")]
    counts = np.bincount(task)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    place[by_task] = np.arange(len(task)) - starts
    return place < np.maximum(1, counts[task] // 2)
