"""The acceptance of grids with the real commands on shipped models: on a real Slurm, disturbed, and killed here."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from slurm_bench import hasten, limit, most_at_once, until, workers

from secateur.pruning.files import canonical
from secateur.slurm import queue
from secateur.slurm.launch import choose, look
from secateur.slurm.overview import Overview
from secateur.slurm.plan import ROOT, Plan
from secateur.slurm.state import log_path, read_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

SHIPPED = [name for name in ("tiny_llama", "tiny_qwen2", "tiny_mistral") if (
    ROOT / "pruning" / "world" / "models" / name / "model.safetensors").is_file()]  # fmt: skip
SMALL = (f"model={','.join(SHIPPED[:2])}", "eval.limit=6", "eval.ppl.max_tokens=2000", "foreign=reuse")
CLUSTER = ("launcher=slurm", "slurm=trial")


def secateur(*words: str, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "secateur", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=timeout)


def start(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "secateur", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def plan_of(out: Path) -> Plan:
    return choose(out, None)


def view(out: Path) -> Overview:
    return look(plan_of(out))


def results(out: Path) -> dict[str, str]:
    """All that is measured and decided, per run, as text: what has to be equal bit for bit."""
    names = ("kind", "status", "config", "card", "metrics", "parameters", "layers", "statistics")
    found: dict[str, str] = {}
    for path in out.glob("*/record.json"):
        record = json.loads(path.read_text())
        record["config"].pop("out")
        found[path.parent.name] = canonical({name: record[name] for name in names})
    return found


def tables(out: Path) -> dict[str, bytes]:
    """Every table of the grid's report."""
    found = {
        path.name: path.read_bytes() for path in (plan_of(out).folder / "report" / "tables").glob("*.csv")
    }
    assert found
    return found


def counters(out: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text())["counters"] for path in out.glob("*/record.json")}


def captures_computed(out: Path) -> Counter[str]:
    """How often each capture was computed to its end, from the logs of all tasks."""
    plan = plan_of(out)
    lines = {task.id: log_path(plan, task.id) for task in plan.tasks}
    texts = {name: path.read_text() if path.is_file() else "" for name, path in lines.items()}
    return Counter(
        {name: text.count("capture computed") for name, text in texts.items() if "capture computed" in text}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if len(SHIPPED) < 2:
        pytest.skip("the shipped models are not there")
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, str]:
    """The grid done here, in peace."""
    out = folder / "peace"
    began = time.monotonic()
    done = secateur("grid", "grid=tiny_sweep", f"out={out}", "workers=2", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "peace.seconds").write_text(str(time.monotonic() - began))
    found = results(out)
    assert len(found) == 14
    return found


