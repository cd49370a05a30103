"""Killed, interrupted, out of disk, or twice at once: the same command ends with the same results."""

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.pruning.commands import (
    Place,
    call,
    documents,
    finish,
    leftovers,
    only_record,
    place,
    start,
    write_jsonl,
)

DECODER = "budget.of=decoder"
"""The embeddings are most of this model."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A model whose big vocabulary makes every stage last: 12 MB to write, and a slow head."""
    return place(tmp_path_factory.mktemp("kill"), vocab_size=50_000, text_documents=300)


def long_run(here: Place) -> list[str]:
    """A run that can be hit in every stage."""
    held_out = write_jsonl(here.folder / "long.jsonl", documents(1000, seed=99))
    sizes = ["taylor.num_samples=64", "method=blockwise", "save_model=true", DECODER]
    measured = ["eval=ppl", f"eval.ppl.text={held_out}", "eval.ppl.window=16", "eval.baseline=false"]
    return here.arguments(*sizes, *measured)


def stage(here: Place) -> str:
    """What the only run says that it is doing."""
    for path in here.out.glob("*/stage.json"):
        return str(json.loads(path.read_text())["stage"])
    return ""


def wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Watch a process until it has reached a point; it must not end before."""
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def results(here: Place) -> dict[str, Any]:
    """What must not depend on how a run came to its end."""
    record = only_record(here.out)
    folder = here.out / record["run_id"]
    (scores,) = here.out.glob("cache/captures/*/*/capture.safetensors")
    names = (
        "run_id",
        "status",
        "metrics",
        "parameters",
        "layers",
        "statistics",
        "diagnosis",
        "card",
        "notes",
    )
    files = {
        path.name: path.read_bytes()
        for path in (folder / "model").iterdir()
        if path.name != "provenance.json"
    }
    return {
        **{name: record[name] for name in names},
        "plan": (folder / "plan.json").read_bytes(),
        "scores": scores.read_bytes(),
        "model": files,
    }


@pytest.mark.slow
def test_killed_in_every_stage_the_same_command_ends_with_the_same_results(
    here: Place, tmp_path: Path
) -> None:
    alone = replace(here, folder=tmp_path / "alone")
    assert call("run", *long_run(alone)).code == 0
    command = ["run", *long_run(here)]

    def captures() -> list[Path]:
        return list(here.out.glob("cache/captures/*/*/capture.json"))

    def capturing() -> bool:  # the samples are there and the lock is taken: the pass runs
        return stage(here) == "capture" and any(here.out.glob("cache/captures/*/.lock"))

    def writing() -> bool:
        return any(here.out.glob("*/.model.*.tmp/*"))

    for reached in (capturing, writing, lambda: stage(here) == "evaluate"):
        process = start(command)
        wait_for(process, reached)
        process.kill()
        assert finish(process).code == -signal.SIGKILL
        assert list(here.out.glob("*/record.json")) == []
        if reached is capturing:
            assert captures() == []  # it was hit before the capture was stored
        elif reached is writing:
            assert len(captures()) == 1
            assert list(here.out.glob("*/model")) == []
            assert leftovers(here.out)  # half a checkpoint, under a name that nobody reads
        else:
            assert len(list(here.out.glob("*/model"))) == 1
    last = call(*command)
    assert last.code == 0, last.err
    assert leftovers(here.out) == []
    assert only_record(here.out)["counters"]["capture"] == "reused"
    assert results(here) == results(alone)


@pytest.mark.slow
def test_ctrl_c_says_one_line_and_the_same_command_continues(here: Place) -> None:
    command = ["run", *long_run(here)]
    # what a shell starts in the background ignores Ctrl-C, and so would all that these tests start
    process = start(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_for(process, lambda: stage(here) == "evaluate")
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1] == (
        "secateur run: interrupted; the same command continues where it was"
    )
    assert "Traceback" not in outcome.err
    assert list(here.out.glob("*/failed.json")) == []  # it has not failed
    assert list(here.out.glob("*/record.json")) == []
    assert leftovers(here.out) == []
    assert call(*command).code == 0
    assert only_record(here.out)["counters"]["capture"] == "reused"


@pytest.mark.slow
def test_processes_at_once_compute_one_capture_and_one_record(here: Place) -> None:
    """Twice the same command, and another method that shares its capture."""
    same = ["run", *here.arguments(DECODER, "method=blockwise", *here.perplexity())]
    other = ["run", *here.arguments(DECODER, "method=layerwise", *here.perplexity())]
    outcomes = [finish(process) for process in [start(same), start(same), start(other)]]
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], outcomes
    found = {path.parent.name: json.loads(path.read_text()) for path in here.out.glob("*/record.json")}
    assert sorted(record["kind"] for record in found.values()) == ["dense", "pruned", "pruned"]
    pruned = [record for record in found.values() if record["kind"] == "pruned"]
    assert sorted(record["counters"]["capture"] for record in pruned) == ["computed", "reused"]
    assert len(list(here.out.glob("cache/captures/*/*/capture.json"))) == 1
    assert leftovers(here.out) == []


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 3 MB at `folder`; it has room enough afterwards."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield
        subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
    except BaseException:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        raise


@contextmanager
def small_files(folder: Path) -> Iterator[None]:
    """No file above 3 MB may be written by this process."""
    folder.mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [small_disk, small_files])
def test_full_disk(here: Place, limit: Callable[[Path], Any]) -> None:
    """The checkpoint does not fit: one message, nothing half-written; with room the same command continues."""
    command = ["run", *here.arguments(DECODER, "save_model=true")]
    with limit(here.out):
        outcome = call(*command)
        assert outcome.code == 1
        last = outcome.err.splitlines()[-1]
        assert last.startswith("secateur run: cannot write ")
        assert "Free some space" in last
        assert "Traceback" not in outcome.err
        assert leftovers(here.out) == []
        assert list(here.out.glob("*/record.json")) == []
        assert list(here.out.glob("*/model")) == []
        (failed,) = here.out.glob("*/failed.json")
        assert json.loads(failed.read_text())["error"]["stage"] == "save"
    try:
        assert call(*command).code == 0
        assert only_record(here.out)["counters"]["capture"] == "reused"
        assert len(list(here.out.glob("*/model/model.safetensors"))) == 1
        assert list(here.out.glob("*/failed.json")) == []
    finally:
        if limit is small_disk:
            subprocess.run(["umount", "-l", str(here.out)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(handle, bytes(4096))
    os.close(handle)


def test_a_disk_without_any_room(here: Place) -> None:
    """Not even the record of the failure fits; the message is still the one about the disk."""
    with small_disk(here.out):
        filler = here.out / "filler"
        fill(filler)
        outcome = call("run", *here.arguments(DECODER))
        filler.unlink()
        assert outcome.code == 1
        assert "No space left" in outcome.err.splitlines()[-1]
        assert "Traceback" not in outcome.err
        assert leftovers(here.out) == []
    try:
        assert call("run", *here.arguments(DECODER)).code == 0
    finally:
        subprocess.run(["umount", "-l", str(here.out)], check=True)
