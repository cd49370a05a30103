"""What is known of tasks on disk: states and attempts, and what counts as finished. Truth is the record."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from secateur.eval.record import FAILED, RECORD
from secateur.pruning.config import Frozen
from secateur.pruning.errors import StorageError
from secateur.pruning.files import digest, read_json, write_json
from secateur.slurm.plan import Plan, Task

State = Literal["running", "done", "failed", "blocked", "requeued", "interrupted"]


class Attempt(Frozen):
    """One try at a task.

    Attributes:
        started, ended: UTC times; `ended` is null while it runs, and for ever when the machine died.
        seen: Last sign of life of an attempt whose end nobody wrote.
        host, pid: Where it ran.
        job: Slurm job, if any.
        cuda: CUDA_VISIBLE_DEVICES of the process.
        code: Exit code; negative for a signal.
        outcome: How it ended.
    """

    started: datetime
    ended: datetime | None = None
    seen: datetime | None = None
    host: str
    pid: int
    job: str | None = None
    cuda: str | None = None
    code: int | None = None
    outcome: State = "running"

    @property
    def gpus(self) -> int:
        """GPUs that it held."""
        return len(
            [part for part in (self.cuda or "").split(",") if part.strip() and not part.startswith("No")]
        )

    def seconds(self, now: datetime | None = None) -> float:
        """How long it took, or takes so far (0 when nobody knows)."""
        end = self.ended or self.seen or now
        return max(0.0, (end - self.started).total_seconds()) if end else 0.0


class TaskState(Frozen):
    """What happened to one task, over all attempts and grids.

    Attributes:
        state: The last known state.
        error: Why it failed or is blocked, one line.
        code: Fingerprint of the code of the last attempt.
        covers: Sample counts that a finished capture serves.
        inputs: Digest of the records that a finished analysis has read.
        attempts: All tries, the oldest first.
    """

    state: State
    error: str | None = None
    code: str = ""
    covers: tuple[int, ...] = ()
    inputs: str = ""
    attempts: tuple[Attempt, ...] = ()


def now() -> datetime:
    """The time that states are stamped with."""
    return datetime.now(UTC)


def state_path(plan: Plan, task: str) -> Path:
    """File of a task's state; shared by all grids of a folder of runs."""
    return Path(plan.out) / "grids" / "_tasks" / f"{task}.json"


def claim_folder(plan: Plan, task: str) -> Path:
    """Folder of a task's claims."""
    return Path(plan.out) / "grids" / "_claims" / task


def log_path(plan: Plan, task: str) -> Path:
    """Log of a task: every attempt's output, one after another."""
    return plan.folder / "logs" / f"{task}.log"


def read_state(plan: Plan, task: str) -> TaskState | None:
    """State of a task; None when it never began (or its file is damaged: then the records alone count)."""
    try:
        return TaskState.model_validate(read_json(state_path(plan, task)))
    except (StorageError, ValidationError):
        return None


def write_state(plan: Plan, task: str, state: TaskState) -> None:
    """Write a task's state, whole or not at all."""
    write_json(state_path(plan, task), state.model_dump(mode="json"))


def run_folder(plan: Plan, task: str) -> Path:
    """Folder of a run."""
    return Path(plan.out) / task


def finished(plan: Plan, task: Task) -> bool:
    """Whether nothing is left to do for a task."""
    if task.kind in ("run", "baseline"):
        return (run_folder(plan, task.id) / RECORD).is_file()
    state = read_state(plan, task.id)
    if state is None or state.state != "done":
        return False
    if task.kind == "analysis":
        return state.inputs == record_digest(plan)
    return set(task.counts) <= set(state.covers) and captures_exist(plan)


def captures_exist(plan: Plan) -> bool:
    """Whether any capture lies in the cache: a state that says so of an emptied one is out of date."""
    cache = Path(plan.out) / "cache" / "captures"
    return cache.is_dir() and any(cache.iterdir())


def failure(plan: Plan, task: Task) -> str | None:
    """Why a task's last attempt failed, one line; None when it did not, or was only stopped."""
    state = read_state(plan, task.id)
    if finished(plan, task) or (state is not None and state.state in {"running", "requeued", "interrupted"}):
        return None
    if task.kind in ("run", "baseline"):
        path = run_folder(plan, task.id) / FAILED
        if path.is_file():
            return failed_line(path)
    return (state.error or "failed") if state is not None and state.state == "failed" else None


def record_digest(plan: Plan) -> str:
    """Digest of which records of a grid exist, and in which version."""
    stamps: dict[str, Any] = {}
    for task in plan.of("run", "baseline"):
        for name in (RECORD, FAILED):
            path = run_folder(plan, task.id) / name
            if path.is_file():
                stamps[f"{task.id}/{name}"] = [path.stat().st_mtime_ns, path.stat().st_size]
    return digest(stamps)


def last_sign(plan: Plan, task: str) -> datetime | None:
    """When an attempt whose end nobody wrote was seen last: its heartbeat stamps the state's file."""
    path = state_path(plan, task)
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.is_file() else None


def beat(plan: Plan, task: str) -> None:
    """Stamp a task's state as seen now."""
    with suppress(FileNotFoundError):
        os.utime(state_path(plan, task))


def failed_line(path: Path) -> str:
    """What a `failed.json` says, one line."""
    try:
        error = read_json(path).get("error") or {}
        text = f"{error.get('type', 'error')} in {error.get('stage', '?')}: {error.get('message', '')}"
    except (StorageError, AttributeError) as problem:
        text = str(problem)
    return " ".join(text.split())
