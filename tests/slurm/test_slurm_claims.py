"""Claims: one owner at a time, dead owners replaced, live ones never."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secateur.slurm import claims
from secateur.slurm.claims import Claim, acquire, holder, myself


def nobody_knows(_job: str) -> bool | None:
    return None


def plant(folder: Path, generation: int, age: float = 0.0, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(generation)
    path.write_text(json.dumps(myself().model_dump(mode="json") | changes))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_a_live_owner_is_respected_and_a_release_frees(tmp_path: Path) -> None:
    first = acquire(tmp_path / "t", nobody_knows)
    assert first is not None
    assert acquire(tmp_path / "t", nobody_knows) is None
    owner = holder(tmp_path / "t", nobody_knows)
    assert owner is not None
    assert owner.pid == os.getpid()
    first.release()
    assert holder(tmp_path / "t", nobody_knows) is None
    assert acquire(tmp_path / "t", nobody_knows) is not None


def test_a_dead_process_here_is_replaced_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    plant(tmp_path / "t", 1, pid=process.pid)
    claim = acquire(tmp_path / "t", nobody_knows)
    assert claim is not None
    assert claim.path.name == "2"
    claim.release()
    assert list((tmp_path / "t").iterdir()) == []


def test_a_process_number_used_again_or_before_a_reboot_is_no_owner(tmp_path: Path) -> None:
    plant(tmp_path / "a", 1, started=myself().started - 1000)
    assert acquire(tmp_path / "a", nobody_knows) is not None
    plant(tmp_path / "b", 1, boot="another boot")
    assert acquire(tmp_path / "b", nobody_knows) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel tells")
def test_a_clock_that_is_put_right_does_not_make_owners_strangers() -> None:
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 0 < since_boot - myself().started < 3600 * 24
    assert myself().started < since_boot, "not a time of day"


@pytest.mark.parametrize(
    ("age", "job", "answer", "free"),
    [
        (0.0, None, None, False), (claims.STALE + 5, None, None, True), (claims.STALE - 30, None, None, False),
        (0.0, "7_1", False, True), (claims.STALE * 9, "7_1", True, False), (0.0, "7_1", None, False),
    ],
)  # fmt: skip
def test_owners_on_other_machines_live_by_job_or_heartbeat(
    tmp_path: Path, age: float, job: str | None, answer: bool | None, free: bool
) -> None:
    plant(tmp_path / "t", 3, age, host="elsewhere", slurm_job=job)
    claim = acquire(tmp_path / "t", lambda name: answer if name == job else None)
    assert (claim is not None) == free


def test_a_job_requeued_to_another_node_does_not_wait_for_itself(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    plant(tmp_path / "t", 1, host="the node before", slurm_job="7_1")
    assert acquire(tmp_path / "t", lambda job: True) is not None


def test_a_heartbeat_keeps_a_claim_alive(tmp_path: Path) -> None:
    path = plant(tmp_path / "t", 1, claims.STALE * 2, host="elsewhere")
    Claim(path).beat()
    assert acquire(tmp_path / "t", nobody_knows) is None


def test_a_damaged_claim_counts_by_its_age(tmp_path: Path) -> None:
    plant(tmp_path / "t", 1).write_text("{")
    assert acquire(tmp_path / "t", nobody_knows) is None
    os.utime(tmp_path / "t" / "1", (1, 1))
    assert acquire(tmp_path / "t", nobody_knows) is not None


def contend(folder: str, marks: str, rounds: int) -> None:
    """Take the claim again and again; while holding it, nobody else may be inside."""
    inside = Path(marks) / "inside"
    done = 0
    while done < rounds:
        claim = acquire(Path(folder), nobody_knows)
        if claim is None:
            time.sleep(0.001)
            continue
        try:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            time.sleep(0.001)
            inside.unlink()
        except FileExistsError:
            (Path(marks) / f"collision-{os.getpid()}-{done}").touch()
        done += 1
        claim.release()


def test_many_processes_and_a_dead_owner_never_two_inside(tmp_path: Path) -> None:
    plant(tmp_path / "t", 1, started=1.0)
    marks = tmp_path / "marks"
    marks.mkdir()
    context = multiprocessing.get_context("fork")
    crowd = [context.Process(target=contend, args=(str(tmp_path / "t"), str(marks), 15)) for _ in range(6)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(60)
        assert process.exitcode == 0
    assert list(marks.iterdir()) == []
