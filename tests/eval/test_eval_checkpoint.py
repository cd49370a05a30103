"""What a choice of `eval=` switches off stays off, and a checkpoint remembers the data that it was measured on."""

import json
from pathlib import Path

import pytest
import yaml

from secateur.command import main
from secateur.eval.cli import config_of
from secateur.eval.config import RunConfig
from secateur.eval.record import read_record
from secateur.eval.remembered import ENTRY, FILE, recall, remember
from secateur.pruning.compose import CONF_DIR, compose, options, register
from secateur.pruning.config import validate
from secateur.pruning.world.bundle import data_dir
from secateur.slurm.points import Composer

CUT = [
    "model=tiny_llama",
    "method=magnitude",
    "save_model=true",
    "eval.baseline=false",
    "progress=false",
    "device=cpu",
]


def composed(*words: str) -> RunConfig:
    register(RunConfig)
    return validate(RunConfig, compose("run", list(words)))


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_qwen2", "tiny_mistral", "llama3_8b"])
def test_an_evaluation_is_what_its_file_says_for_every_model(model: str) -> None:
    for name in options("eval"):
        said = yaml.safe_load((CONF_DIR / "eval" / f"{name}.yaml").read_text(encoding="utf-8"))
        for config in (
            composed(f"model={model}", f"eval={name}"),
            Composer().config({"model": model, "eval": name}),
        ):
            got = config.eval.model_dump(mode="json")
            ppl = said.pop("ppl", {})
            assert {key: got[key] for key in said} == said
            assert {key: got["ppl"][key] for key in ppl} == ppl
            said |= {"ppl": ppl}


def test_none_measures_nothing_on_a_shipped_model(tmp_path: Path) -> None:
    assert main(["run", "model=tiny_llama", "eval=none", "method=magnitude", f"out={tmp_path}"]) == 0
    (record,) = [read_record(path.parent) for path in tmp_path.glob("*/record.json")]
    assert record.metrics == {}


def saved(folder: Path, *words: str) -> Path:
    """A checkpoint of a shipped model, measured as `words` say."""
    assert main(["run", *CUT, f"out={folder}", *words]) == 0
    return next(folder.glob("*/model"))


def measured(folder: Path) -> dict[str, float | None]:
    return {name: metric.value for name, metric in read_record(folder).metrics.items()}


FEW = ("eval.limit=4", "eval.ppl.max_tokens=600")


def test_a_checkpoint_is_measured_again_on_its_own_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path / "first", *FEW)
    capsys.readouterr()
    assert main(["eval", f"checkpoint={model}", f"out={tmp_path / 'again'}", *FEW]) == 0
    told = capsys.readouterr().err
    assert "eval.data_dir=bundled" in told
    assert "world@128" in told
    (again,) = (tmp_path / "again").glob("*/record.json")
    assert measured(again.parent) == pytest.approx(measured(model.parent), rel=1e-6)


def test_one_saved_without_a_measurement_knows_the_shipped_data_too(tmp_path: Path) -> None:
    model = saved(tmp_path / "first", "eval=none")
    assert main(["eval", f"checkpoint={model}", f"out={tmp_path / 'again'}", *FEW]) == 0
    (again,) = (tmp_path / "again").glob("*/record.json")
    assert "world@128" in measured(again.parent)


def test_a_text_of_ones_own_is_remembered_by_its_full_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "held_out.jsonl").write_bytes((data_dir() / "text" / "world" / "test.jsonl").read_bytes())
    monkeypatch.chdir(tmp_path)
    own = ["eval=ppl", "eval.ppl.text=held_out.jsonl", "eval.ppl.window=64", "eval.ppl.max_tokens=600"]
    model = saved(tmp_path / "first", *own)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["eval", f"checkpoint={model}", "out=runs", "eval.ppl.max_tokens=600"]) == 0
    (again,) = Path("runs").glob("*/record.json")
    assert measured(again.parent) == pytest.approx(measured(model.parent), rel=1e-6)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ([], {"eval.data_dir=bundled", "eval.ppl.protocols=['world@128']", "eval.tasks=[boolq]"}),
        (
            ["eval.limit=3"],
            {"eval.data_dir=bundled", "eval.ppl.protocols=['world@128']", "eval.tasks=[boolq]"},
        ),
        (["eval=none"], {"eval.data_dir=bundled"}),
        (["eval=seven"], {"eval.data_dir=bundled", "eval.ppl.protocols=['world@128']"}),
        (["eval.data_dir=/data"], {"eval.ppl.protocols=['world@128']", "eval.tasks=[boolq]"}),
        (["eval.ppl.text=a.txt"], {"eval.data_dir=bundled", "eval.tasks=[boolq]"}),
        (["eval.tasks=[piqa]"], {"eval.data_dir=bundled", "eval.ppl.protocols=['world@128']"}),
    ],
)
def test_what_is_typed_goes_before_what_is_remembered(
    typed: list[str], kept: set[str], tmp_path: Path
) -> None:
    config = composed("model=tiny_llama", "eval.tasks=[boolq]").eval
    (tmp_path / FILE).write_text(json.dumps({ENTRY: remember(config)}))
    words = recall(tmp_path, typed)
    assert {word.replace("world@128]", "'world@128']").replace("[world", "['world") for word in words} == kept
    config_of(["model=local", "model.path=x", "calibration=world", *words, *typed])


@pytest.mark.parametrize("text", ["", "[]", '{"evaluation": 3}', "{}"])
def test_a_folder_of_another_origin_remembers_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    assert recall(tmp_path, []) == []
    assert recall(tmp_path / "nowhere", []) == []


def test_a_checkpoint_without_a_memory_is_told_the_shipped_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path / "first", "eval=none")
    (model / FILE).unlink()
    capsys.readouterr()
    words = ["eval=ppl", f"eval.data_dir={data_dir()}", "eval.ppl.protocols=[world@2048]"]
    assert main(["eval", f"checkpoint={model}", f"out={tmp_path}", *words]) == 1
    said = capsys.readouterr().err
    assert "exceeds the model's context" in said
    assert "bundled" not in said, "data were given: only the window is wrong"
    assert main(["eval", f"checkpoint={model}", f"out={tmp_path}", "eval=ppl"]) == 1
    said = capsys.readouterr().err
    assert "eval.data_dir=bundled eval.ppl.protocols=[world@128]" in said
