"""What of a grid is done, running, queued, failed, and why: records, claims, states and the queue in one view."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from secateur.pruning.errors import StorageError
from secateur.pruning.files import read_json
from secateur.slurm.claims import Owner, holder
from secateur.slurm.plan import Plan, Task
from secateur.slurm.queue import Job
from secateur.slurm.state import (
    TaskState,
    claim_folder,
    failure,
    finished,
    log_path,
    now,
    read_state,
    run_folder,
)
from secateur.slurm.unstarted import never_began

Condition = Literal["done", "running", "queued", "failed", "blocked", "interrupted", "waiting"]
ORDER: tuple[Condition, ...] = ("done", "running", "queued", "waiting", "interrupted", "blocked", "failed")


@dataclass(frozen=True)
class TaskView:
    """One task as it is now.

    Attributes:
        condition: `waiting` was never started, `interrupted` was and is not running; both are done by `secateur grid`.
        detail: Why it failed, is blocked or waits, one line.
        stage: Stage of a running run.
        age: Seconds in that stage.
        job: Slurm job, if any.
        log: Path of its log, if it has one.
        seconds: Time of all attempts so far.
        gpu_seconds: The same, times the GPUs held.
        last_seconds: Time of the attempt that finished it; null when it was not finished by a grid.
    """

    id: str
    kind: str
    label: str
    condition: Condition
    detail: str = ""
    stage: str | None = None
    age: float | None = None
    job: str | None = None
    host: str | None = None
    log: str | None = None
    attempts: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    last_seconds: float | None = None


@dataclass(frozen=True)
class Overview:
    """A whole grid as it is now."""

    plan: Plan
    tasks: tuple[TaskView, ...]

    def count(self, *kinds: str) -> Counter[Condition]:
        """How many tasks of some kinds are in which condition."""
        return Counter(view.condition for view in self.tasks if view.kind in kinds)

    def of(self, *conditions: Condition) -> list[TaskView]:
        """The tasks in some conditions."""
        return [view for view in self.tasks if view.condition in conditions]

    @property
    def complete(self) -> bool:
        """Whether everything is done."""
        return all(view.condition == "done" for view in self.tasks)

    @property
    def active(self) -> bool:
        """Whether anything runs or waits in the queue."""
        return bool(self.of("running", "queued"))


def observe(plan: Plan, jobs: Mapping[str, Job] | None, submitted: Mapping[str, str]) -> Overview:
    """Look at every task.

    Args:
        plan: The grid.
        jobs: The queue; None when there is none here.
        submitted: Task id -> Slurm job it was submitted as last.
    """
    tasks = plan.by_id()
    views: dict[str, TaskView] = {}
    for task in plan.tasks:
        name = submitted.get(task.id, "")
        needs = [views[name] for name in task.needs if name in tasks]
        views[task.id] = _view(plan, task, name, jobs, needs)
    return Overview(plan, tuple(views.values()))


def _view(
    plan: Plan, task: Task, name: str, jobs: Mapping[str, Job] | None, needs: list[TaskView]
) -> TaskView:
    state = read_state(plan, task.id)
    job = (jobs or {}).get(name)
    log = log_path(plan, task.id)
    facts: dict[str, Any] = {
        "id": task.id, "kind": task.kind, "label": task.label, "job": job.id if job else None,
        "log": str(log) if log.is_file() else None,
    } | _times(state)  # fmt: skip
    if finished(plan, task):
        return TaskView(condition="done", **facts)

    def lives(job: str) -> bool | None:
        return None if jobs is None else job in jobs and jobs[job].state != "PENDING"

    owner = holder(claim_folder(plan, task.id), lives)
    if owner is not None:
        return _running(plan, task, owner, state, facts)
    if job is not None:
        condition: Condition = "queued" if job.state in {"PENDING", "REQUEUED", "REQUEUE_HOLD"} else "running"
        return TaskView(
            condition=condition, detail=job.reason if condition == "queued" else "starting", **facts
        )
    resting = _at_rest(plan, task, state, needs, facts)
    lost = never_began(plan, state, name) if name and jobs is not None else None
    if lost is None or resting.condition not in {"waiting", "interrupted"}:
        return resting
    return replace(resting, condition="failed", detail=lost[0], log=str(lost[1]))


def _at_rest(
    plan: Plan, task: Task, state: TaskState | None, needs: list[TaskView], facts: dict[str, Any]
) -> TaskView:
    """A task that is not done and that nobody works on."""
    why = failure(plan, task)
    if why is not None:
        return TaskView(condition="failed", detail=why, **facts)
    broken = next((need for need in needs if need.condition in {"failed", "blocked"}), None)
    if broken is not None and task.kind != "analysis":
        return TaskView(condition="blocked", detail=f"blocked by {broken.id}: {broken.detail}", **facts)
    if state is not None and state.state in {"running", "requeued", "interrupted"}:
        return TaskView(condition="interrupted", detail=state.error or "", **facts)
    return TaskView(condition="waiting", **facts)


def _running(
    plan: Plan, task: Task, owner: Owner, state: TaskState | None, facts: dict[str, Any]
) -> TaskView:
    stage, since = _stage(run_folder(plan, task.id) / "stage.json")
    started = state.attempts[-1].started if state is not None and state.attempts else None
    # runs stamp their stages in whole seconds: one of the second in which the attempt began is of this attempt
    if since is None or (started is not None and since < started.replace(microsecond=0)):
        stage, since = "starting" if task.kind in ("run", "baseline") else task.kind, started
    age = (now() - since).total_seconds() if since else None
    facts["job"] = facts["job"] or owner.slurm_job
    return TaskView(condition="running", stage=stage, age=age, host=owner.host, **facts)


def _stage(path: Path) -> tuple[str | None, datetime | None]:
    """Stage of a run and since when, as the run itself writes them."""
    try:
        raw = read_json(path)
        since = datetime.fromisoformat(raw["started"])
        return str(raw["stage"]), since if since.tzinfo else since.replace(tzinfo=UTC)
    except (StorageError, KeyError, TypeError, ValueError):
        return None, None


def _times(state: TaskState | None) -> dict[str, Any]:
    if state is None:
        return {}
    at = now()
    tries = [
        (attempt, attempt.seconds(at if attempt is state.attempts[-1] else None))
        for attempt in state.attempts
    ]
    done = [seconds for attempt, seconds in tries if attempt.outcome == "done"]
    return {
        "attempts": len(tries),
        "seconds": sum(seconds for _, seconds in tries),
        "gpu_seconds": sum(seconds * attempt.gpus for attempt, seconds in tries),
        "last_seconds": done[-1] if done else None,
    }
