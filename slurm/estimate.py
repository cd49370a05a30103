"""How long the rest of a grid takes: from what its finished tasks took, else from what the grid file expects."""

from dataclasses import asdict
from statistics import fmean
from typing import Any

from secateur.slurm.overview import Overview, TaskView

KEYS = {"capture": "capture_minutes", "run": "run_minutes", "baseline": "run_minutes"}


def estimate(view: Overview, workers: int = 1) -> float | None:
    """Seconds until the rest is done by some workers side by side; None when nothing is known of a kind that is left.

    A task counts with the mean of finished tasks of its kind and model, else of its kind, else as the grid file says;
    one that runs counts without the time it has run already.
    """
    left: list[float] = []
    for task in view.tasks:
        if task.condition in {"done", "failed", "blocked"} or task.kind not in KEYS:
            continue
        seconds = _expected(view, task)
        if seconds is None:
            return None
        left.append(max(0.0, seconds - task.seconds) if task.condition == "running" else seconds)
    return max(sum(left) / workers, max(left, default=0.0))


def as_json(view: Overview) -> dict[str, Any]:
    """The view, and how long the rest takes, as plain data."""
    rest = estimate(view)
    return {
        "grid": view.plan.grid, "out": view.plan.out, "launcher": view.plan.launcher, "complete": view.complete,
        "counts": {kind: dict(view.count(kind)) for kind in ("capture", "baseline", "run", "analysis")},
        "gpu_hours": round(sum(task.gpu_seconds for task in view.tasks) / 3600, 4),
        "hours": round(sum(task.seconds for task in view.tasks) / 3600, 4),
        "estimated_rest_hours": None if rest is None else round(rest / 3600, 4),
        "tasks": [asdict(task) for task in view.tasks],
    }  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _expected(view: Overview, task: TaskView) -> float | None:
    kinds = {"capture"} if task.kind == "capture" else {"run", "baseline"}
    alike = [t for t in view.tasks if t.kind in kinds and t.last_seconds is not None]
    same = [t for t in alike if t.label.split(" ")[0] == task.label.split(" ")[0]]
    times = [t.last_seconds for t in same or alike if t.last_seconds is not None]
    if times:
        return fmean(times)
    minutes = view.plan.expected.get(KEYS[task.kind])
    return None if minutes is None else minutes * 60
