"""Tasks that could not begin: no attempt could say what went wrong, so whoever started them does."""

from contextlib import suppress
from pathlib import Path

from secateur.eval.record import Failure, RunRecord, write_record
from secateur.pruning.errors import StorageError
from secateur.slurm import queue
from secateur.slurm.claims import holder
from secateur.slurm.plan import Plan, Task
from secateur.slurm.state import (
    TaskState,
    claim_folder,
    finished,
    log_path,
    read_state,
    run_folder,
    write_state,
)
from secateur.slurm.worker import how_it_ended, last_words

NOT_BEGUN = "stopped before it began"
"""What a job says that ends without an attempt because it was asked to."""

CANCELLED = "CANCELLED AT"
"""What Slurm writes into the output of a job that it has ended itself."""


def record_failure(plan: Plan, task: Task, kind: str, message: str) -> None:
    """Write a failure where a run's row is looked for."""
    if task.kind in ("run", "baseline"):
        record = RunRecord(
            run_id=task.id, kind="dense" if task.kind == "baseline" else "pruned", status="failed",
            error=Failure(stage="worker", type=kind, message=message), config=task.config or {}, card={},
        )  # fmt: skip
        write_record(run_folder(plan, task.id), record)


def never_started(plan: Plan, task: Task, message: str) -> None:
    """Note that a task could not be started here, unless another process has it in hand."""
    if finished(plan, task) or holder(claim_folder(plan, task.id), queue.lives) is not None:
        return
    before = read_state(plan, task.id) or TaskState(state="failed")
    with suppress(StorageError):  # a folder that cannot be written is why it did not start
        record_failure(plan, task, "NotStarted", message)
        error = f"NotStarted: {message}"
        write_state(plan, task.id, before.model_copy(update={"state": "failed", "error": error}))


def ended_silently(plan: Plan, task: Task, pid: int, code: int) -> str | None:
    """How a runner of ours ended that failed without writing an attempt to its end; None when it wrote one.

    A runner that a signal killed is continued by the next call, like every interrupted task.
    """
    state = read_state(plan, task.id)
    last = state.attempts[-1] if state is not None and state.attempts else None
    if code <= 0 or (last is not None and last.pid == pid and last.ended is not None):
        return None
    words = last_words(log_path(plan, task.id))
    return how_it_ended(code) + (f": {words}" if words else "")


def never_began(plan: Plan, state: TaskState | None, job: str) -> tuple[str, Path] | None:
    """Why a job has left the queue without an attempt at its task, and the file that Slurm wrote; None when unknown.

    A job without such a file was cancelled before it ran, or its node was lost: it is submitted again.
    """
    if state is not None and any(attempt.job == job for attempt in state.attempts):
        return None
    path = next(iter((Path(plan.out) / "grids").glob(f"*/logs/slurm/{job}.out")), None)
    if path is None:
        return None
    words = last_words(path)
    if CANCELLED in words or words == NOT_BEGUN:
        return None
    return f"NotStarted: job {job} ended before the task began" + (f": {words}" if words else ""), path
