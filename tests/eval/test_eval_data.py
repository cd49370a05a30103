"""Data folders: what is read, what is refused and how, and filling them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

import secateur.eval.fetch
from secateur.eval.config import TASKS, EvalConfig, PerplexityConfig
from secateur.eval.data import data_digest, text_file
from secateur.eval.fetch import fetch, task_source
from secateur.eval.seven import SPLIT, STOCK
from secateur.eval.tasks import load_tasks
from secateur.pruning.errors import ConfigError, DataError
from tests.eval.conftest import write_data, write_rows


def config(folder: Path | str, **changes: Any) -> EvalConfig:
    return EvalConfig(data_dir=str(folder), **changes)


def test_tasks_are_the_stock_ones(data_dir: Path) -> None:
    """Prompts, metrics and versions against lm-eval's own task loading of the same files."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    for name, task in load_tasks(config(data_dir)).items():
        stock = load_yaml(Path(lm_eval.__file__).parent / "tasks" / STOCK[name])
        files = {SPLIT[name]: str(data_dir / "tasks" / name / f"{SPLIT[name]}.jsonl")}
        stock |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        stock |= {f"{split}_split": None for split in ("training", "validation", "test")}
        plain = ConfigurableTask(config={**stock, f"{SPLIT[name]}_split": SPLIT[name]})
        plain.build_all_requests(limit=5)
        task.build_all_requests(limit=5)
        assert [i.args for i in task.instances or []] == [i.args for i in plain.instances or []]
        assert task.VERSION == plain.VERSION
        assert task.aggregation().keys() == plain.aggregation().keys()
        answers = [(-float(n % 7), False) for n in range(len(plain.instances or []))]
        choices = len([i for i in plain.instances or [] if i.doc_id == 2])
        given = answers[2 * choices : 3 * choices]
        assert task.process_results(task.documents[2], given) == plain.process_results(
            plain.eval_docs[2], given
        )


def test_requests_are_reused_and_cleared(data_dir: Path) -> None:
    task = load_tasks(config(data_dir))["piqa"]
    task.build_all_requests(samples=[1, 3])
    first = task.instances or []
    first[0].resps.append(1.0)
    task.build_all_requests(samples=[1, 3])
    assert (task.instances or [])[0] is first[0]
    assert first[0].resps == []
    task.build_all_requests(samples=[1, 4])
    assert (task.instances or [])[0] is not first[0]
    assert load_tasks(config(data_dir))["piqa"] is task


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "d", count=3)
    before, digest = load_tasks(config(folder))["piqa"], data_digest(config(folder))
    write_data(folder, count=4)
    assert load_tasks(config(folder))["piqa"] is not before
    assert data_digest(config(folder)) != digest


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"eval.data_dir=.*nowhere is not a folder.*secateur fetch data_dir="):
        data_digest(config(tmp_path / "nowhere"))


def test_missing_split_and_text(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "d", count=3)
    path = folder / "tasks/piqa/validation.jsonl"
    path.rename(path.with_name("train.jsonl"))
    with pytest.raises(
        DataError, match=r"eval.tasks=piqa needs .*validation.parquet.*holds train.jsonl.*tasks=piqa"
    ):
        data_digest(config(folder))
    with pytest.raises(DataError, match=r"perplexity text 'c4' needs .*c4/test.parquet"):
        data_digest(config(folder, tasks=("boolq",), ppl=PerplexityConfig(protocols=("c4@64",))))


def test_train_text_is_never_scored(tmp_path: Path) -> None:
    write_rows(tmp_path / "text/stories/train.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match=r"holds train.jsonl"):
        text_file(tmp_path, "stories")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"goal": "a"}\n{"goal": ', "not a readable JSONL"),
        ("", "holds no rows"),
        ('{"question": "a", "answer": "b"}\n', "cannot be read as the task 'piqa'"),
    ],
)
def test_damaged_task_file(content: str, message: str, tmp_path: Path) -> None:
    folder = write_data(tmp_path / "d", count=3)
    (folder / "tasks/piqa/validation.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        load_tasks(config(folder, tasks=("piqa",)))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "tasks/piqa/validation.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a readable parquet"):
        load_tasks(config(tmp_path, tasks=("piqa",)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "no such file"),
        ("a.docx", "x", "kind '.docx' cannot be read"),
        ("a.jsonl", '{"story": "x"}\n', "has no column 'text'; it has story"),
        ("b.jsonl", '{"text": 3}\n', "row 0 of column 'text' is 3, not text"),
    ],
)
def test_bad_own_text(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    from secateur.eval.perplexity import texts_of
    from secateur.eval.protocols import protocols

    if content is not None:
        (tmp_path / name).write_text(content)
    settings = EvalConfig(tasks=(), ppl=PerplexityConfig(text=str(tmp_path / name)))
    with pytest.raises(DataError, match=message):
        texts_of(settings, protocols(settings)[0])


def test_digest_needs_no_torch(data_dir: Path) -> None:
    code = (
        "import sys; from secateur.eval.config import EvalConfig; from secateur.eval.data import data_digest;"
        f"data_digest(EvalConfig(data_dir={str(data_dir)!r}));"
        "print([m for m in ('torch', 'lm_eval', 'transformers', 'datasets') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_fetch_writes_the_layout_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With local data sets in the hub's place: what fetch writes is what evaluation reads."""
    source = write_data(tmp_path / "source", count=3)
    asked: list[str] = []

    def local(path: str, name: str | None, split: str, files: str | None) -> Any:
        asked.append(f"{path} {split}")
        task = next((task for task in TASKS if task_source(task) == (path, name)), None)
        rows = source / (f"tasks/{task}/{split}.jsonl" if task else "text/wikitext2_raw/test.jsonl")
        return datasets.Dataset.from_json(str(rows), cache_dir=str(tmp_path / "arrow"))

    monkeypatch.setattr(secateur.eval.fetch, "_load", local)
    target = tmp_path / "target"
    assert fetch([f"data_dir={target}"]) == 0
    assert len(asked) == 7 + 4
    assert len(data_digest(config(target))) == 16
    for name, task in load_tasks(config(target)).items():
        assert task.documents == load_tasks(config(source))[name].documents
    (target / "tasks/piqa/validation.parquet").unlink()
    assert fetch([f"data_dir={target}"]) == 0
    assert len(asked) == 7 + 4 + 1
    assert not list(target.rglob("*.tmp"))
    capsys.readouterr()


def test_fetch_without_internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch([f"data_dir={tmp_path}", "tasks=piqa", "texts=none"]) == 1
    error = capsys.readouterr().err
    assert "split validation, cannot be downloaded" in error
    assert "Traceback" not in error
    words = ["tasks=none", "texts=none", "model=nobody/nothing", f"model_dir={tmp_path / 'm'}"]
    assert fetch(words) == 1
    assert "model=nobody/nothing cannot be downloaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folder=x"], "'folder=x' is not understood"),
        ([], "data_dir=DIR is required"),
        (["data_dir=x", "texts=pile"], "unknown pile"),
        (["data_dir=x", "model=a/b"], "belong together"),
    ],
)
def test_fetch_refuses(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        secateur.eval.fetch.parse(words)


def test_fetch_knows_every_task_of_lm_eval(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert fetch([f"data_dir={tmp_path}", "tasks=riddlez"]) == 1
    assert "lm-eval has no task" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_fetch_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(["--help"]) == 0
    assert "secateur fetch data_dir=DIR" in capsys.readouterr().out
