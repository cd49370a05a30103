"""What a grid tells a person: where it is, how long it takes, and what is left when it is stopped. Stand-in worker."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from slurm_bench import Bench, until

from secateur.command import main
from secateur.slurm.estimate import estimate
from secateur.slurm.grid import build, load_grid
from secateur.slurm.launch import look
from secateur.slurm.plan import ROOT, Plan, Task, find_plans, load_plan, save_plan
from secateur.slurm.show import event_line
from secateur.slurm.state import Attempt, TaskState, now, write_state

SMALL = {"taylor.seq_len": [16], "method": ["taylor", "random"]}


def planned(bench: Bench, out: Path, **changes: object) -> Plan:
    bench.write_grid(**changes)
    plan = build(load_grid(str(bench.grid_file)), out, foreign="reuse", workers=2)
    save_plan(plan)
    return plan


def test_status_finds_a_grid_in_a_folder_below(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make demo` writes `runs/demo`, and a person then types `secateur status`."""
    monkeypatch.chdir(bench.folder)
    assert main(["status"]) == 1
    assert "holds no grid yet" in capsys.readouterr().err
    demo = planned(bench, bench.out / "demo", axes=SMALL)
    for words in ([], [demo.grid], [demo.name], ["out=runs"], ["out=runs/demo"]):
        assert main(["status", *words]) == 0
        assert f"in {bench.out / 'demo'}" in capsys.readouterr().out, words
    task = demo.tasks[0].id
    (demo.folder / "logs").mkdir()
    (demo.folder / "logs" / f"{task}.log").write_text("its words\n")
    assert main(["logs", task]) == 0
    assert "its words" in capsys.readouterr().out
    here = planned(bench, bench.out, axes=SMALL | {"taylor.seq_len": [32]})
    os.utime(demo.path)
    assert main(["status"]) == 0
    assert here.grid in capsys.readouterr().out, "a grid of the folder itself comes first"
    assert main(["status", demo.grid]) == 0
    assert demo.grid in capsys.readouterr().out


def test_a_stopped_grid_says_so_in_a_few_lines(bench: Bench) -> None:
    """Tasks that were never started are a number of the table, not a line each."""
    bench.write_grid()
    bench.order(seconds=60)
    words = [sys.executable, "-P", "-m", "secateur", "grid", f"grid={bench.grid_file}", f"out={bench.out}"]
    process = subprocess.Popen(
        [*words, "foreign=reuse", "workers=2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    until(lambda: find_plans(bench.out) and look(bench.plan()).of("running"), 60)
    assert len(look(bench.plan()).of("waiting")) > 10
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    after = text.split("stopped; the same command continues")[1].splitlines()
    assert not [line for line in after if line.startswith(("waiting", "interrupted"))]
    assert len(after) < 15
    view = look(load_plan(find_plans(bench.out)[0]))
    runs = next(line for line in after if "runs" in line and str(bench.out) not in line)
    assert str(view.count("run")["waiting"]) in runs, "how many wait stands in the table"
    assert not view.of("failed"), "a task that was stopped has not failed"


def done(plan: Plan, task: Task, seconds: float) -> None:
    """The files of a task that took so long."""
    at = now()
    tried = Attempt(started=at - timedelta(seconds=seconds), ended=at, host="h", pid=1, outcome="done")
    write_state(plan, task.id, TaskState(state="done", covers=task.counts, attempts=(tried,)))
    folder = Path(plan.out) / ("cache/captures/x" if task.kind == "capture" else task.id)
    folder.mkdir(parents=True, exist_ok=True)
    if task.kind != "capture":
        (folder / "record.json").write_text("{}")


def test_the_estimate_is_for_the_workers_there_are_and_learns_from_what_is_done(bench: Bench) -> None:
    """The file expects 60 s a task; in truth the two models take 10 and 20 s: the estimate follows at once."""
    plan = planned(bench, bench.out, estimate={"capture_minutes": 1, "run_minutes": 1})
    work = [task for task in plan.tasks if task.kind != "analysis"]
    seconds = {task.id: 10 if task.label.startswith("m1") else 20 for task in work}
    assert estimate(look(plan)) == 60 * len(work)
    assert estimate(look(plan), 2) == 60 * len(work) / 2
    left = list(work)
    for task in [next(t for t in work if t.kind == k and t.label.startswith(m)) for k in ("capture", "run")
                 for m in ("m1", "m2")]:  # fmt: skip
        done(plan, task, seconds[task.id])
        left.remove(task)
    true = sum(seconds[task.id] for task in left)
    assert estimate(look(plan)) == pytest.approx(true, rel=0.01)
    assert estimate(look(plan), 2) == pytest.approx(true / 2, rel=0.01)
    for task in left[:-1]:
        done(plan, task, seconds[task.id])
    last = left[-1]
    assert estimate(look(plan), 8) == pytest.approx(seconds[last.id], rel=0.01), "one task has one worker"
    line = event_line(look(plan), "end", left[0], 2)
    assert f"1 left, about {seconds[last.id]} s" in line
    done(plan, last, seconds[last.id])
    assert estimate(look(plan), 2) == 0


def test_the_plan_says_how_many_workers_its_estimate_is_for(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write_grid(axes=SMALL, estimate={"capture_minutes": 1, "run_minutes": 1})
    assert bench.grid("--dry-run", "workers=2") == 0
    assert "estimate: 4 min left, 2 workers side by side" in capsys.readouterr().out
    assert bench.grid("--dry-run") == 0
    assert "estimate: 8 min left, one task after another" in capsys.readouterr().out


def test_the_demo_is_expected_to_take_what_it_takes() -> None:
    """3 captures, 3 baselines, 18 runs: about four minutes with two workers on a laptop; it once said twelve."""
    grid = load_grid("demo")
    assert grid.estimate is not None
    minutes = (3 * grid.estimate.capture_minutes + 21 * grid.estimate.run_minutes) / 2
    assert 2 < minutes < 6
