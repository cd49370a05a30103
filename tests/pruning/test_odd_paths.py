"""Paths with characters that mean something to Hydra: every command takes them as they stand."""

import shutil
from pathlib import Path

import pytest
import yaml

from secateur.eval.cli import config_of
from secateur.eval.speed.subjects import variants
from secateur.pruning.compose import amend
from secateur.pruning.errors import ConfigError
from secateur.pruning.overrides import parse, protect, write
from secateur.slurm.arguments import parse as words_of
from tests.pruning.commands import Place, call, only_record, place, records

ODD = ["a=b", "a,b", "it's", 'a"b', "[a]", "a]b[", "é", "世界", "a b", "a#b", "(a)", "{a:b}", "a;b", "a&b", "$a", "a!b",
       "~a", "a~b", "-a", "a<b", "a%b", "null", "true", "1e3", "a\\b", "a:", "🙂"]  # fmt: skip
ALL = "a=b, [c] 'd' \"e\" {f:g} #h é 世"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("plain"))


def moved(made: Place, to: Path) -> Place:
    """The same model and texts in a folder of another name."""
    shutil.copytree(made.folder, to)
    return Place(to, to / made.model.name, to / made.text.name, to / made.held_out.name)


@pytest.mark.parametrize("name", ODD)
def test_a_run_whose_every_path_is_odd(made: Place, tmp_path: Path, name: str) -> None:
    here = moved(made, tmp_path / name)
    outcome = call("run", *here.arguments("method=magnitude", *here.perplexity(), "eval.ppl.max_tokens=64"))
    assert outcome.code == 0, outcome.err
    assert {record["kind"] for record in records(here.out)} == {"dense", "pruned"}
    config = only_record(here.out)["config"]
    assert config["model"]["path"] == str(here.model)
    assert config["eval"]["ppl"]["text"] == str(here.held_out)


@pytest.mark.parametrize("name", ODD)
def test_relative_paths(made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`model.path=null` is no model, whatever lies here; `./null` is."""
    shutil.copytree(made.model, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    config, _ = config_of(["model=local", f"model.path=./{name}", "calibration=world", f"out=./{name}/runs"])
    assert config.model.path == f"./{name}"
    assert config.out == f"./{name}/runs"


def test_every_command(made: Place, tmp_path: Path) -> None:
    here = moved(made, tmp_path / ALL)
    few = ("eval.ppl.max_tokens=64", "device=cpu", f"out={here.out}")
    assert call("capture", *here.arguments()).code == 0
    run = call("run", *here.arguments(*here.perplexity(), *few, "save_model=true"))
    assert run.code == 0, run.err
    name = only_record(here.out)["run_id"]
    again = call("eval", f"run={name}", *here.perplexity(window=8), *few)
    assert again.code == 0, again.err
    dense = call("eval", f"checkpoint={here.out / name / 'model'}", *here.perplexity(), *few)
    assert dense.code == 0, dense.err
    typed = [word for word in here.arguments("method=magnitude") if not word.startswith(("model", "eval"))]
    grid = call(
        "grid", "grid=tiny_sweep", "--dry-run", *(word for word in typed if not word.startswith("taylor"))
    )
    assert grid.code == 0, grid.err
    found, swept = variants([f"checkpoint={here.model}", f"out={here.out}", "bench=quick"])
    assert [config.model.path for config in found] == [str(here.model)] * len(found)
    assert swept == ()
    found, _ = variants([f"model.path={here.model}", "model=local", f"out={here.out}", "bench=quick"])
    assert {config.model.path for config in found} == {str(here.model)}


def test_a_folder_of_configs(tmp_path: Path) -> None:
    folder = tmp_path / ALL / "eval"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump({"limit": 7}), encoding="utf-8")
    config, _ = config_of(["model=tiny_llama", "eval=mine", "--config-dir", str(folder.parent)])
    assert config.eval.limit == 7


def test_a_sweep_over_paths_stays_one(made: Place, tmp_path: Path) -> None:
    one, two = (shutil.copytree(made.model, tmp_path / name) for name in ("one", "two"))
    given = words_of([f"model.path={one},{two}", f"out={tmp_path / ALL}"], set())
    assert given.values["model.path"] == (str(one), str(two))
    assert given.one("out") == str(tmp_path / ALL)  # a folder to be made
    shutil.copytree(made.model, tmp_path / "three,four")
    assert (
        words_of([f"model.path={tmp_path}/three,four"], set()).one("model.path") == f"{tmp_path}/three,four"
    )


def test_what_is_no_path_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name here does not make a path of a number, a list or a quoted text."""
    monkeypatch.chdir(tmp_path)
    for name in ("0.1,0.2", "[1,2]", "null"):
        (tmp_path / name).mkdir()
    for word in ("budget.ratio=0.1,0.2", "capture.snapshots=[1,2]", "eval.limit=null", "eval.ppl.text='a,b'",
                 "model.path=${oc.env:HOME}", "--help", "model"):  # fmt: skip
        assert protect(word) == word


@pytest.mark.parametrize("value", ["é", "it's", "a=b"])
def test_another_value_that_cannot_be_read_is_answered_with_the_quoting_that_works(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse([f"model.name={value}"])
    message = str(caught.value)
    assert "Lexer" not in message
    assert "\n" not in message
    import shlex

    (suggested,) = shlex.split(message.split("for Hydra: ")[1])
    assert suggested == write("model.name", value)
    assert parse([suggested])[0].value() == value
    for command in ("run", "capture", "grid", "bench"):
        outcome = call(command, f"model.name={value}", *(["grid=tiny_sweep"] if command == "grid" else []))
        assert outcome.code == 1
        assert write("model.name", value) in "".join(shlex.split(outcome.err.split("for Hydra: ")[1])), (
            outcome.err
        )


def test_stored_configs_are_changed_by_the_same_grammar() -> None:
    stored = {"eval": {"ppl": {"text": None, "window": 8}, "tasks": ["piqa"], "limit": 3}, "out": "runs"}
    found = amend(
        stored, ["eval.ppl.text='a=b, c'", "eval.ppl.window=16", "eval.tasks=[boolq]", "eval.limit=null"]
    )
    assert found == {
        "eval": {"ppl": {"text": "a=b, c", "window": 16}, "tasks": ["boolq"], "limit": None}, "out": "runs",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="give KEY=VALUE"):
        amend(stored, ["eval.limit"])
