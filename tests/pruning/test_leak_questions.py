"""The leak guard where it is used: questions of the tasks, whole files, the shipped world, real text."""

import gzip
import json
from pathlib import Path

import datasets
import pytest

from secateur.eval.config import TASKS, EvalConfig, PerplexityConfig
from secateur.eval.tasks import forget_tasks
from secateur.eval.unseen import evaluation_text, passages_of
from secateur.pruning.calibration import load_samples
from secateur.pruning.config import CalibrationConfig, TaylorConfig
from secateur.pruning.errors import DataError
from secateur.pruning.leaks import Excluded, leaked
from secateur.pruning.words import plain
from secateur.pruning.world.text import calibration_documents, held_out_documents
from tests.pruning.commands import tokenizer, write_jsonl
from tests.pruning.test_leaks import CLEAN, EXCLUDED, SEEN, prose


def rows(task: str) -> list[dict[str, object]]:
    """Questions of the shipped data folder, in the schema of the task, with words of their own."""
    from secateur.pruning.world.bundle import data_dir

    (path,) = (Path(data_dir()) / "tasks" / task).glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_questions_hidden_in_calibration_text_are_found(task: str) -> None:
    """Every question that says enough (13 words with its answer) is found inside a longer document."""
    excluded = evaluation_text(
        EvalConfig(tasks=(task,), data_dir="bundled", ppl=PerplexityConfig(protocols=()))
    )
    assert len(excluded.documents) == len(rows(task))
    longest = [max(passages, key=lambda text: len(plain(text).split())) for passages in excluded.documents]
    telling = list(dict.fromkeys(text for text in longest if len(plain(text).split()) >= 8))[:8]
    assert len(telling) == 8
    hidden = [f"{own} {question}" for own, question in zip(CLEAN, telling, strict=False)]
    assert leaked([*hidden, *CLEAN[8:]], excluded) == list(range(8))


def test_passages_of_each_schema() -> None:
    long = "a question of thirteen words or more that says enough on its own already now"
    assert passages_of({"passage": "P", "question": "Q", "label": 1}) == ("P", "Q")
    assert passages_of({"ctx": "C", "endings": ["E"], "label": "0"}) == ("C",)
    assert passages_of({"goal": "G", "sol1": "A", "sol2": "B"}) == ("G", "G A", "G B")
    assert passages_of({"goal": long, "sol1": "A", "sol2": "B"}) == (long,)
    assert passages_of({"question_stem": "Q", "choices": {"text": ["A", "B"]}}) == ("Q", "Q A", "Q B")
    assert passages_of({"sentence": "x _ y", "option1": "A", "option2": "B"}) == ("x A y", "x B y")
    assert passages_of({"question": None, "choices": None}) == ()


def test_data_of_the_hub_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock tasks and texts that `load_dataset` brings are excluded as local files of the same rows are."""
    here = EvalConfig(tasks=("openbookqa", "piqa"), data_dir="bundled", ppl=PerplexityConfig(protocols=()))
    texts = [{"text": text} for text in SEEN]

    def load_dataset(path: str, *_: object, split: str | None = None, **__: object) -> object:
        if split is not None:
            assert path == "Salesforce/wikitext"
            return datasets.Dataset.from_list(texts)
        whole = datasets.Dataset.from_list(rows(next(task for task in here.tasks if task in path)))
        return datasets.DatasetDict(dict.fromkeys(("train", "validation", "test"), whole))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    forget_tasks()
    protocols = PerplexityConfig(protocols=("wikitext2@128",))
    there = evaluation_text(here.model_copy(update={"data_dir": None, "ppl": protocols}))
    forget_tasks()
    assert there.documents == (*((text,) for text in SEEN if text.strip()), *evaluation_text(here).documents)


# --- the whole way


def test_the_digest_tells_texts_and_their_borders_apart() -> None:
    kinds = [(), (("a",),), (("a", "b"),), (("a",), ("b",)), (("ab",),), (("b",), ("a",))]
    digests = [Excluded(documents).digest for documents in kinds]
    assert digests[0] == ""
    assert len(set(digests)) == len(kinds)
    assert Excluded((("a", "b"),)).digest == digests[2]


@pytest.mark.parametrize("name", ["joined.txt", "joined.txt.gz"])
def test_a_joined_file_is_refused(tmp_path: Path, name: str) -> None:
    data = ("\ufeff" + "\n\n".join(SEEN)).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    config = CalibrationConfig(path=str(path))
    with pytest.raises(DataError, match=r"1 of 1 documents hold evaluation text.*training split"):
        load_samples(config, TaylorConfig(), tokenizer(), tmp_path, EXCLUDED)


def test_few_documents_of_many_words_are_mostly_evaluation_text(tmp_path: Path) -> None:
    """Counted in documents it is a quarter, in words it is most of the text."""
    path = write_jsonl(tmp_path / "text.jsonl", ["\n".join(SEEN), *prose(3, 60, seed=20)])
    with pytest.raises(DataError, match="1 of 4 documents hold evaluation text"):
        load_samples(CalibrationConfig(path=str(path)), TaylorConfig(), tokenizer(), tmp_path, EXCLUDED)


def test_the_world_is_calibration_for_its_own_bench(tmp_path: Path) -> None:
    """Its sentences recur on both sides. Whole documents never do, which is what `load_samples` asks of it."""
    config, taylor = (
        CalibrationConfig(name="world", source="world"),
        TaylorConfig(seq_len=128, num_samples=256),
    )
    excluded = evaluation_text(EvalConfig(data_dir="bundled", ppl=PerplexityConfig(protocols=("world@128",))))
    texts = calibration_documents(0, 64 + 256 * 16)
    assert not set(map(plain, texts)) & set(map(plain, held_out_documents()))
    guarded = load_samples(config, taylor, tokenizer(), tmp_path, excluded)
    free = load_samples(config, taylor, tokenizer(), tmp_path)
    assert guarded.digest == free.digest
    assert guarded.left_out == ""


@pytest.mark.shared
def test_real_text_shares_one_page_with_the_tasks(assets: Path) -> None:
    """A thousand pages of C4 hold one that HellaSwag asks about; WikiText and TinyStories share nothing with theirs."""
    from secateur.pruning.documents import read_texts

    def texts(name: str) -> list[str]:
        return read_texts(assets / "text" / name, "text", "calibration.field")

    questions = evaluation_text(EvalConfig(data_dir=str(assets), ppl=PerplexityConfig(protocols=())))
    pages = texts("c4/train.parquet")
    (found,) = leaked(pages, questions)
    assert "Many cities will require building permits for installing hot tubs outdoors" in pages[found]
    pairs = (
        ("tinystories/train", "tinystories/validation"),
        ("wikitext2_raw/validation", "wikitext2_raw/test"),
    )
    for one, two in pairs:
        held_out = Excluded(tuple((text,) for text in texts(f"{two}.parquet") if text.strip()))
        assert leaked(texts(f"{one}.parquet"), held_out) == []
