"""No method ever reads evaluation text: every token that reaches a model while it is pruned is looked at.

Evaluation documents are written with words of their own (token ids from `FIRST` on), so that one token gives one away.
"""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur.pruning.pipeline
import secateur.pruning.repair
from secateur.eval.config import RunConfig
from secateur.eval.unseen import evaluation_text
from secateur.pruning import pipeline
from secateur.pruning.compose import compose, options, register
from secateur.pruning.config import validate
from secateur.pruning.errors import DataError
from secateur.pruning.importance.scores import needs_capture
from secateur.pruning.leaks import NOTHING
from secateur.pruning.models.loading import LoadedModel, load, outline
from secateur.pruning.obtain import samples_for
from tests.pruning.commands import WORDS, Place, place, write_jsonl

FIRST = 40
"""The first token id that only evaluation documents have."""
METHODS = options("method")


def written(count: int, words: list[str], seed: int) -> list[str]:
    """Documents of 24 of these words each."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(words, k=24)) for _ in range(count)]


CLEAN = written(60, WORDS[: FIRST - 4], seed=0)
EVALUATION = written(20, WORDS[FIRST - 4 :], seed=1)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny model, a calibration file that is one quarter evaluation text, and that evaluation text."""
    found = place(tmp_path_factory.mktemp("leak"))
    mixed = [text for i in range(20) for text in (*CLEAN[3 * i : 3 * i + 3], f"  {EVALUATION[i]}\n")]
    write_jsonl(found.text, mixed)
    write_jsonl(found.held_out, EVALUATION)
    return found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Every token id that goes into the embedding of any model that a run loads."""
    tokens: set[int] = set()

    def watched(*arguments: Any) -> LoadedModel:
        loaded = load(*arguments)
        model: Any = loaded.model
        model.get_input_embeddings().register_forward_pre_hook(
            lambda _, inputs: tokens.update(inputs[0].flatten().tolist())
        )
        return loaded

    monkeypatch.setattr(secateur.pruning.pipeline, "load", watched)
    monkeypatch.setattr(secateur.pruning.repair, "load", watched)
    return tokens


def config(there: Place, method: str, *more: str) -> RunConfig:
    """A run of a method that measures perplexity on the evaluation documents."""
    register(RunConfig)
    searched = ["method.search.forwards=3", "method.search.num_samples=4"] if "search" in method else []
    words = there.arguments(*there.perplexity(), f"method={method}", "budget.ratio=0.1", *searched, *more)
    if method == "dense":
        words.remove("budget.ratio=0.1")
    return validate(RunConfig, compose("run", words))


def reads_text(run: RunConfig) -> bool:
    return needs_capture(run.method) or run.method.changes_weights


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_documents_in_the_calibration_file_reach_no_model(
    there: Place, seen: set[int], tmp_path: Path, method: str
) -> None:
    run = config(there, method, f"out={tmp_path}")
    pipeline.run(run, exclude=evaluation_text(run.eval))
    assert bool(seen) == reads_text(run)
    assert not [token for token in seen if token >= FIRST]


def test_the_watch_sees_what_is_not_excluded(there: Place, seen: set[int], tmp_path: Path) -> None:
    """The test above can fail."""
    pipeline.run(config(there, "taylor_refit", f"out={tmp_path}"))
    assert [token for token in seen if token >= FIRST]


@pytest.mark.parametrize("count", [None, 12, 20])
def test_samples_of_refit_and_search_leave_it_out_too(there: Place, count: int | None) -> None:
    """`samples_for` with a count of its own: a refit reads more samples than the capture, a search those behind."""
    run = config(there, "secateur_search")
    loaded = load(run.model, "cpu")
    clean = samples_for(run, loaded, evaluation_text(run.eval), count)
    dirty = samples_for(run, loaded, NOTHING, count)
    assert len(clean.ids) == (count or run.taylor.num_samples)
    assert clean.left_out
    assert not dirty.left_out
    assert clean.digest != dirty.digest
    assert int(clean.ids.max()) < FIRST <= int(dirty.ids.max())


@pytest.mark.parametrize("method", METHODS)
def test_a_file_that_is_mostly_evaluation_text_is_refused(
    there: Place, seen: set[int], tmp_path: Path, method: str
) -> None:
    text = write_jsonl(tmp_path / "text.jsonl", [*EVALUATION, *CLEAN[:10]])
    run = config(
        there,
        method,
        f"calibration.path={text}",
        "taylor.seq_len=8",
        "taylor.num_samples=2",
        f"out={tmp_path}",
    )
    exclude = evaluation_text(run.eval)
    if not reads_text(run):
        pipeline.run(run, exclude=exclude)
        assert not seen
        return
    with pytest.raises(DataError, match="20 of 30 documents hold evaluation text"):
        pipeline.check(run, outline(run.model), exclude)
    with pytest.raises(DataError, match="20 of 30 documents hold evaluation text"):
        pipeline.run(run, exclude=exclude)
    assert not seen


def test_refit_samples_of_their_own_are_checked_too(there: Place, tmp_path: Path) -> None:
    """A method whose scores need no text still refits on text."""
    text = write_jsonl(tmp_path / "text.jsonl", [*EVALUATION, *CLEAN[:10]])
    run = config(
        there, "magnitude", "method.compensation.kind=least_squares", "method.compensation.num_samples=4",
        f"calibration.path={text}", "taylor.seq_len=8",
    )  # fmt: skip
    with pytest.raises(DataError, match="20 of 30 documents"):
        pipeline.run(run, exclude=evaluation_text(run.eval))
    clean = config(
        there, "magnitude", "method.compensation.kind=least_squares", "method.compensation.num_samples=4"
    )
    found = pipeline.run(clean, exclude=evaluation_text(clean.eval))
    assert found.story["compensation"]["samples"] == 4
    assert bool(torch.isfinite(next(iter(found.loaded.model.parameters()))).all())
