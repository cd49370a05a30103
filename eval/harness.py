"""lm-eval's evaluation loop over our tasks and LM: scores with standard errors, and per-question answers."""

from dataclasses import dataclass
from typing import Any

import lm_eval
import pandas as pd
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate

from eval.config import METRIC, EvalConfig
from eval.data import task_digest
from eval.quiet import quiet
from eval.record import Metric
from eval.screen import questions
from eval.tasks import StoredTask


@dataclass(frozen=True)
class TaskResults:
    """What the tasks gave.

    Attributes:
        metrics: `<task>/acc`, `<task>/acc_norm`, and `acc_mean` over the tasks' leading metrics.
        answers: One row per question in task order: task, question (row of the data file), acc, acc_norm
        (0/1;
            missing where the task has no acc_norm).
        card: Per task: metric, version, num_fewshot, limit, data.
    """

    metrics: dict[str, Metric]
    answers: pd.DataFrame
    card: dict[str, Any]


def run_tasks(lm: LM, tasks: dict[str, StoredTask], config: EvalConfig) -> TaskResults:
    """Score an LM on the tasks; prompts, filters, metrics, aggregation and standard errors are lm-eval's."""
    chosen = {name: questions(config, name, len(task.documents)) for name, task in tasks.items()}
    known: Any = {"tasks": tasks, "groups": {}}
    with quiet():
        results: Any = evaluate(lm, known, samples=chosen, log_samples=False)
    metrics: dict[str, Metric] = {}
    rows: list[pd.DataFrame] = []
    for name, task in tasks.items():
        metrics |= _task_metrics(name, results["results"][name], len(chosen[name]))
        rows.append(_answers(name, chosen[name], task))
    if tasks:
        metrics["acc_mean"] = _mean([metrics[f"{name}/{METRIC[name]}"] for name in tasks])
    answers = pd.concat(rows, ignore_index=True) if rows else _answers("", [], None)
    return TaskResults(metrics, answers, {name: card_of(name, task, config) for name, task in tasks.items()})


def card_of(name: str, task: StoredTask, config: EvalConfig) -> dict[str, Any]:
    """The part of the protocol card that says what a task's number is."""
    return {
        "metric": METRIC[name],
        "version": task.VERSION,
        "num_fewshot": task.config.num_fewshot or 0,
        "limit": config.limit,
        "screen": config.screen,
        "data": task_digest(config, name),
    }


def harness_version() -> str:
    """lm-eval's version."""
    return str(lm_eval.__version__)


def _task_metrics(name: str, result: dict[str, Any], count: int) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for key in ("acc", "acc_norm"):
        if f"{key},none" in result:
            error = result.get(f"{key}_stderr,none")
            metrics[f"{name}/{key}"] = Metric(
                value=float(result[f"{key},none"]),
                stderr=float(error) if isinstance(error, float) else None,
                n=count,
                unit="accuracy",
            )
    return metrics


def _mean(parts: list[Metric]) -> Metric:
    """Unweighted mean of task accuracies; the tasks are independent, so se = sqrt(sum se^2) / k."""
    values = [part.value for part in parts if part.value is not None]
    errors = [part.stderr for part in parts if part.stderr is not None]
    assert len(values) == len(parts), "accuracies are always finite"
    stderr = sum(error**2 for error in errors) ** 0.5 / len(parts) if len(errors) == len(parts) else None
    total = sum(part.n or 0 for part in parts)
    return Metric(value=sum(values) / len(values), stderr=stderr, n=total, unit="accuracy")


def _answers(name: str, chosen: list[int], task: StoredTask | None) -> pd.DataFrame:
    given = [] if task is None else task.answers
    assert len(given) == len(chosen), "one answer per question"
    return pd.DataFrame(
        {
            "task": pd.Series([name] * len(chosen), dtype="string"),
            "question": pd.Series(chosen, dtype="int64"),
            "acc": pd.Series([int(answer["acc"]) for answer in given], dtype="Int8"),
            "acc_norm": pd.Series(
                [int(answer["acc_norm"]) if "acc_norm" in answer else None for answer in given], dtype="Int8"
            ),
        }
    )
