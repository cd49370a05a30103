"""The same plan on this machine: a pool of workers, one per GPU, each task in processes of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from secateur.pruning.errors import ConfigError
from secateur.pruning.files import write_json
from secateur.slurm.claims import myself
from secateur.slurm.overview import Overview
from secateur.slurm.plan import ROOT, Plan, Task
from secateur.slurm.state import finished, log_path
from secateur.slurm.unstarted import ended_silently, never_started
from secateur.slurm.worker import THREADS

TICK = 0.1
Report = Callable[[str, Task], None]
"""Called with `start`, `end` or `blocked`, and the task."""


@dataclass(frozen=True)
class Slot:
    """One worker's place: what its processes see."""

    environment: dict[str, str]


def slots(plan: Plan, workers: int | None, gpus: list[str]) -> list[Slot]:
    """The places of the pool: one per GPU, or `workers` on the CPU, sharing its cores.

    Raises:
        ConfigError: Fewer than one worker.
    """
    count = workers if workers is not None else max(1, len(gpus))
    if count < 1:
        raise ConfigError(f"workers={count}: at least one is needed")
    if gpus:
        return [Slot({"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}) for index in range(count)]
    threads = str(plan.threads or max(1, (os.cpu_count() or 1) // count))
    return [Slot(dict.fromkeys(THREADS, threads)) for _ in range(count)]


def visible_gpus() -> list[str]:
    """GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part.strip() for part in given.split(",") if part.strip() and part.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], check=False, capture_output=True, text=True, timeout=30)  # noqa: S607
    return [str(index) for index, line in enumerate(listing.stdout.splitlines()) if line.startswith("GPU ")]


def side_by_side(plan: Plan) -> int | None:
    """How many tasks of a grid are done at a time; None on a cluster, where the queue decides."""
    return len(slots(plan, plan.workers, visible_gpus())) if plan.launcher == "local" else None


class Pool:
    """Starts tasks when their needs are done and a place is free; never more than one task per place."""

    def __init__(self, view: Overview, places: list[Slot], report: Report, retry: bool = False) -> None:
        self.plan = view.plan
        wanted = {"waiting", "interrupted", "queued", "running"} | ({"failed", "blocked"} if retry else set())
        condition = {each.id: each.condition for each in view.tasks}
        self.todo = {task.id: task for task in self.plan.tasks if condition[task.id] in wanted}
        last = {task.id: task for task in self.plan.of("analysis")}
        if self.todo or any(condition[name] != "done" for name in last):
            self.todo |= last  # new records make an analysis of before outdated
        self.done = {name for name, state in condition.items() if state == "done"}
        self.failed = {
            each.id
            for each in view.tasks
            if each.condition in {"failed", "blocked"} and each.id not in self.todo
        }
        self.free = list(places)
        self.running: dict[str, tuple[subprocess.Popen[bytes], Slot]] = {}
        self.report = report
        self.stopped = False

    def run(self) -> bool:
        """Work until nothing is left; return whether it was stopped by a signal."""
        before = {sign: signal.signal(sign, self._stop) for sign in (signal.SIGINT, signal.SIGTERM)}
        owner = myself().model_dump(mode="json")
        path = self.plan.folder / "launcher.json"
        write_json(path, owner)
        try:
            while self.running or (self.todo and not self.stopped):
                self._collect()
                if not self.stopped:
                    self._start()
                time.sleep(TICK)
        finally:
            path.unlink(missing_ok=True)
            for sign, handler in before.items():
                signal.signal(sign, handler)
        return self.stopped

    def _start(self) -> None:
        for task in list(self.todo.values()):
            broken = [name for name in task.needs if name in self.failed]
            if broken and task.kind != "analysis":
                self.failed.add(task.id)
                del self.todo[task.id]
                self.report("blocked", task)
                continue
            ended = self.done if task.kind != "analysis" else self.done | self.failed
            if self.free and all(name in ended for name in task.needs):
                del self.todo[task.id]
                self._spawn(task, self.free.pop())

    def _spawn(self, task: Task, place: Slot) -> None:
        environment = {**os.environ, **place.environment}
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(ROOT), environment.get("PYTHONPATH", "")])
        )
        words = [sys.executable, "-P", "-m", "secateur.slurm.task", str(self.plan.path)]
        words += [f"--task={task.id}", f"--parent={os.getpid()}"]
        log = log_path(self.plan, task.id)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stream:
                process = subprocess.Popen(
                    words, env=environment, cwd=self.plan.cwd, stdin=subprocess.DEVNULL, stderr=stream,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            never_started(self.plan, task, str(error))
            self.free.append(place)
            self.failed.add(task.id)
            self.report("end", task)
            return
        self.running[task.id] = (process, place)
        self.report("start", task)

    def _collect(self) -> None:
        for name, (process, place) in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[name]
            self.free.append(place)
            task = self.plan.by_id()[name]
            if code != 0 or not (task.kind == "analysis" or finished(self.plan, task)):
                self.failed.add(name)
                why = ended_silently(self.plan, task, process.pid, code)
                if why is not None and not self.stopped:
                    never_started(self.plan, task, why)
            else:
                self.done.add(name)
            self.report("end", task)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = True
        for process, _ in self.running.values():
            process.terminate()
