"""Tasks beyond the seven, few-shot and generative ones: lm-eval's own numbers, on a shipped model, offline."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from secateur.eval.config import EvalConfig, PerplexityConfig
from secateur.eval.data import data_digest
from secateur.eval.measure import Measurements, measure
from secateur.eval.more_tasks import sources
from secateur.eval.tasks import load_tasks
from secateur.eval.unseen import evaluation_text
from secateur.pruning.config import ModelConfig
from secateur.pruning.errors import ConfigError, DataError
from secateur.pruning.models.loading import LoadedModel, load
from tests.eval.conftest import write_rows

NOTHING = PerplexityConfig(protocols=())
STOCK_FILES = {"sciq": "sciq/sciq.yaml", "gsm8k": "gsm8k/gsm8k.yaml", "arc_easy": "arc/arc_easy.yaml"}
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal")


def science(count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"What does {NAMES[i % 8]} see {i} times?", "correct_answer": f"the {i} ducks",
            "distractor1": "a boat", "distractor2": "two red hills", "distractor3": f"no {i} frogs",
            "support": f"{NAMES[i % 8]} walks to the lake. There are {i} ducks.",
        }
        for i in range(count)
    ]  # fmt: skip


def sums(count: int) -> list[dict[str, str]]:
    return [
        {
            "question": f"{NAMES[i % 8]} has {i} ducks and gets {i + 1}. How many?",
            "answer": f"Add.\n#### {2 * i + 1}",
        }
        for i in range(count)
    ]


def arc(count: int) -> list[dict[str, Any]]:
    letters = ["A", "B", "C"]
    return [
        {
            "id": str(i), "question": f"Where does {NAMES[i % 8]} go on day {i}?", "answerKey": letters[i % 3],
            "choices": {"text": [f"to lake {i}", "home", "to the old mill"], "label": letters},
        }
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("more") / "tasks"
    write_rows(home / "sciq" / "test.jsonl", science(12))
    write_rows(home / "sciq" / "train.jsonl", science(40)[12:])
    write_rows(home / "gsm8k" / "test.jsonl", sums(6))
    write_rows(home / "gsm8k" / "train.jsonl", sums(30)[6:])
    write_rows(home / "arc_easy" / "test.jsonl", arc(12))
    write_rows(home / "arc_easy" / "train.jsonl", arc(40)[12:])
    return home.parent


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load(ModelConfig(path="bundled:tiny_llama"), "cpu")


def lm_evals_own(
    loaded: LoadedModel,
    folder: Path,
    names: list[str],
    tmp: Path,
    shots: int | None,
    gen: dict[str, Any] | None,
) -> dict[str, Any]:
    """`simple_evaluate` with a plain HFLM and lm-eval's task files, whose data is read from the same folder."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    root, wanted = Path(lm_eval.__file__).parent / "tasks", dict[str, str]()
    for name in names:
        files = {path.stem: str(path) for path in (folder / "tasks" / name).iterdir()}
        own = {"include": str(root / STOCK_FILES[name]), "task": f"{name}_here", "dataset_path": "json"}
        own |= {"dataset_name": None, "dataset_kwargs": {"data_files": files}, "tag": None}
        own |= {"validation_split": None}
        (tmp / f"{name}.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
        wanted[f"{name}_here"] = name
    make: Any = HFLM
    lm = make(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=4, logits_cache=False)
    call: Any = lm_eval.simple_evaluate
    results = call(
        model=lm, tasks=list(wanted), num_fewshot=shots, gen_kwargs=gen, log_samples=False, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(tmp), include_defaults=False),
    )["results"]  # fmt: skip
    return {
        f"{wanted[task]}/{metric}" + ("" if kind == "none" else f"@{kind}"): value
        for task, result in results.items() for key, value in result.items()
        for metric, comma, kind in [key.partition(",")] if comma and not metric.endswith("_stderr")
    }  # fmt: skip


