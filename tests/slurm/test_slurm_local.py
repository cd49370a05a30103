"""The local back-end: every task once, one failure is one row, kills at any moment change nothing. Stand-in worker."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from slurm_bench import until

from secateur.eval.record import ANSWERS, read_record
from secateur.slurm.estimate import as_json
from secateur.slurm.launch import look
from secateur.slurm.local import slots, visible_gpus
from secateur.slurm.overview import Overview, TaskView
from secateur.slurm.plan import ROOT

SMALL = {"taylor.seq_len": [16], "method": ["taylor", "blockwise"], "taylor.num_samples": [8, 16]}
"""2 models: 2 captures, 2 baselines, 8 runs."""

TINY = {"taylor.seq_len": [16], "method": ["taylor", "random"]}
"""2 models: 2 captures, 2 baselines, 4 runs, 2 of them without a capture."""


def view(bench) -> Overview:
    return look(bench.plan())


def conditions(bench, *kinds: str) -> dict[str, int]:
    return dict(view(bench).count(*kinds))


def start(bench, *words: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "secateur",
        "grid",
        f"grid={bench.grid_file}",
        f"out={bench.out}",
        "foreign=reuse",
        *words,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def leftovers(bench) -> list[psutil.Process]:
    """Processes that still work on this test's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if (
            str(bench.folder) in words
            and process.info["status"] != psutil.STATUS_ZOMBIE
            and process.pid != os.getpid()
        ):
            found.append(process)
    return found


def test_a_grid_is_done_once_and_a_second_call_does_nothing(bench, capsys) -> None:
    bench.write_grid(axes=SMALL)
    assert bench.grid("workers=2") == 0
    ledger = bench.ledger()
    captures = [line["id"] for line in ledger if line["what"] == "capture"]
    assert len(captures) == len(set(captures)) == 2
    assert all(line["counts"] == [8, 16] for line in ledger if line["what"] == "capture")
    assert len(bench.records()) == 10
    assert ledger[-1]["what"] == "analyze"
    assert len(json.loads(bench.table())) == 10
    gathered = bench.plan().folder / ".runs"
    assert {path.parent.name for path in gathered.glob(f"*/{ANSWERS}")} == set(bench.records())
    before = bench.records()
    capsys.readouterr()
    assert bench.grid("workers=2") == 0
    assert bench.ledger() == ledger
    assert bench.records() == before
    assert "reused: 12 finished tasks" in capsys.readouterr().out
    # a new value on an axis: only what is new
    bench.write_grid(axes=SMALL | {"method": ["taylor", "blockwise", "layerwise"]})
    assert bench.grid("workers=2") == 0
    fresh = bench.ledger()[len(ledger) :]
    assert {line["what"] for line in fresh} == {"plan", "evaluate", "analyze"}
    assert {line["id"].split("-")[1] for line in fresh if line["what"] == "plan"} == {"layerwise"}
    assert len(bench.records()) == 14
    # the other grid's analysis is its own: it has read 10 runs, this one 14
    assert len(json.loads(bench.table())) == 14


def test_one_failed_run_is_one_row_and_retry_repeats_only_that(bench, capsys) -> None:
    bench.write_grid(axes=TINY)
    bench.order(die=["method=random"])
    assert bench.grid("workers=2") == 1
    assert conditions(bench, "run") == {"done": 2, "failed": 2}
    assert conditions(bench, "analysis") == {"done": 1}
    failed = view(bench).of("failed")
    assert {each.detail.split(" in ")[0] for each in failed} == {"Killed"}
    assert all("SIGKILL (often: out of memory)" in each.detail for each in failed)
    record = read_record(bench.out / failed[0].id / "failed.json")
    assert record.error is not None
    assert (record.error.type, record.config["method"]["name"]) == ("Killed", "random")
    ledger = len(bench.ledger())
    assert bench.grid("workers=2") == 1, "failed runs are not repeated by the grid command"
    assert len(bench.ledger()) == ledger
    assert len(list(bench.out.rglob("problems.json"))) == 1
    assert "secateur retry" in capsys.readouterr().out
    bench.order()
    assert bench.call("retry", "workers=2") == 0
    fresh = bench.ledger()[ledger:]
    assert {line["id"] for line in fresh if line["what"] == "evaluate"} == {each.id for each in failed}
    assert view(bench).complete
    assert not list(bench.out.glob("*/failed.json"))
    assert not list(bench.out.rglob("problems.json")), "the report of before is gone"
    capsys.readouterr()
    assert bench.call("logs", "m1-random") == 0
    assert capsys.readouterr().out.count("== 2") == 2, "the log holds every attempt"
    assert bench.call("logs", "no-such-run") == 1
    assert "has a log" in capsys.readouterr().err


