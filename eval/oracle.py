"""Ours beside lm-eval's HFLM on the same requests: differences in log-likelihood and score, and the time of both."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.eval.config import EvalConfig
from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.harness import run_tasks
from secateur.eval.hflm import StoredHFLM
from secateur.eval.tasks import load_tasks


@dataclass(frozen=True)
class Comparison:
    """How the fast LM compares with the oracle (HFLM, float32 softmax, `logits_cache=False`).

    Attributes:
        requests: Requests that both scored.
        max_difference: Largest absolute difference of a log-likelihood, in nats.
        mean_difference: Mean of the same.
        greedy_changes: Requests whose greedy flag differs.
        score_changes: Metrics that differ: name -> (oracle's, ours).
        oracle_seconds: CPU seconds of the oracle's scoring.
        fast_seconds: CPU seconds of ours, planning included.
        oracle_tokens: Tokens through the model, padding included.
        fast_tokens: The same for ours.
        used: What the fast LM scored with: `fast`, or why it handed over to HFLM.
    """

    requests: int
    max_difference: float
    mean_difference: float
    greedy_changes: int
    score_changes: dict[str, tuple[float | None, float | None]]
    oracle_seconds: float
    fast_seconds: float
    oracle_tokens: int
    fast_tokens: int
    used: str

    @property
    def ratio(self) -> float:
        """Time of the oracle over ours."""
        return self.oracle_seconds / self.fast_seconds

    def lines(self) -> list[str]:
        """The comparison in words."""
        scores = [f"  {name}: {a} (oracle), {b} (ours)" for name, (a, b) in self.score_changes.items()]
        return [
            f"{self.requests} requests, scored by {self.used}",
            f"log-likelihoods: largest difference {self.max_difference:.2e} nats, mean {self.mean_difference:.2e}",
            f"greedy flags that differ: {self.greedy_changes}; scores that differ: {len(self.score_changes)}",
            *scores,
            f"tokens through the model: {self.oracle_tokens} (oracle), {self.fast_tokens} (ours)",
            f"CPU seconds: {self.oracle_seconds:.1f} (oracle), {self.fast_seconds:.1f} (ours), ratio {self.ratio:.2f}",
        ]


def compare(model: Any, tokenizer: Any, config: EvalConfig, *, progress: bool = False) -> Comparison:
    """Score the config's tasks with both and compare.

    Raises:
        DataError: Task data is missing.
    """
    tasks = load_tasks(config)
    sides: list[StoredHFLM] = [
        StoredHFLM(model, tokenizer, batch_size=config.batch_size, progress=progress),
        FastLM(model, tokenizer, batch_size=config.batch_size, budget=config.token_budget, progress=progress),
    ]
    seconds, metrics, answers = [], [], []
    for lm in sides:
        start = time.process_time()
        metrics.append(run_tasks(lm, tasks, config).metrics)
        seconds.append(time.process_time() - start)
        pairs: list[Any] = [instance.args for task in tasks.values() for instance in task.instances or []]
        answers.append(score_pairs(lm, pairs))  # from its store
    values = np.array([[value for value, _ in side] for side in answers])
    difference = np.abs(values[0] - values[1])
    return Comparison(
        requests=values.shape[1],
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        greedy_changes=sum(a[1] != b[1] for a, b in zip(*answers, strict=True)),
        score_changes={
            name: (metric.value, metrics[1][name].value)
            for name, metric in metrics[0].items()
            if metric.value != metrics[1][name].value
        },
        oracle_seconds=seconds[0],
        fast_seconds=seconds[1],
        oracle_tokens=sides[0].counters["forward_tokens"],
        fast_tokens=sides[1].counters["forward_tokens"],
        used=getattr(sides[1], "used", "fast"),
    )
