"""Names that are files everywhere, and tasks that cannot start: they have failed, with a log; they do not wait."""

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from slurm_bench import Bench

from secateur.command import main
from secateur.pruning.naming import safe_name
from secateur.pruning.overrides import write
from secateur.pruning.world.bundle import model_dir
from secateur.slurm import queue
from secateur.slurm.grid import build, load_grid
from secateur.slurm.launch import look
from secateur.slurm.local import Pool, Slot
from secateur.slurm.plan import ROOT, Plan, save_plan
from secateur.slurm.state import log_path, state_path
from secateur.slurm.unstarted import CANCELLED, NOT_BEGUN

STRANGE = (
    "-x",
    "--help",
    ".hidden",
    "模型",
    "é model",
    "a=b,c",
    "'q'",
    "x" * 300,
    "-",
    "...",
    "CON",
    "हिन्दी",
)
FORBIDDEN = set('<>:"/\\|?* \t\n=,')
ONE = {"taylor.seq_len": [16], "method": ["taylor"]}


@pytest.mark.parametrize(
    "text", [*STRANGE, "../up", "a/b", "nul\0", "\ud800", "e\u0301", "\u0301", "end.", ""]
)
def test_a_name_is_a_file_on_every_system(text: str, tmp_path: Path) -> None:
    name = safe_name(text)
    assert name
    assert name[0] not in "-."
    assert not FORBIDDEN & set(name)
    assert unicodedata.normalize("NFC", name) == name
    assert len(f"{name}-{safe_name(text)}-0.2-128x256-0123456789.json".encode()) <= 255
    assert safe_name(name) == name
    (tmp_path / f"{name}-0123456789").mkdir()


def test_names_that_were_good_stay() -> None:
    for name in ("tiny_llama", "Meta-Llama-3-8B", "v1.5_x", "模型"):
        assert safe_name(name) == name


def models(bench: Bench, names: tuple[str, ...]) -> list[dict[str, str]]:
    """Folders with these names, each a model of its own, as a grid lists them."""
    found = []
    for name in names:
        folder = bench.folder / "models" / name[:200]
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "name": name}))
        (folder / "model.safetensors").write_bytes(name.encode())
        found.append({
            "model": "local", "model.path": str(folder), "model.name": name, "calibration": "text_file",
            "calibration.path": str(bench.folder / "text.txt"), "eval": "none",
        })  # fmt: skip
    return found


def test_a_grid_of_models_with_strange_names_is_done(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("-x", "--help", ".hidden", "模型", "a=b,c")
    bench.write_grid(models=models(bench, names), axes=ONE)
    assert bench.grid("workers=2") == 0
    view = look(bench.plan())
    assert view.complete
    assert len(bench.records()) == 2 * len(names)
    ids = [each.id for each in view.tasks] + [bench.plan().grid]
    assert all(each[0].isalnum() for each in ids)
    capsys.readouterr()
    for each in view.of("done"):
        if each.kind == "run":
            assert bench.call("logs", each.id) == 0
            assert each.id in capsys.readouterr().out
    assert bench.call("status", bench.plan().grid) == 0


def test_a_run_of_a_folder_with_a_strange_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("-x", ".hidden", "模型")):
        Path(name).symlink_to(model_dir("tiny_llama"))
        words = ["model=local", write("model.path", name), "calibration=world", "eval=none"]
        assert main(["run", *words, "taylor.num_samples=4", f"out=runs{number}", "device=cpu"]) == 0
        records = [path.parent.name for path in Path(f"runs{number}").glob("*/record.json")]
        assert records
        assert all(record[0] not in "-." for record in records)
        assert main(["show", records[0], f"runs=runs{number}"]) == 0


def failed(bench: Bench) -> dict[str, str]:
    """What is said of each failed task; nothing may wait or count as interrupted."""
    view = look(bench.plan())
    assert not view.of("waiting", "interrupted", "queued", "running")
    assert all(log_path(view.plan, each.id).is_file() for each in view.of("failed"))
    return {each.kind: each.detail for each in view.of("failed")}


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (["/nowhere/python", "-m", "secateur"], "cannot run /nowhere/python: No such file or directory"),
        ([str(ROOT / "pyproject.toml")], "Permission denied"),
        ([sys.executable, "-c", "raise SystemExit('no module of this name')"], "no module of this name"),
        ([sys.executable, "-c", ""], "no capture was written"),
        ([sys.executable, "-c", "import os; os.abort()"], "killed by SIGABRT"),
    ],
)
def test_a_worker_that_cannot_work_has_failed(bench: Bench, worker: list[str], said: str) -> None:
    bench.write_grid(axes=ONE, worker=worker, models=models(bench, ("m",)))
    assert bench.grid("workers=2") == 1
    found = failed(bench)
    assert said in found["capture"]
    assert "baseline" in found
    assert look(bench.plan()).of("blocked"), "runs of a failed capture are blocked"


