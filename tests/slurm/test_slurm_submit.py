"""What is handed to sbatch, what status says, and the trial cluster; without jobs."""

import json
import os
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from secateur.pruning.files import write_json
from secateur.slurm.claims import myself
from secateur.slurm.dev.cluster import ClusterError, down, missing_programs, up
from secateur.slurm.dev.configs import Shape
from secateur.slurm.estimate import as_json, duration, estimate
from secateur.slurm.grid import build, load_grid, load_slurm
from secateur.slurm.launch import look
from secateur.slurm.overview import observe
from secateur.slurm.plan import Plan, save_plan
from secateur.slurm.queue import Job
from secateur.slurm.show import plan_table, status_table
from secateur.slurm.state import Attempt, TaskState, claim_folder, now, write_state
from secateur.slurm.submit import Submission, queued_as, sbatch_arguments, script_text


def plan_for(bench, cluster: str = "default", **changes: object) -> Plan:
    plan = build(
        load_grid(str(bench.grid_file)), bench.out, launcher="slurm", slurm=load_slurm(cluster, dict(changes))
    )
    save_plan(plan)
    return plan


def test_arguments_of_sbatch(bench) -> None:
    plan = plan_for(bench, partition="gpu", account="me", throttle=4, **{"run.constraint": "a100|h100"})
    tasks = plan.of("run")[:3]
    assert sbatch_arguments(plan, tasks, "0007", "afterok:12_0") == [
        "--parsable", f"--job-name=secateur-{plan.grid}.0007", "--array=0-2%4",
        f"--output={plan.folder}/logs/slurm/%A_%a.out", "--open-mode=append", "--requeue", "--signal=B:USR2@120",
        "--dependency=afterok:12_0", "--kill-on-invalid-dep=yes", f"--chdir={Path.cwd()}", "--partition=gpu",
        "--account=me", "--gres=gpu:1", "--constraint=a100|h100", "--time=04:00:00",
    ]  # fmt: skip


def test_the_script_is_shell_that_replaces_itself_by_the_runner(bench) -> None:
    plan = plan_for(bench, setup=["module load cuda/12.4"], env={"HF_HOME": "/a b/$(oops)'s"})
    text = script_text(plan, plan.folder / "arrays" / "0001.json")
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert shlex.split(lines[2]) == ["export", "HF_HOME=/a b/$(oops)'s"]
    assert lines[3] == "module load cuda/12.4"
    assert (
        lines[-1]
        == f"exec {sys.executable} -P -m secateur.slurm.task {plan.path} --array {plan.folder}/arrays/0001.json"
    )


def test_the_queue_of_all_grids_is_known_and_the_newest_submission_counts(bench) -> None:
    plan = plan_for(bench)
    arrays = [Submission(name="1", job="5", tasks=("a", "b")), Submission(name="2", job="9", tasks=("b",))]
    write_json(plan.folder / "submissions.json", {"arrays": [array.model_dump() for array in arrays]})
    job = Job(id="5_1", state="PENDING", name="x", reason="Priority", time="0:00")
    assert queued_as(bench.out, {}) == {"a": "5_0", "b": "9_0"}
    assert queued_as(bench.out, {"5_1": job}) == {"a": "5_0", "b": "5_1"}


def test_every_condition_is_told_apart(bench) -> None:
    plan = plan_for(bench)
    runs, captures = plan.of("run"), plan.of("capture")
    at = now()
    tried = Attempt(
        started=at - timedelta(seconds=90), ended=at, host="h", pid=1, cuda="0,1", code=1, outcome="failed"
    )
    write_state(plan, captures[0].id, TaskState(state="failed", error="WorkerError: boom", attempts=(tried,)))
    (bench.out / "cache" / "captures" / "x").mkdir(parents=True)
    good = tried.model_copy(update={"outcome": "done", "code": 0})
    write_state(plan, captures[1].id, TaskState(state="done", covers=(16,), attempts=(good,)))
    running = next(task for task in runs if captures[1].id in task.needs)
    folder = claim_folder(plan, running.id)
    folder.mkdir(parents=True)
    (folder / "1").write_text(myself().model_dump_json())
    stage = {"stage": "evaluate", "started": (at - timedelta(seconds=40)).isoformat()}
    write_json(bench.out / running.id / "stage.json", stage)
    jobs = {"7_0": Job("7_0", "PENDING", "n", "Resources", "0:00")}
    view = observe(plan, jobs, {captures[2].id: "7_0"})
    by_id = {each.id: each for each in view.tasks}
    assert by_id[captures[0].id].condition == "failed"
    assert by_id[captures[0].id].gpu_seconds == 180
    assert by_id[captures[1].id].condition == "done"
    assert (by_id[captures[2].id].condition, by_id[captures[2].id].detail) == ("queued", "Resources")
    assert (by_id[running.id].condition, by_id[running.id].stage) == ("running", "evaluate")
    assert 39 < (by_id[running.id].age or 0) < 60
    blocked = [each for each in view.tasks if each.condition == "blocked"]
    assert len(blocked) == 3
    assert all(each.detail == f"blocked by {captures[0].id}: WorkerError: boom" for each in blocked)
    assert json.loads(json.dumps(as_json(view)))["gpu_hours"] == 0.1