@pytest.fixture
def slurm(cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for key, value in cluster.items():
        monkeypatch.setenv(key, value)
    yield
    subprocess.run(["scancel", "--me"], check=False, timeout=30)
    until(lambda: not queue.jobs(), 180)


@pytest.mark.slurm
def test_on_slurm_all_records_are_there_captures_ran_once_the_analysis_last(
    folder: Path, undisturbed: dict[str, str], slurm: None
) -> None:
    out = folder / "slurm"
    done = secateur("grid", "grid=tiny_sweep", f"out={out}", *CLUSTER, *SMALL, "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(out) == undisturbed
    assert tables(out) == tables(folder / "peace")
    assert list(captures_computed(out).values()) == [1, 1, 1, 1]
    assert all(name.startswith("capture-") for name in captures_computed(out))
    assert {c["capture"] for c in counters(out).values()} == {"reused", "none"}
    states = {task.id: read_state(plan_of(out), task.id) for task in plan_of(out).tasks}
    attempts = {name: state.attempts for name, state in states.items() if state is not None}
    assert all(len(tries) == 1 for tries in attempts.values())
    last = next(tries[0] for name, tries in attempts.items() if name.startswith("analysis"))
    others = [tries[0] for name, tries in attempts.items() if not name.startswith("analysis")]
    assert {each.cuda for each in others} == {"0", "1"}
    for gpu in ("0", "1"):
        assert most_at_once([each for each in others if each.cuda == gpu]) <= 2, "one job per GPU, two nodes"
    assert all(each.ended is not None and each.ended <= last.started for each in others)
    assert len({each.job for each in others}) == 18
    again = secateur("grid", "grid=tiny_sweep", f"out={out}", *CLUSTER, *SMALL, "--wait")
    assert again.returncode == 0
    assert "nothing to submit" in again.stdout


@pytest.mark.slurm
def test_disturbed_on_slurm_it_ends_the_same_and_repeats_nothing(
    folder: Path, undisturbed: dict[str, str], slurm: None
) -> None:
    out = folder / "disturbed"
    words = ("grid", "grid=tiny_sweep", f"out={out}", *CLUSTER, *SMALL)
    dry = json.loads(secateur(*words, "--dry-run", "--json").stdout)
    runs = [task["id"] for task in dry["tasks"] if task["kind"] == "run"]
    cancelled, killed, late, failing = runs[0], runs[4], runs[8], runs[10]
    (out / failing / "plan.json").mkdir(parents=True)  # no file can be put there: this run fails
    assert secateur(*words).returncode == 0

    held: dict[str, psutil.Process] = {}

    def hold() -> bool:
        """Stop the workers of three runs where they are, each as soon as it is there."""
        for name in {cancelled, killed, late} - held.keys():
            for process in workers(plan_of(out).by_id()[name])[:1]:
                process.suspend()
                held[name] = process
        return len(held) == 3

    def job(name: str) -> str:
        return str(next(each.job for each in view(out).tasks if each.id == name))

    def outcomes(name: str) -> list[str]:
        state = read_state(plan_of(out), name)
        return [attempt.outcome for attempt in state.attempts] if state is not None else []

    until(hold, 600)
    subprocess.run(["scancel", job(cancelled)], check=True, timeout=30)
    held[killed].send_signal(signal.SIGKILL)
    hasten(job(late))
    until(lambda: outcomes(late)[0] == "requeued", 180)
    limit(job(late), 10)
    until(lambda: not queue.jobs(), 900)
    assert outcomes(late) == ["requeued", "done"]
    conditions = {each.id: each.condition for each in view(out).tasks}
    assert (conditions[cancelled], conditions[killed], conditions[late], conditions[failing]) == (
        "interrupted", "failed", "done", "failed",
    )  # fmt: skip
    finished = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/record.json")}
    assert len(finished) == 11

    secateur(*words, "--wait")
    (out / failing / "plan.json").rmdir()
    done = secateur("retry", f"out={out}", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(out) == undisturbed
    assert tables(out) == tables(folder / "peace")
    now = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/record.json")}
    assert {name: now[name] for name in finished} == finished, "a finished run was written again"
    assert set(captures_computed(out).values()) == {1}
    assert {c["capture"] for c in counters(out).values()} == {"reused", "none"}


def test_killed_ten_times_here_it_ends_the_same(folder: Path, undisturbed: dict[str, str]) -> None:
    out = folder / "killed"
    words = ("grid", "grid=tiny_sweep", f"out={out}", "workers=2", *SMALL)
    chance = random.Random(1)
    share = float((folder / "peace.seconds").read_text()) / 10  # so that it cannot end before the tenth kill
    kills = 0
    finished: dict[str, int] = {}
    while kills < 10:
        process = start(*words)
        time.sleep(chance.uniform(0.2, 1.0) * share)
        assert process.poll() is None, "it ended before it could be killed ten times"
        process.kill()
        process.wait(30)
        kills += 1
        now = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/record.json")}
        assert {name: now.get(name) for name in finished} == finished, "a finished run was written again"
        finished = now
    done = secateur(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(out) == undisturbed
    assert tables(out) == tables(folder / "peace")
    assert set(captures_computed(out).values()) == {1}
