"""`python -m secateur.slurm.task PLAN --task ID | --array FILE`: do one task of a plan, once, whoever asks.

Exit codes: 0 done (by whomever), 1 failed, 3 blocked by a need that is not done, 75 stopped and to be continued.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from secateur.eval.code import code_fingerprint
from secateur.eval.record import FAILED, RECORD
from secateur.pruning.errors import SecateurError
from secateur.pruning.files import read_json
from secateur.slurm import queue
from secateur.slurm.claims import HEARTBEAT, Claim, acquire, my_job
from secateur.slurm.gather import gather
from secateur.slurm.leash import die_with_parent
from secateur.slurm.plan import Plan, Task, load_plan
from secateur.slurm.state import (
    Attempt,
    State,
    TaskState,
    beat,
    captures_exist,
    claim_folder,
    failed_line,
    failure,
    finished,
    last_sign,
    log_path,
    now,
    read_state,
    run_folder,
    state_path,
    write_state,
)  # fmt: skip
from secateur.slurm.unstarted import NOT_BEGUN, record_failure
from secateur.slurm.worker import Signals, how_it_ended, last_words, work

DONE, FAIL, BLOCKED, CONTINUE = 0, 1, 3, 75

CODE_CHANGED = (
    "not started: the code of pruning/ or eval/ (or torch, transformers, lm-eval) changed after this grid was planned; "
    "run `secateur grid` again (foreign=reuse accepts the mixture)"
)


def main(argv: list[str] | None = None) -> int:
    """Find the task and do it."""
    parser = argparse.ArgumentParser(prog="python -m secateur.slurm.task", description=__doc__)
    parser.add_argument("plan", type=Path)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--task", help="id of the task")
    which.add_argument("--array", type=Path, help="JSON list of task ids; SLURM_ARRAY_TASK_ID chooses one")
    parser.add_argument("--parent", type=int, help="stop when this process, the launcher, is gone")
    given = parser.parse_args(argv)
    signals = Signals()
    signals.listen()
    if given.parent:
        die_with_parent(given.parent, signal.SIGTERM)
    try:
        plan = load_plan(given.plan)
        name = given.task or read_json(given.array)[int(os.environ["SLURM_ARRAY_TASK_ID"])]
        code = Doing(plan, plan.by_id()[name], signals).go()
    except SecateurError as error:
        print(f"secateur grid: {error}", file=sys.stderr)
        return FAIL
    return code


class Doing:
    """One task in the hands of this process."""

    def __init__(self, plan: Plan, task: Task, signals: Signals) -> None:
        self.plan, self.task, self.signals = plan, task, signals
        self.before: TaskState | None = None
        self.claimed = False
        self.attempt = Attempt(
            started=now(), host=os.uname().nodename, pid=os.getpid(), job=my_job(),
            cuda=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )  # fmt: skip

    def go(self) -> int:
        """Do the task unless it is done, blocked, or another process does it right now (then wait for that one)."""
        claim: Claim | None = None
        while claim is None:
            if finished(self.plan, self.task):
                return self._was_done()
            if self.signals.stop:
                return self._stopped()
            claim = acquire(claim_folder(self.plan, self.task.id), queue.lives)
            if claim is None:
                time.sleep(1.0)
        self.claimed = True
        try:
            self.before = self._earlier_state()
            if finished(self.plan, self.task):
                return self._was_done()
            return self._blocked() or self._work(claim)
        finally:
            claim.release()

    def _blocked(self) -> int:
        if self.task.kind == "analysis":
            return DONE
        tasks = self.plan.by_id()
        open_needs = [name for name in self.task.needs if not finished(self.plan, tasks[name])]
        if not open_needs:
            return DONE
        why = failure(self.plan, tasks[open_needs[0]]) or "it is not done"
        self._write("blocked", error=f"blocked by {open_needs[0]}: {why}")
        return BLOCKED

    def _work(self, claim: Claim) -> int:
        if (
            self.plan.foreign != "reuse"
            and self.task.kind != "analysis"
            and code_fingerprint() != self.plan.code
        ):
            self._write("interrupted", error=CODE_CHANGED)
            return CONTINUE
        inputs = gather(self.plan) if self.task.kind == "analysis" else ""
        self._write("running")
        began = time.time()

        def sign_of_life() -> None:
            claim.beat()
            beat(self.plan, self.task.id)

        try:
            code = work(self.plan, self.task, self.signals, sign_of_life, HEARTBEAT)
        except OSError as error:
            return self._failed("NotStarted", f"the worker cannot be started: {error}")
        if self._succeeded(code):
            covers = set(self.task.counts) | set(self.before.covers if self.before else ())
            self._write("done", code=code, covers=tuple(sorted(covers)), inputs=inputs)
            return DONE
        if self.signals.explain(code):
            return self._stopped(code)
        return self._died(code, began)

    def _succeeded(self, code: int) -> bool:
        if self.task.kind in ("run", "baseline"):
            return (run_folder(self.plan, self.task.id) / RECORD).is_file()
        return code == 0 and (self.task.kind == "analysis" or captures_exist(self.plan))

    def _died(self, code: int, began: float) -> int:
        """The worker has failed: keep its own words, or say how it ended."""
        path = run_folder(self.plan, self.task.id) / FAILED
        if self.task.kind in ("run", "baseline") and path.is_file() and path.stat().st_mtime >= began - 2:
            self._write("failed", code=code, error=failed_line(path))
            return FAIL
        words = last_words(log_path(self.plan, self.task.id))
        if code == 0:
            what = "no capture was written" if self.task.kind == "capture" else f"no {RECORD} under this name"
            words = f"{what}; code, data or the worker changed since the plan: run `secateur grid` again"
        kind = "Killed" if code < 0 else "WorkerError"
        return self._failed(kind, how_it_ended(code) + (f": {words}" if words else ""), code)

    def _failed(self, kind: str, message: str, code: int | None = None) -> int:
        """Write a failure where a run's row is looked for, and into the state."""
        record_failure(self.plan, self.task, kind, message)
        self._write("failed", code=code, error=f"{kind}: {message}")
        return FAIL

    def _stopped(self, code: int | None = None) -> int:
        """Asked to stop: back into the queue where the scheduler is to do that, else interrupted."""
        job = my_job()
        if (
            self.signals.requeue
            and job is not None
            and self.plan.launcher == "slurm"
            and self.plan.slurm.requeue
        ):
            if queue.restarts() >= self.plan.slurm.max_requeues:
                return self._failed(
                    "TimeLimit", f"the time limit was reached {queue.restarts() + 1} times", code
                )
            if self.claimed:
                self._write("requeued", code=code)
            subprocess.run(["scontrol", "requeue", job], check=False, timeout=60)  # noqa: S607
            return CONTINUE
        if self.claimed:
            self._write("interrupted", code=code)
        elif job is not None:
            print(NOT_BEGUN)
        return CONTINUE

    def _was_done(self) -> int:
        """Nothing to do; a record that another process wrote is noted, without an attempt."""
        if self.claimed and (self.before is None or self.before.state != "done"):
            earlier = self.before or TaskState(state="done")
            self._store(earlier.model_copy(update={"state": "done", "error": None}))
        return DONE

    def _write(
        self, outcome: State, code: int | None = None, error: str | None = None, **facts: object
    ) -> None:
        ended = None if outcome == "running" else now()
        attempt = self.attempt.model_copy(update={"ended": ended, "code": code, "outcome": outcome})
        state = TaskState(
            state=outcome, error=error, code=code_fingerprint(),
            attempts=(*(self.before.attempts if self.before else ()), attempt),
            covers=self.before.covers if self.before else (),
        )  # fmt: skip
        self._store(state.model_copy(update=facts))

    def _earlier_state(self) -> TaskState | None:
        """What happened before; an attempt that nobody ended was killed, and is given its last sign of life."""
        state = read_state(self.plan, self.task.id)
        if state is None:
            return None
        lost = {"seen": last_sign(self.plan, self.task.id), "outcome": "interrupted"}
        attempts = [
            a.model_copy(update=lost) if a.ended is None and a.seen is None else a for a in state.attempts
        ]
        return state.model_copy(update={"attempts": tuple(attempts)})

    def _store(self, state: TaskState) -> None:
        state_path(self.plan, self.task.id).parent.mkdir(parents=True, exist_ok=True)
        write_state(self.plan, self.task.id, state)


if __name__ == "__main__":
    sys.exit(main())
