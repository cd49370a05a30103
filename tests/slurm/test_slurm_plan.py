"""The planner: what is shared, what is named how, and that it is quick and light."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.analysis.words import parse as take_apart
from secateur.eval.config import RunConfig
from secateur.eval.identity import run_id
from secateur.pruning.config import validate
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.levels import estimator_names, level_of
from secateur.slurm.arguments import parse
from secateur.slurm.grid import build, load_grid
from secateur.slurm.plan import ROOT, load_plan, save_plan
from secateur.slurm.preflight import check
from secateur.slurm.show import task_lines


def test_the_study_is_135_runs_on_15_captures_and_3_baselines() -> None:
    program = (
        "import sys, secateur.command\n"
        "code = secateur.command.main(['grid', 'grid=taylor_sweep', 'out=/nonexistent/runs', '--dry-run', '--json'])\n"
        "heavy = [m for m in ('torch', 'transformers', 'lm_eval', 'pandas', 'datasets') if m in sys.modules]\n"
        "print(heavy, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    after = os.times()
    seconds = after.children_user - before.children_user + after.children_system - before.children_system
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts == {
        "capture": {"waiting": 15}, "baseline": {"waiting": 3}, "run": {"waiting": 135}, "analysis": {"waiting": 1},
    }  # fmt: skip
    assert done.stderr.strip().endswith("[]"), f"imported: {done.stderr}"
    assert not Path("/nonexistent").exists(), "a dry run writes nothing"
    assert seconds < 5, "of the processor: other work on this machine does not count"


def test_a_shared_pass_is_a_fifth_of_the_work() -> None:
    plan = build(load_grid("taylor_sweep"), Path("/nonexistent"))
    shared = sum(task.gradient_tokens for task in plan.tasks)
    assert shared == 3 * 512 * (16 + 32 + 64 + 128 + 256)
    assert plan.unshared_tokens / shared == pytest.approx(3 * (128 + 256 + 512) / 512)


def test_needs_come_first_and_every_run_needs_the_capture_of_its_model_and_length() -> None:
    plan = build(load_grid("taylor_sweep"), Path("/nonexistent"))
    seen: set[str] = set()
    for task in plan.tasks:
        assert set(task.needs) <= seen
        seen.add(task.id)
        if task.kind == "run":
            config = task.config
            assert config is not None
            assert task.needs[0].startswith(
                f"capture-{config['model']['name']}-{config['taylor']['seq_len']}-"
            )
    assert len(plan.tasks[-1].needs) == 138
    capture = plan.of("capture")[0]
    assert {"taylor.num_samples=512", "capture.snapshots=[128,256]"} <= set(capture.argv)


def test_levels_of_estimators_are_those_of_the_gradient_pass() -> None:
    assert {name: int(rule.level) for name, rule in ESTIMATORS.items()} == {
        name: int(level_of(name)) for name in estimator_names()
    }


def test_second_moments_are_a_pass_of_their_own(bench) -> None:
    """A pass with weight gradients does not serve `obs` and `surgeon`, theirs does not serve `taylor`."""
    bench.write_grid(axes={"method": ["taylor", "taylor_second", "obs", "secateur", "taylor_gate"]})
    plan = build(load_grid(str(bench.grid_file)), bench.out)
    models = len({task.label.split()[0] for task in plan.of("capture")})
    assert len(plan.of("capture")) == 2 * models
    served = {run.config["method"]["name"]: run.needs[0] for run in plan.of("run") if run.config}
    assert served["obs"] == served["secateur"] != served["taylor"] == served["taylor_second"]
    assert served["taylor"] == served["taylor_gate"]


def test_a_pass_for_several_estimators_is_made_for_the_most_demanding(bench) -> None:
    bench.write_grid(axes={"method": ["wanda", "random", "taylor", "magnitude", "taylor_gate"]})
    plan = build(load_grid(str(bench.grid_file)), bench.out)
    assert len(plan.of("capture")) == 2
    assert all("method=taylor" in task.argv for task in plan.of("capture"))
    free = [task for task in plan.of("run") if "random" in task.id or "magnitude" in task.id]
    assert len(free) == 4
    assert not any(task.needs for task in free)


def test_a_new_value_of_an_axis_adds_tasks_and_renames_none(bench) -> None:
    first = build(load_grid(str(bench.grid_file)), bench.out)
    bench.write_grid(axes={"taylor.seq_len": [16, 32, 64], "method": ["taylor", "layerwise", "blockwise"],
                           "taylor.num_samples": [16]})  # fmt: skip
    second = build(load_grid(str(bench.grid_file)), bench.out)
    old = {task.id for task in first.tasks if task.kind != "analysis"}
    new = {task.id for task in second.tasks if task.kind != "analysis"}
    assert old < new
    assert len(new - old) == 2 * (1 + 3)
    assert first.grid != second.grid


def test_other_content_is_another_run_and_another_capture(bench) -> None:
    first = build(load_grid(str(bench.grid_file)), bench.out)
    (bench.folder / "text.txt").write_text("another text\n")
    second = build(load_grid(str(bench.grid_file)), bench.out)
    changed = {task.id for task in first.of("capture", "run")} & {
        task.id for task in second.of("capture", "run")
    }
    assert not changed
    assert [t.id for t in first.of("baseline")] == [t.id for t in second.of("baseline")]


def test_files_are_digested_once_per_version(bench) -> None:
    """The same size and time of last change: not read again. Another time: read again."""
    config = validate(RunConfig, build(load_grid(str(bench.grid_file)), bench.out).of("run")[0].config)
    first = run_id(config)
    for path in (bench.folder / "m1" / "model.safetensors", bench.folder / "text.txt"):
        stat, text = path.stat(), path.read_bytes()
        path.write_bytes(text[::-1])
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert run_id(config) == first
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        assert run_id(config) != first
        path.write_bytes(text)
        assert run_id(config) == first


def test_the_analysis_reads_the_folder_that_was_asked_for(bench) -> None:
    """Its words are not Hydra's: nothing may be quoted in them; the other tasks' words are, and come back whole."""
    out = bench.out / "it's a $(touch oops) folder, [with] = signs"
    plan = build(load_grid(str(bench.grid_file)), out)
    (analysis,) = plan.of("analysis")
    given = take_apart(list(analysis.argv[1:]), ("runs", "out"))
    assert Path(given.one("runs", "")).parent == Path(given.one("out", "")).parent == plan.folder
    assert out in plan.folder.parents
    for task in plan.of("run"):
        assert parse(list(task.argv[1:]), set()).one("out") == str(out)
    assert all(
        shlex.split(line)[3:] == list(task.argv)
        for line, task in zip(task_lines(plan), plan.tasks, strict=True)
    )


def test_baselines_belong_to_the_evaluation(bench) -> None:
    text = bench.folder / "text.txt"
    bench.write_grid(
        overrides={"eval.ppl.text": str(text), "budget.ratio": 0.3, "guard.round_to": 2},
        axes={"eval.ppl.window": [64, 128], "method": ["taylor", "random"]},
    )
    plan = build(load_grid(str(bench.grid_file)), bench.out)
    assert len(plan.of("run")) == 8
    assert len(plan.of("baseline")) == 4
    assert len(plan.of("capture")) == 2
    assert all(
        "budget.ratio=0.0" in task.argv and "guard.round_to=2" not in task.argv
        for task in plan.of("baseline")
    )


def test_points_with_the_same_identity_are_one_run(bench) -> None:
    bench.write_grid(axes={"device": ["auto", "cpu"], "method": ["taylor"]})
    assert len(build(load_grid(str(bench.grid_file)), bench.out).of("run")) == 2


def test_plans_survive_the_disk_and_damage_is_said(bench) -> None:
    plan = build(load_grid(str(bench.grid_file)), bench.out)
    save_plan(plan)
    assert load_plan(plan.path) == plan
    plan.path.write_text(plan.path.read_text().replace('"kind": "capture"', '"kind": "cap"', 1))
    with pytest.raises(Exception, match="no plan of this version") as caught:
        load_plan(plan.path)
    assert "run the grid command again" in str(caught.value)


def test_preflight_names_what_is_missing_and_the_line_to_run(bench, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(bench.folder / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    plan = build(load_grid("taylor_sweep"), bench.out, {"model": ("llama3_8b",)})
    problems = check(plan, offline=True)
    assert [problem.fix.split("   ")[0] for problem in problems] == [
        "secateur fetch tasks=none texts=none model=meta-llama/Meta-Llama-3-8B model_dir=MODEL_DIR",
        "secateur fetch data_dir=DIR tasks=none texts=wikitext2",
        "secateur fetch data_dir=DIR",
    ]
    snapshot = bench.folder / "hub/hub/models--meta-llama--Meta-Llama-3-8B/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert len(check(plan, offline=True)) == 2
    assert check(plan, offline=False) == []


def test_preflight_sees_incomplete_models_and_unwritable_folders(bench) -> None:
    plan = build(load_grid(str(bench.grid_file)), bench.folder / "text.txt" / "runs")
    (bench.folder / "m1" / "model.safetensors").unlink()
    assert [problem.what.split(":")[0].split(" ")[-1] for problem in check(plan, offline=True)] == [
        "written",
        "m1",
    ]


def test_preflight_refuses_a_full_disk(bench, monkeypatch) -> None:
    plan = build(load_grid(str(bench.grid_file)), bench.out)
    assert check(plan, offline=True) == []
    monkeypatch.setattr("secateur.slurm.preflight.RUN_BYTES", 2**60)
    assert "GiB free, the grid needs about" in check(plan, offline=True)[0].what
