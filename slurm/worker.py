"""One attempt at a task: the process that works, its log, its signals, and how it ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from secateur.slurm.plan import ROOT, Plan, Task
from secateur.slurm.state import log_path, now

GRACE = 10.0
"""Seconds that a worker gets between the request to stop and the kill."""

STOPPED = {-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT}
"""Exit codes of a worker that was told to stop, itself or within a container."""

ECHO = 3.0
"""Seconds by which a signal to all processes of a job may reach the worker before it reaches this process."""

POLL = 0.2
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Signals:
    """Requests to stop: SIGUSR2 means the time is nearly up, SIGTERM and SIGINT mean stop now."""

    received: list[int] = field(default_factory=list)

    def listen(self) -> None:
        """Only note signals from now on; the loop that waits for the worker acts on them."""
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(sign, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)

    @property
    def stop(self) -> bool:
        """Whether anything asked to stop."""
        return bool(self.received)

    def explain(self, code: int) -> bool:
        """Whether a worker ended because of a request to stop, which may have reached it before it reaches us."""
        deadline = time.monotonic() + (ECHO if code in STOPPED else 0.0)
        while not self.stop and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.stop

    @property
    def requeue(self) -> bool:
        """Whether the task is to go back into the queue."""
        return signal.SIGUSR2 in self.received


def environment(plan: Plan) -> dict[str, str]:
    """Environment of a worker: this code first on the path, a fixed number of threads where the grid says so."""
    result = dict(os.environ)
    result["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), result.get("PYTHONPATH", "")]))
    if plan.threads is not None:
        result |= dict.fromkeys(THREADS, str(plan.threads))
    if plan.launcher == "slurm" and plan.slurm.offline:
        result |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return result


def command(plan: Plan, task: Task) -> list[str]:
    """The worker's command line; `-P` keeps folders of the working directory from shadowing ours."""
    return [*(plan.worker or (sys.executable, "-P", "-m", "secateur")), *task.argv]


def work(plan: Plan, task: Task, signals: Signals, beat: Callable[[], None], every: float) -> int:
    """Run the worker to its end, or stop it when a signal asks for it.

    Args:
        plan: The plan.
        task: What to do.
        signals: Requests to stop.
        beat: Called as a sign of life.
        every: Seconds between two signs of life.

    Returns:
        The worker's exit code, negative for a signal.
    """
    log = log_path(plan, task.id)
    log.parent.mkdir(parents=True, exist_ok=True)
    line = command(plan, task)
    with log.open("ab") as stream:
        stream.write(f"== {now():%Y-%m-%d %H:%M:%S} UTC {os.uname().nodename} {' '.join(line)}\n".encode())
        stream.flush()
        leash = [sys.executable, "-P", "-m", "secateur.slurm.leash", str(os.getpid()), *line]
        process = subprocess.Popen(
            leash, cwd=plan.cwd, env=environment(plan), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
        due = time.monotonic() + every
        while True:
            try:
                return process.wait(POLL)
            except subprocess.TimeoutExpired:
                if signals.stop:
                    return _stop(process)
                if time.monotonic() >= due:
                    beat()
                    due = time.monotonic() + every


def last_words(path: Path, size: int = 8192) -> str:
    """The last line that a worker has written, for a message."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - size))
        lines = [line.strip() for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines and not lines[-1].startswith("== ") else ""


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (often: out of memory)" if name == "SIGKILL" else "")


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Ask the worker's process group to stop, then make it."""
    for sign, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    return -signal.SIGKILL