def test_a_stage_counts_from_the_second_in_which_the_attempt_began(bench) -> None:
    plan = plan_for(bench)
    task, began = plan.of("run")[0], now().replace(microsecond=900_000)
    attempt = Attempt(started=began, host="h", pid=1)
    write_state(plan, task.id, TaskState(state="running", attempts=(attempt,)))
    folder = claim_folder(plan, task.id)
    folder.mkdir(parents=True)
    (folder / "1").write_text(myself().model_dump_json())
    for before, stage in ((0, "plan"), (1, "starting")):
        stamp = (began - timedelta(seconds=before)).isoformat(timespec="seconds")
        write_json(bench.out / task.id / "stage.json", {"stage": "plan", "started": stamp})
        assert next(each.stage for each in look(plan).tasks if each.id == task.id) == stage


def test_a_capture_that_serves_too_few_counts_or_lost_its_cache_is_not_done(bench) -> None:
    plan = plan_for(bench)
    task = plan.of("capture")[0]
    (bench.out / "cache" / "captures" / "x").mkdir(parents=True)
    write_state(plan, task.id, TaskState(state="done", covers=(8,)))
    assert look(plan).count("capture") == {"waiting": 4}
    write_state(plan, task.id, TaskState(state="done", covers=(8, 16)))
    assert look(plan).count("capture") == {"waiting": 3, "done": 1}
    (bench.out / "cache" / "captures" / "x").rmdir()
    assert look(plan).count("capture") == {"waiting": 4}


def test_estimates_come_from_what_was_seen(bench) -> None:
    bench.write_grid(estimate={"capture_minutes": 2, "run_minutes": 10})
    plan = plan_for(bench)
    assert estimate(look(plan)) == (4 * 2 + 14 * 10) * 60
    at = now()
    seen = Attempt(started=at - timedelta(seconds=30), ended=at, host="h", pid=1, outcome="done")
    name = plan.of("run")[0].id
    write_state(plan, name, TaskState(state="done", attempts=(seen,)))
    (bench.out / name).mkdir(parents=True)
    (bench.out / name / "record.json").write_text("{}")
    assert estimate(look(plan)) == pytest.approx((4 * 120) + 13 * 30)
    assert [duration(s) for s in (5, 600, 36000)] == ["5 s", "10 min", "10.0 h"]


def test_tables_can_be_drawn(bench) -> None:
    from rich.console import Console

    console = Console(width=100, record=True)
    view = look(plan_for(bench))
    console.print(plan_table(view), status_table(view))
    text = console.export_text()
    assert "gradient work: 1.5 k tokens shared by 4 passes" in text
    assert "baselines" in text


def test_the_trial_cluster_needs_a_short_new_folder(tmp_path: Path) -> None:
    if missing_programs():
        with pytest.raises(ClusterError, match="install Slurm"):
            up(tmp_path / "c")
        return
    with pytest.raises(ClusterError, match="more than 70 characters"):
        up(tmp_path / ("long" * 20))
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match=r"is not empty|characters"):
        up(tmp_path)
    assert (tmp_path / "file").exists()
    down(tmp_path)
    assert (tmp_path / "file").exists(), "only what `up` made is taken down"


@pytest.mark.slurm
def test_the_trial_cluster_comes_up_and_leaves_nothing(cluster, tmp_path_factory) -> None:
    base = Path(f"/tmp/sl{os.getpid()}")
    command = [sys.executable, "-m", "secateur.slurm.dev"]
    done = subprocess.run(
        [*command, "up", str(base), "--gpus", "1"], capture_output=True, text=True, check=True, timeout=120
    )
    lines = [shlex.split(line)[1] for line in done.stdout.splitlines()]
    env = {**os.environ, **dict(line.split("=", 1) for line in lines)}
    try:
        seen = subprocess.run(
            ["srun", "--gres=gpu:1", "printenv", "CUDA_VISIBLE_DEVICES"], env=env, capture_output=True, text=True,
            check=True, timeout=60,
        )  # fmt: skip
        assert seen.stdout.strip() == "0"
        sleeper = subprocess.run(
            ["sbatch", "--wrap", "sleep 1000"], env=env, capture_output=True, text=True, check=True
        )
        assert "Submitted" in sleeper.stdout
    finally:
        subprocess.run([*command, "down", str(base)], check=True, timeout=60)
    assert not base.exists()
    left = [
        p
        for p in psutil.process_iter(["cmdline", "status"])
        if str(base) in " ".join(p.info["cmdline"] or [])
    ]
    assert [p for p in left if p.info["status"] != psutil.STATUS_ZOMBIE] == []
    other = {**os.environ, **cluster}
    assert subprocess.run(["sinfo", "-h"], env=other, check=False, capture_output=True).returncode == 0


def test_a_shape_without_gpus_has_no_gres() -> None:
    from secateur.slurm.dev.configs import gres_conf, slurm_conf

    shape = Shape(gpus=0, nodes=3)
    assert gres_conf(Path("/b"), shape) == ""
    assert "Gres=" not in slurm_conf(Path("/b"), 17000, "me", shape, everywhere=False)
    assert "NodeName=n[1-3]" in slurm_conf(Path("/b"), 17000, "me", shape, everywhere=False)
