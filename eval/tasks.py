"""The seven tasks as lm-eval Task objects: stock prompts, metrics and aggregation over local (or hub) data.

The stock YAML of each task is read as it is installed and only its data source is replaced, so versions and
prompts are lm-eval's. Building them this way skips lm-eval's scan of all its task files (6 s).
Tasks, their documents and their requests are kept for the life of the process: they are the same for every
model.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from jinja2.exceptions import TemplateError
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import create_iterator

from eval.config import EvalConfig
from eval.data import SPLIT, data_folder, file_identity, task_file
from eval.quiet import quiet
from pruning.documents import read_rows
from pruning.errors import DataError

STOCK: dict[str, str] = {
    "boolq": "super_glue/boolq/default.yaml",
    "piqa": "piqa/piqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
}

PROMPT_OPTIONS = ("system_instruction", "apply_chat_template", "fewshot_as_multiturn", "chat_template")
Answer = dict[str, float]


class StoredTask(ConfigurableTask):
    """A stock task that keeps its documents, requests and rendered choices between models.

    lm-eval renders a template for every choice and target each time it asks; the documents never change, so
    here each is rendered once. What is computed from them stays lm-eval's.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._split_docs: dict[str, Any] = {}
        self._documents: list[dict[str, Any]] | None = None
        self._memo: dict[tuple[str, int], Any] = {}
        self._built: tuple[int | None, tuple[int, ...] | None, int, int] | None = None
        self.answers: list[Answer] = []
        super().__init__(config=config)

    def validation_docs(self) -> Any:
        """The validation split after the task's own processing, processed once."""
        return self._processed("validation", super().validation_docs)

    def test_docs(self) -> Any:
        """The test split after the task's own processing, processed once."""
        return self._processed("test", super().test_docs)

    def _processed(self, split: str, make: Any) -> Any:
        if split not in self._split_docs:
            self._split_docs[split] = make()
        return self._split_docs[split]

    @property
    def documents(self) -> list[dict[str, Any]]:
        """All documents of the scored split, as plain dictionaries that live as long as the task."""
        if self._documents is None:
            self._documents = [dict(doc) for doc in self.eval_docs]
        return self._documents

    def doc_iterator(
        self,
        *,
        rank: int = 0,
        limit: int | None = None,
        world_size: int = 1,
        samples: list[int] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, document): the first `limit` ones, or those that `samples` names, in file order."""
        docs = self.documents
        if samples:
            docs = [docs[i] for i in sorted(set(samples))]
            limit = None
        return create_iterator(enumerate(docs), rank=int(rank), limit=limit, world_size=int(world_size))

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the requests, or take those of the model before with their answers cleared."""
        samples = kwargs.get("samples")
        wanted = (
            kwargs.get("limit"),
            None if samples is None else tuple(samples),
            int(kwargs.get("rank", 0)),
            int(kwargs.get("world_size", 1)),
        )
        self.answers = []
        if self._built == wanted and self._instances:
            for instance in self._instances:
                instance.resps = []
                instance.filtered_resps = {}
            return
        self._instances = []
        prompt = {key: value for key, value in kwargs.items() if key in PROMPT_OPTIONS}
        chat = {
            key: value for key, value in prompt.items() if key in ("apply_chat_template", "chat_template")
        }
        for number, doc in self.doc_iterator(
            limit=wanted[0], samples=samples, rank=wanted[2], world_size=wanted[3]
        ):
            context = self.fewshot_context(
                doc, num_fewshot=self.config.num_fewshot or 0, gen_prefix=self.doc_to_prefix(doc), **prompt
            )
            made = self.construct_requests(
                doc=doc, ctx=context, metadata=(self.config.task, number, self.config.repeats), **chat
            )
            self._instances.extend(made if isinstance(made, list) else [made])
        self._built = wanted

    def process_results(self, doc: Any, results: Any) -> Any:
        """Score one question with lm-eval's code and keep its metrics for the per-question answers."""
        metrics = super().process_results(doc, results)
        self.answers.append(metrics)
        return metrics

    def doc_to_choice(self, doc: Any, doc_to_choice: Any = None) -> Any:
        """The answer choices, rendered once per document."""
        if doc_to_choice is not None:
            return super().doc_to_choice(doc, doc_to_choice)
        return self._remember("choice", doc, super().doc_to_choice)

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> Any:
        """The gold answer, rendered once per document."""
        if doc_to_target is not None:
            return super().doc_to_target(doc, doc_to_target)
        return self._remember("target", doc, super().doc_to_target)

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> Any:
        """The question, rendered once per document."""
        if doc_to_text is not None:
            return super().doc_to_text(doc, doc_to_text)
        return self._remember("text", doc, super().doc_to_text)

    def _remember(self, kind: str, doc: Any, make: Any) -> Any:
        if self._documents is None:  # identities are stable only for documents that the task keeps
            return make(doc)
        key = (kind, id(doc))
        if key not in self._memo:
            self._memo[key] = make(doc)
        return self._memo[key]


def load_tasks(config: EvalConfig) -> dict[str, StoredTask]:
    """The config's tasks, in its order, ready for `lm_eval.evaluator.evaluate`.

    Raises:
        DataError: A task's data is missing, damaged or has other columns than the task reads.
    """
    folder = data_folder(config)
    return {name: _load(name, None if folder is None else task_file(folder, name)) for name in config.tasks}


def forget_tasks() -> None:
    """Drop the tasks that are kept in memory."""
    _task.cache_clear()


def _load(name: str, path: Path | None) -> StoredTask:
    return _task(name, path, "" if path is None else file_identity(path))


@lru_cache(maxsize=32)
def _task(name: str, path: Path | None, content: str) -> StoredTask:
    """One task; `content` is part of the key, so that a changed file is read again."""
    stock: dict[str, Any] = load_yaml(Path(lm_eval.__file__).parent / "tasks" / STOCK[name])
    stock.pop("tag", None)
    if path is not None:
        stock = redirected(stock, path, SPLIT[name])
    try:
        with quiet():
            return StoredTask(config=stock)
    except (KeyError, ValueError, TypeError, IndexError, TemplateError) as error:
        if path is None:
            raise
        raise DataError(
            f"{path} cannot be read as the task {name!r} ({type(error).__name__}: {error}). Its columns must "
            f"be those "
            f"of the lm-eval task; `secateur fetch data_dir=... tasks={name}` writes such a file"
        ) from error
    except (ConnectionError, OSError) as error:
        raise DataError(
            f"the task {name!r} cannot be loaded from the hub ({error}). Without internet give "
            f"eval.data_dir=DIR; "
            f"`secateur fetch data_dir=DIR tasks={name}` fills it on a machine with internet"
        ) from error


def redirected(stock: dict[str, Any], path: Path, split: str) -> dict[str, Any]:
    """A stock task config whose only split is a local file."""

    def dataset(**_: Any) -> datasets.DatasetDict:
        return datasets.DatasetDict({split: datasets.Dataset.from_list(read_rows(path))})

    unused = {f"{name}_split": None for name in ("training", "validation", "test")}
    return {**stock, "dataset_kwargs": None, "custom_dataset": dataset, **unused, f"{split}_split": split}