def measured(loaded: LoadedModel, folder: Path, out: Path, *names: str, **changes: Any) -> Measurements:
    config = EvalConfig(tasks=names, data_dir=str(folder), ppl=NOTHING, batch_size=4, **changes)
    return measure(loaded.model, loaded.tokenizer, config, out)


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        (["sciq", "arc_easy"], {}),
        (["arc_easy", "sciq"], {"num_fewshot": 3}),
        (["gsm8k"], {"num_fewshot": 1, "max_gen_toks": 12}),
    ],
)
def test_numbers_are_lm_evals(
    names: list[str], changes: dict[str, Any], loaded: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    gen = {"max_gen_toks": 12} if "max_gen_toks" in changes else None
    expected = lm_evals_own(loaded, folder, names, tmp_path, changes.get("num_fewshot"), gen)
    found = measured(loaded, folder, tmp_path / "run", *names, **changes)
    assert {name: metric.value for name, metric in found.metrics.items() if name != "acc_mean"} == expected
    assert len(expected) == 2 * len(names)
    assert {found.card["tasks"][name]["num_fewshot"] for name in names} == {changes.get("num_fewshot", 0)}
    if "arc_easy" in names:  # the mean is of the seven, whatever else is measured
        assert found.metrics["acc_mean"].value == expected["arc_easy/acc_norm"]
        assert set(found.answers["task"]) == set(names)
    again = measured(loaded, folder, tmp_path / "run", *names, **changes)
    assert again.metrics == found.metrics
    assert again.counters["requests_computed"] == 0
    assert again.counters["requests"] == again.counters["requests_reused"] > 0


def test_a_group_of_own_task_files(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    """Its number is the mean weighted by questions, and the files are part of the run's identity."""
    own, data = tmp_path / "yaml", tmp_path / "data"
    own.mkdir()
    settings = {"output_type": "multiple_choice", "test_split": "test", "dataset_path": "none",
                "doc_to_text": "{{question}}", "doc_to_target": 0, "doc_to_choice": "{{[correct_answer, distractor1]}}",
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}  # fmt: skip
    for name, count in (("ponds", 4), ("lakes", 9)):
        (own / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **settings}), encoding="utf-8")
        write_rows(data / "tasks" / "waters" / name / "test.jsonl", science(count))
    aggregate = [{"metric": "acc", "weight_by_size": True}]
    group = {"group": "waters", "task": ["ponds", "lakes"], "aggregate_metric_list": aggregate}
    (own / "waters.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    config = EvalConfig(tasks=("waters",), data_dir=str(data), tasks_path=str(own), ppl=NOTHING)
    found = measure(loaded.model, loaded.tokenizer, config, tmp_path / "run").metrics
    assert set(found) == {"ponds/acc", "lakes/acc", "waters/acc"}
    parts = [found["ponds/acc"].value or 0, found["lakes/acc"].value or 0]
    assert found["waters/acc"].value == pytest.approx((4 * parts[0] + 9 * parts[1]) / 13, abs=1e-12)
    assert found["waters/acc"].n == 13
    before = data_digest(config)
    (own / "ponds.yaml").write_text(
        yaml.safe_dump({"task": "ponds", **settings, "description": "Hm."}), "utf-8"
    )
    assert data_digest(config) != before


def test_calibration_must_not_see_their_questions(folder: Path) -> None:
    config = EvalConfig(tasks=("sciq",), data_dir=str(folder), ppl=NOTHING)
    passages = evaluation_text(config).documents
    assert len(passages) == 12
    assert "There are 3 ducks." in passages[3][0]


def test_what_is_refused(folder: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    def config(*names: str, **changes: Any) -> EvalConfig:
        return EvalConfig(tasks=names, data_dir=str(folder), ppl=NOTHING, **changes)

    with pytest.raises(ConfigError, match=r"eval.tasks=gsm8kk: lm-eval has no .* did you mean gsm8k"):
        load_tasks(config("gsm8kk"))
    with pytest.raises(
        DataError, match=r"eval.tasks=swag needs .*swag/validation.parquet .*fetch .*tasks=swag"
    ):
        load_tasks(config("swag"))
    with pytest.raises(ConfigError, match="runs code that the model writes"):
        load_tasks(config("humaneval"))
    (tmp_path / "tasks").mkdir()
    write_rows(tmp_path / "tasks" / "arc_easy" / "test.jsonl", arc(3))
    few = EvalConfig(tasks=("arc_easy",), data_dir=str(tmp_path), ppl=NOTHING, num_fewshot=2)
    with pytest.raises(DataError, match=r"the 2 examples .* come from .*arc_easy/train.parquet"):
        load_tasks(few)
    with pytest.raises(DataError, match=r"answers of 256 tokens, .* eval.max_gen_toks=N"):
        measured(loaded, folder, tmp_path / "run", "gsm8k")


def test_texts_that_a_kill_cut_off_are_written_again(
    loaded: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    given = {"num_fewshot": 0, "max_gen_toks": 6}
    first = measured(loaded, folder, tmp_path, "gsm8k", **given)
    (path,) = tmp_path.rglob("texts.jsonl")
    whole = path.read_bytes()
    assert [set(json.loads(line)) for line in whole.splitlines()] == [{"key", "text"}] * 6
    path.write_bytes(whole[:-9])
    again = measured(loaded, folder, tmp_path, "gsm8k", **given)
    assert again.metrics == first.metrics
    assert again.counters["requests_computed"] == 6, "the batch is that of the first call"


def test_where_data_comes_from() -> None:
    (source,) = sources("gsm8k")
    assert (source.path, source.subset, source.splits) == ("openai/gsm8k", "main", ("test", "train"))
    assert len(sources("mmlu")) == 57
    assert sources("sciq")[0].splits == ("test", "train")
