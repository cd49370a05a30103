"""What calibration must not see: the text of the perplexities and the questions of the tasks that a run measures."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from secateur.eval.config import EvalConfig
from secateur.eval.data import data_folder, file_identity, task_file
from secateur.eval.perplexity import texts_of
from secateur.eval.protocols import protocols
from secateur.eval.seven import TASKS
from secateur.pruning.documents import read_rows
from secateur.pruning.leaks import RUN, Excluded

SEVEN = frozenset(TASKS)
CONTEXTS = ("passage", "ctx")
QUESTIONS = ("question", "goal", "question_stem", "sentence")
ANSWERS = ("sol1", "sol2", "option1", "option2")
"""Columns of the seven tasks' data files; `choices` holds the answers of the others."""


def evaluation_text(config: EvalConfig) -> Excluded:
    """Every document and question that is measured, of local files or of the hub.

    Raises:
        DataError: A file is missing or damaged, or the hub cannot be reached.
    """
    found: list[tuple[str, ...]] = []
    found += [
        (text,) for protocol in protocols(config) for text in texts_of(config, protocol) if text.strip()
    ]
    folder = data_folder(config)
    local = (
        []
        if folder is None or config.tasks_path is not None
        else [name for name in config.tasks if name in SEVEN]
    )
    for path in [task_file(folder, task) for task in local if folder is not None]:
        found += _questions(path, file_identity(path))
    return Excluded((*found, *_as_asked(config, [name for name in config.tasks if name not in local])))


def _as_asked(config: EvalConfig, names: list[str]) -> list[tuple[str, ...]]:
    """Passages of tasks that only lm-eval reads: the hub's, and those beyond the seven as their prompts show them."""
    if not names:
        return []
    from secateur.eval.tasks import load_tasks

    found: list[tuple[str, ...]] = []
    for name, task in load_tasks(config.model_copy(update={"tasks": tuple(names)})).items():
        for row in task.documents:
            prompt = [] if name in SEVEN else [task.doc_to_text(row), task.doc_to_target(row)]
            texts = tuple(text for text in prompt if isinstance(text, str) and text.strip())
            passages = passages_of(row) if name in SEVEN else texts
            found += [passages] if passages else []
    return found


@lru_cache(maxsize=32)
def _questions(path: Path, content: str) -> tuple[tuple[str, ...], ...]:
    """The passages of each question; `content` is part of the key, so that a changed file is read again."""
    return tuple(passages for row in read_rows(path) if (passages := passages_of(row)))


def passages_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Context and question of a task's row; a short question with each answer, since alone it says little."""
    context = [row[name] for name in CONTEXTS if isinstance(row.get(name), str)]
    question = next((row[name] for name in QUESTIONS if isinstance(row.get(name), str)), "")
    choices = row.get("choices")
    given = choices.get("text") if isinstance(choices, Mapping) else [row.get(name) for name in ANSWERS]
    answers = [text for text in given or () if isinstance(text, str)]
    if "_" in question:
        texts = [question.replace("_", answer) for answer in answers]
    else:
        texts = [question]
        texts += [f"{question} {answer}" for answer in answers if len(question.split()) < RUN]
    return tuple(dict.fromkeys(text for text in (*context, *texts) if text.strip()))