def test_a_failed_capture_blocks_its_runs_and_nobody_else(bench, capsys) -> None:
    bench.write_grid(axes=TINY)
    bench.order(fail=[f"model.path={bench.folder}/m1"])
    assert bench.grid("workers=2") == 1
    states = {each.id: each for each in view(bench).tasks}
    capture = next(name for name in states if name.startswith("capture-m1"))
    assert states[capture].condition == "failed"
    assert "told to fail" in states[capture].detail
    blocked = view(bench).of("blocked")
    assert [each.id.rsplit("-", 3)[0] for each in blocked] == ["m1-taylor"]
    assert blocked[0].detail.startswith(f"blocked by {capture}: ")
    assert conditions(bench, "run")["done"] >= 2
    capsys.readouterr()
    assert bench.call("status") == 0
    assert "blocked by capture-m1" in capsys.readouterr().out
    bench.order()
    assert bench.call("retry", "workers=2") == 0
    assert view(bench).complete


@pytest.mark.slow
def test_killed_at_any_moment_and_restarted_it_ends_the_same(bench, tmp_path) -> None:
    bench.write_grid(axes=TINY)
    assert bench.grid("workers=2") == 0
    undisturbed, records, work = bench.table(), bench.records(), len(bench.ledger())
    (bench.out).rename(bench.folder / "first")
    bench.order(seconds=0.3)
    chance = random.Random(0)
    kills = 0
    while kills < 4:
        process = start(bench, "workers=2")
        time.sleep(chance.uniform(0.8, 3.0))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        kills += 1
    assert kills, "the grid was never killed"
    assert bench.grid("workers=2") == 0
    assert bench.table() == undisturbed
    assert bench.records().keys() == records.keys()
    finished = [(line["what"], line["id"]) for line in bench.ledger() if line["what"] != "analyze"]
    assert len(finished) == len(set(finished)) == work - 1, "a finished stage was computed again"
    deadline = time.monotonic() + 15
    while leftovers(bench) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not leftovers(bench)


def test_two_launchers_share_the_work(bench) -> None:
    bench.write_grid(axes=TINY)
    bench.order(seconds=0.2)
    others = [start(bench, "workers=1") for _ in range(2)]
    assert [process.wait(100) for process in others] == [0, 0]
    finished = [(line["what"], line["id"]) for line in bench.ledger() if line["what"] != "analyze"]
    assert len(finished) == len(set(finished))
    assert view(bench).complete


def test_cancel_stops_the_launcher_and_keeps_what_is_done(bench, capsys) -> None:
    bench.write_grid(axes=TINY)
    bench.order(hang=["run calibration=text_file eval=none model=local method=taylor"])
    process = start(bench, "workers=2")

    def hanging() -> list[TaskView]:
        assert process.poll() is None
        return [each for each in view(bench).of("running") if each.kind == "run" and "-taylor-" in each.id]

    until(lambda: any(line["what"] == "evaluate" for line in bench.ledger()) and len(hanging()) == 2, 100)
    running = hanging()
    assert len(running) == 2
    assert all(each.host == os.uname().nodename and (each.age or 0) < 60 for each in running)
    assert bench.call("cancel") == 0
    assert process.wait(40) == 130
    assert conditions(bench, "baseline", "run").get("done", 0) >= 1
    assert not view(bench).of("running")
    bench.order()
    assert bench.grid("workers=2") == 0


def test_places_are_gpus_or_shares_of_the_cpu(bench, monkeypatch) -> None:
    bench.write_grid(threads=None, axes=TINY)
    assert bench.grid("--dry-run") == 0
    from secateur.slurm.grid import build, load_grid

    plan = build(load_grid(str(bench.grid_file)), bench.out)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [slot.environment["OMP_NUM_THREADS"] for slot in slots(plan, 2, [])] == ["4", "4"]
    assert [slot.environment for slot in slots(plan, None, ["0", "3"])] == [
        {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"},
    ]  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_gpus() == ["2", "5"]


def test_each_process_sees_the_gpu_of_its_place(bench, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,4")
    bench.write_grid(axes={"method": ["random"]})
    bench.order(seconds=0.3)
    assert bench.grid() == 0
    assert {line["cuda"] for line in bench.ledger() if line["what"] == "evaluate"} == {"1", "4"}
    assert as_json(view(bench))["gpu_hours"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launcher=pbs"], "launcher=pbs: allowed are local and slurm"),
        (["workers=0"], "workers=0"),
        (["foreign=maybe"], "allowed are refuse, reuse and redo"),
        (["taylor.seqlen=3"], "taylor.seqlen=3: unknown key"),
        (["--dryrun"], "unknown option --dryrun"),
    ],
)
def test_bad_words_are_refused_in_one_message(bench, capsys, words: list[str], message: str) -> None:
    assert bench.grid(*words) == 1
    assert message in capsys.readouterr().err
    assert not bench.out.exists()


def test_commands_without_a_grid_say_so(bench, capsys) -> None:
    assert bench.call("status") == 1
    assert "holds no grid yet" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["grid", "status", "logs", "retry", "cancel"])
def test_help_has_examples(bench, capsys, command: str) -> None:
    assert bench.call(command, "--help") == 0
    assert f"examples:\n  secateur {command}" in capsys.readouterr().out
