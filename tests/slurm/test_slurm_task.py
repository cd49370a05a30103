"""One task in the hands of one runner: who was told to stop, and what comes of it. Stand-in worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from slurm_bench import Bench, until, workers

from secateur.slurm.grid import build, load_grid
from secateur.slurm.plan import ROOT, Plan, Task, save_plan
from secateur.slurm.state import read_state

Start = Callable[[], tuple[subprocess.Popen[bytes], Plan, Task]]


@pytest.fixture
def hanging(bench: Bench) -> Start:
    """Start a runner whose worker hangs."""

    def start() -> tuple[subprocess.Popen[bytes], Plan, Task]:
        bench.write_grid(axes={"method": ["random"]}, baselines=False)
        bench.order(hang=["method=random"])
        plan = build(load_grid(str(bench.grid_file)), bench.out, foreign="reuse")
        save_plan(plan)
        task = plan.of("run")[0]
        words = [sys.executable, "-P", "-m", "secateur.slurm.task", str(plan.path), "--task", task.id]
        runner = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)})
        until(lambda: (bench.out / task.id / "stage.json").is_file() and workers(task), 180)
        return runner, plan, task

    return start


def outcome(plan: Plan, task: Task) -> str | None:
    state = read_state(plan, task.id)
    return state.state if state is not None else None


def test_a_worker_that_hears_of_the_stop_before_its_runner_is_no_failure(bench, hanging: Start) -> None:
    """`scancel` signals the processes of a job one after another."""
    runner, plan, task = hanging()
    workers(task)[0].send_signal(signal.SIGTERM)
    until(lambda: not workers(task), 60)
    time.sleep(0.5)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(30) == 75
    assert outcome(plan, task) == "interrupted"
    assert not (bench.out / task.id / "failed.json").exists()


def test_a_worker_that_alone_was_told_to_stop_has_failed(bench, hanging: Start) -> None:
    runner, plan, task = hanging()
    workers(task)[0].send_signal(signal.SIGTERM)
    assert runner.wait(30) == 1
    assert outcome(plan, task) == "failed"
    assert "killed by SIGTERM" in (bench.out / task.id / "failed.json").read_text()
