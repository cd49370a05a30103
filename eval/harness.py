"""lm-eval's evaluation loop over our tasks and LM: scores with standard errors, and per-question answers."""

import math
from dataclasses import dataclass
from typing import Any

import lm_eval
import pandas as pd
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate

from secateur.eval.config import METRIC, EvalConfig
from secateur.eval.data import data_digest, task_digest
from secateur.eval.quiet import quiet
from secateur.eval.record import Metric
from secateur.eval.screen import questions
from secateur.eval.stored_task import StoredTask
from secateur.eval.tasks import load_groups

SHARES = ("acc", "acc_norm", "exact_match", "em", "f1", "mcc")
"""Metrics between 0 and 1 that a table shows as accuracies."""


@dataclass(frozen=True)
class TaskResults:
    """What the tasks gave.

    Attributes:
        metrics: `<task>/acc`, `<task>/acc_norm`, and `acc_mean` over the leading metrics of those of the seven; of
            other tasks and of groups every metric, `<task>/<metric>` or `<task>/<metric>@<filter>`.
        answers: One row per question of a multiple-choice task, in task order: task, question (row of the data
            file), acc, acc_norm (0/1; missing where the task has no acc_norm).
        card: Per task: metric, version, num_fewshot, limit, data.
    """

    metrics: dict[str, Metric]
    answers: pd.DataFrame
    card: dict[str, Any]


def run_tasks(lm: LM, tasks: dict[str, StoredTask], config: EvalConfig) -> TaskResults:
    """Score an LM on the tasks; prompts, filters, metrics, aggregation and standard errors are lm-eval's."""
    chosen = {name: questions(config, name, len(task.documents)) for name, task in tasks.items()}
    groups = load_groups(config)
    known: Any = {"tasks": tasks, "groups": groups}
    with quiet():
        results: Any = evaluate(lm, known, samples=chosen, log_samples=False)
    metrics: dict[str, Metric] = {}
    rows: list[pd.DataFrame] = []
    for name, task in tasks.items():
        result, count = results["results"][name], len(chosen[name])
        metrics |= (
            _task_metrics(name, result, count) if name in METRIC else metrics_of(name, result, count, task)
        )
        if _one_answer_each(task):
            rows.append(_answers(name, chosen[name], task))
    for name, group in groups.items():
        inside = [task.task_name for task in group.get_all_tasks()]
        count = sum(len(chosen[task]) for task in inside)
        metrics |= metrics_of(name, results["results"].get(name, {}), count, tasks[inside[0]])
    seven = [metrics[f"{name}/{METRIC[name]}"] for name in tasks if name in METRIC]
    if seven:
        metrics["acc_mean"] = _mean(seven)
    answers = pd.concat(rows, ignore_index=True) if rows else _answers("", [], None)
    return TaskResults(metrics, answers, {name: card_of(name, task, config) for name, task in tasks.items()})


def _one_answer_each(task: StoredTask) -> bool:
    return task.OUTPUT_TYPE == "multiple_choice" and all("acc" in answer for answer in task.answers)


def card_of(name: str, task: StoredTask, config: EvalConfig) -> dict[str, Any]:
    """The part of the protocol card that says what a task's number is."""
    asked = name if name in config.tasks else None
    return {
        "metric": METRIC.get(name) or next(iter(task.aggregation())),
        "version": task.VERSION,
        "num_fewshot": task.config.num_fewshot or 0,
        "limit": config.limit,
        "screen": config.screen,
        "data": task_digest(config, asked) if asked else data_digest(config),
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


def metrics_of(name: str, result: dict[str, Any], count: int, task: StoredTask) -> dict[str, Metric]:
    """Every number that lm-eval gives for a task or a group, in its order."""
    better, found = task.higher_is_better(), dict[str, Metric]()
    for key, value in result.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str) or metric == "alias":
            continue
        finite = isinstance(value, int | float) and math.isfinite(value)
        error = result.get(f"{metric}_stderr,{kind}")
        found[f"{name}/{metric}" + ("" if kind == "none" else f"@{kind}")] = Metric(
            value=float(value) if finite else None,
            stderr=float(error) if isinstance(error, float) and math.isfinite(error) else None,
            n=count,
            unit="accuracy" if metric in SHARES else "perplexity" if "perplexity" in metric else "other",
            higher_is_better=bool(better.get(metric, True)),
            note=None if finite else f"lm-eval gave {value}",
        )
    return found


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
