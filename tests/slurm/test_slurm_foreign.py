"""Runs of other code or another protocol are never mixed in silently."""

import json
import shutil
from pathlib import Path

import pytest
from slurm_bench import make_bench

from secateur.eval.code import code_fingerprint, library_versions
from secateur.eval.record import read_record, write_record
from secateur.slurm.launch import look
from secateur.slurm.state import read_state, write_state

ONE = {"method": ["random"]}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A finished grid, two baselines and two runs, and a copy to restore it from."""
    with pytest.MonkeyPatch.context() as patch:
        bench = make_bench(tmp_path_factory.mktemp("foreign"), patch)
        bench.write_grid(axes=ONE, analysis=False)
        assert bench.grid("workers=2") == 0
        shutil.copytree(bench.out, bench.folder / "copy")
        yield bench


@pytest.fixture
def done(once):
    """The finished grid as it was."""
    shutil.rmtree(once.out)
    shutil.copytree(once.folder / "copy", once.out)
    once.write_grid(axes=ONE, analysis=False)
    return once


def as_if_by(bench, code: str) -> list[str]:
    plan = bench.plan()
    names = [task.id for task in plan.of("run")]
    for name in names:
        state = read_state(plan, name)
        assert state is not None
        write_state(plan, name, state.model_copy(update={"code": code}))
    return names


def test_the_same_code_is_reused_without_a_word(done, capsys) -> None:
    assert done.grid("foreign=refuse") == 0
    assert "other code" not in capsys.readouterr().out


def test_other_code_is_refused_and_named(done, capsys) -> None:
    names = as_if_by(done, "0123456789ab")
    before = done.records()
    assert done.grid("foreign=refuse") == 1
    message = capsys.readouterr().err
    assert "2 finished runs were made by other code" in message
    assert names[0] in message
    assert "code 0123456789ab" in message
    assert "foreign=redo" in message
    assert done.records() == before
    assert done.grid("foreign=refuse", "--dry-run") == 0
    assert "other code: 2 finished runs" in capsys.readouterr().out


def test_reuse_says_what_it_mixes(done, capsys) -> None:
    as_if_by(done, "0123456789ab")
    ledger = len(done.ledger())
    assert done.grid("foreign=reuse") == 0
    assert "reused although 2 finished runs were made by other code" in capsys.readouterr().out
    assert len(done.ledger()) == ledger


def test_redo_sets_aside_and_runs_again(done, capsys) -> None:
    names = as_if_by(done, "0123456789ab")
    ledger = len(done.ledger())
    assert done.grid("foreign=redo", "workers=2") == 0
    assert "set aside" in capsys.readouterr().out
    fresh = {line["id"] for line in done.ledger()[ledger:] if line["what"] == "evaluate"}
    assert fresh == set(names)
    aside = [path.parent.name.rsplit(".", 1)[0] for path in (done.out / ".replaced").glob("*/record.json")]
    assert sorted(aside) == sorted(names)
    states = [read_state(done.plan(), name) for name in names]
    assert {state.code for state in states if state} == {code_fingerprint()}


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({}, "torch None, here"),
        ({"packages": library_versions() | {"torch": "1.0"}}, "torch 1.0, here"),
        ({"packages": library_versions(), "commit": "abc", "dirty": False}, "commit abc"),
        ({"code": "feed"}, "code feed"),
    ],
)
def test_runs_made_by_hand_are_judged_by_their_provenance(
    done, capsys, provenance: dict, message: str
) -> None:
    names = [task.id for task in done.plan().of("run")]
    for name in names:
        (done.out / "grids" / "_tasks" / f"{name}.json").unlink()
        record = read_record(done.out / name)
        write_record(done.out / name, record.model_copy(update={"provenance": provenance}))
    assert done.grid("foreign=refuse") == 1
    assert message in capsys.readouterr().err


def test_a_run_made_by_hand_with_this_code_is_welcome(done) -> None:
    for task in done.plan().of("run"):
        (done.out / "grids" / "_tasks" / f"{task.id}.json").unlink()
        record = read_record(done.out / task.id)
        known = {"code": code_fingerprint()}
        write_record(done.out / task.id, record.model_copy(update={"provenance": known}))
    assert done.grid("foreign=refuse") == 0


def test_another_protocol_is_another_run(done) -> None:
    first = {task.id for task in done.plan().tasks}
    text = done.folder / "held_out.txt"
    text.write_text("some text\n")
    done.write_grid(axes=ONE, analysis=False, overrides={"budget.ratio": 0.2, "eval.ppl.text": str(text)})
    assert done.grid("workers=2") == 0
    assert not first & {task.id for task in done.plan().tasks}
    assert len(done.records()) == 8


def test_an_analysis_reads_its_own_grid_only(bench) -> None:
    bench.write_grid(axes=ONE)
    assert bench.grid("workers=2") == 0
    bench.write_grid(axes={"method": ["magnitude"]}, baselines=False)
    assert bench.grid("workers=2") == 0
    rows = [row[0].split("-")[1] for row in json.loads(bench.table())]
    assert rows == ["magnitude", "magnitude"]
    assert len(bench.records()) == 6


def test_code_that_changes_under_a_planned_grid_stops_its_tasks(bench, monkeypatch, capsys) -> None:
    bench.write_grid(axes=ONE, analysis=False, baselines=False)
    monkeypatch.setattr("secateur.slurm.grid.code_fingerprint", lambda: "planned-by-other")
    assert bench.grid("foreign=refuse") == 1
    views = look(bench.plan()).tasks
    assert {each.condition for each in views} == {"interrupted"}
    assert all("changed after this grid was planned" in each.detail for each in views)
    assert not list(Path(bench.out).glob("*/failed.json"))
    monkeypatch.setattr("secateur.slurm.grid.code_fingerprint", code_fingerprint)
    assert bench.grid("foreign=refuse") == 0