def test_what_could_not_start_is_left_alone_until_retry(bench: Bench) -> None:
    only = models(bench, ("m",))
    bench.write_grid(axes=ONE, worker=["/nowhere/python"], models=only)
    assert bench.grid() == 1
    bench.write_grid(axes=ONE, models=only)
    assert bench.grid() == 1
    assert not bench.records()
    assert bench.call("retry") == 0
    assert look(bench.plan()).complete


def planned(bench: Bench) -> Plan:
    bench.write_grid(axes=ONE, baselines=False)
    plan = build(load_grid(str(bench.grid_file)), bench.out, foreign="reuse")
    save_plan(plan)
    return plan


def pool(plan: Plan) -> None:
    """Work off a plan as `secateur grid` does."""
    told: list[tuple[str, str]] = []
    Pool(look(plan), [Slot({})], lambda event, task: told.append((event, task.kind))).run()
    assert ("end", "capture") in told
    assert ("blocked", "run") in told


def test_a_runner_whose_interpreter_is_missing_has_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(bench)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        pool(plan)
    assert "NotStarted" in failed(bench)["capture"]
    assert "/nowhere/python" in failed(bench)["capture"]


def test_a_runner_that_dies_at_once_has_failed_with_its_words(bench: Bench) -> None:
    plan = planned(bench)
    broken = bench.folder / "secateur" / "slurm"
    broken.mkdir(parents=True)
    (broken.parent / "__init__.py").write_text("")
    (broken / "__init__.py").write_text("")
    (broken / "task.py").write_text("raise RuntimeError('this copy is broken')")
    place = Slot({"PYTHONPATH": str(bench.folder)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.slurm.local.ROOT", bench.folder)
        Pool(look(plan), [place], lambda *_: None).run()
    assert failed(bench)["capture"] == "NotStarted: exit code 1: RuntimeError: this copy is broken"


def test_a_working_folder_that_is_gone_is_a_failure(bench: Bench) -> None:
    plan = planned(bench).model_copy(update={"cwd": str(bench.folder / "gone")})
    save_plan(plan)
    pool(plan)
    assert "gone" in failed(bench)["capture"]


@pytest.mark.parametrize(
    ("output", "condition"),
    [
        ("/bin/bash: line 5: /nowhere/python: No such file or directory\n", "failed"),
        ("", "failed"),
        (None, "waiting"),
        (f"{NOT_BEGUN}\n", "waiting"),
        (
            f"loading modules\nslurmstepd: error: *** JOB 7 ON n1 {CANCELLED} 2026-01-01T00:00:00 ***\n",
            "waiting",
        ),
    ],
)
def test_a_job_that_left_the_queue_without_an_attempt(
    bench: Bench, output: str | None, condition: str
) -> None:
    """What Slurm has written of it decides: it ran and could not start, or was cancelled before it did."""
    plan = planned(bench)
    task = plan.of("capture")[0]
    (plan.folder / "submissions.json").write_text(
        json.dumps({"arrays": [{"name": "0001", "job": "7", "tasks": [task.id]}]})
    )
    path = plan.folder / "logs" / "slurm" / "7_0.out"
    path.parent.mkdir(parents=True)
    if output is not None:
        path.write_text(output)
    each = next(each for each in look(plan, {}).tasks if each.id == task.id)
    assert each.condition == condition
    assert not state_path(plan, task.id).exists()
    if condition == "failed":
        assert each.log == str(path)
        assert output is None or output.strip() in each.detail
    here = {"7_0": queue.Job("7_0", "PENDING", "secateur", "Priority", "0:00")}
    each = next(each for each in look(plan, here).tasks if each.id == task.id)
    assert each.condition == "queued", "as long as it is in the queue it waits"


@pytest.mark.slurm
def test_a_job_whose_interpreter_is_missing_has_failed_on_the_cluster(
    bench: Bench, cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in cluster.items():
        monkeypatch.setenv(key, value)
    settings = yaml.safe_load((ROOT / "conf" / "slurm" / "trial.yaml").read_text()) | {"setup": ["exit 1"]}
    file = bench.folder / "broken.yaml"
    file.write_text(yaml.safe_dump(settings))
    bench.write_grid(axes=ONE, models=models(bench, ("-x", "模型")))
    words = ("launcher=slurm", "slurm.mem=400M", "--wait")
    try:
        assert bench.grid(f"slurm={file}", *words) == 1
        found = look(bench.plan())
        assert {each.kind for each in found.of("failed")} >= {"capture", "baseline"}
        assert {each.kind for each in found.of("blocked")} == {"run"}
        assert not [each for each in found.of("waiting", "interrupted") if each.kind != "analysis"]
        assert "NotStarted: job" in capsys.readouterr().out
        assert bench.grid("slurm=trial", *words) == 1
        plan = bench.plan().model_copy(update={"slurm": bench.plan().slurm.model_copy(update={"setup": ()})})
        save_plan(plan)
        assert bench.call("retry", "--wait") == 0
        assert look(bench.plan()).complete
    finally:
        subprocess.run(["scancel", "--me"], check=False, timeout=30)
