"""The benchmark for a GPU runs anywhere at a tiny shape, from a bare checkout: no install, no console script."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from secateur.eval.bench_gpu import STEPS, main
from secateur.eval.bench_gpu_row import Row

CPU = ("shape=tiny", "device=cpu")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Any]:
    """What a child process leaves that knows the checkout by PYTHONPATH alone."""
    folder = tmp_path_factory.mktemp("bench")
    kept = {
        name: value for name, value in os.environ.items() if name in ("HOME", "TMPDIR", "OMP_NUM_THREADS")
    }
    environment = {**kept, "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "secateur.eval.bench_gpu", *CPU, "out=found.json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows in" in done.stdout

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not strict JSON")

    found = json.loads((folder / "found.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert list(folder.iterdir()) == [folder / "found.json"]
    return found


def test_every_step_leaves_rows_with_their_floors(report: dict[str, Any]) -> None:
    assert (report["failed"], report["left_out"]) == ({}, [])
    assert list(dict.fromkeys(row["step"] for row in report["rows"])) == list(STEPS)
    assert set(report["roof"]) == {"float32", "float64"}
    for row in report["rows"]:
        assert row["seconds"] > 0
        if row["floor"] is None:
            assert "referee" in row["what"]
        else:
            assert row["floor"] > 0
            assert row["ratio"] == pytest.approx(row["seconds"] / row["floor"])


def test_all_sides_are_there(report: dict[str, Any]) -> None:
    sides = [row["what"] for row in report["rows"]]
    for side in ("plain backward", "taylor_gate", *(f"taylor, segments={count}" for count in (1, 4, 8))):
        for batch in ("4", "16") if side == "plain backward" else ("4", "16", "auto"):
            for size in ("8 x 16", "4 x 32"):
                assert f"{side}, {size}, batch {batch}" in sides
    for words in (
        "surgeon, one layer",
        "refit, whole model",
        "HFLM",
        "referee",
        "pruned: ",
        "round_to=128, batch",
    ):
        assert any(words in side for side in sides), words
    referee = next(row["facts"] for row in report["rows"] if "referee" in row["what"])
    assert set(referee["ours"]) == {"median", "p99", "max"}


def test_a_stop_half_way_leaves_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    assert main([*CPU, f"out={path}", "minutes=0", "steps=one_layer,dense_speed"]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["rows"], found["left_out"]) == ([], ["one_layer", "dense_speed"])
    assert "no time left" in capsys.readouterr().out


def test_a_step_that_fails_is_told_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> Any:
        yield Row("first", 2.0, 1.0, "a test")
        raise RuntimeError("CUDA out of memory\nand more")

    monkeypatch.setitem(STEPS, "calibration", fails)
    path = tmp_path / "found.json"
    assert main([*CPU, f"out={path}", "steps=calibration,dense_speed"]) == 1
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["failed"] == {"calibration": "CUDA out of memory"}
    assert [(row["what"], row["ratio"]) for row in found["rows"][:1]] == [("first", 2.0)]
    assert {row["step"] for row in found["rows"]} == {"calibration", "dense_speed"}


@pytest.mark.parametrize("word", ["shape=large", "steps=sleep", "device=abacus", "colour=red", "fast"])
def test_what_cannot_be_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CPU, word]) == 2
    assert word.split("=")[0] in capsys.readouterr().out
