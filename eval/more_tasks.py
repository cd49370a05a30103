"""Tasks of lm-eval beyond the seven: any task, group or tag by name, and task files of one's own."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lm_eval.api.group import Group
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry

from secateur.eval.data import own_tasks
from secateur.eval.quiet import quiet
from secateur.eval.stored_task import StoredTask
from secateur.pruning.errors import ConfigError, DataError

STRUCTURE = ("tag", "group", "task_list")
"""Keys of a task file that say where the task belongs, not what it is."""

Make = Callable[[dict[str, Any]], Any]


class _Factory(TaskFactory):
    """lm-eval's factory of groups and tags, with our tasks in them."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self._make = make

    def _build_task(self, entry: Entry, overrides: dict[str, Any] | None) -> Any:
        _refuse_what_cannot_run(entry.cfg or {})  # before its functions are imported
        config = self._load_full_config(entry, overrides)
        for key in STRUCTURE:
            config.pop(key, None)
        return self._make(config)


def find(name: str, tasks_path: str | None, make: Make) -> tuple[dict[str, StoredTask], dict[str, Group]]:
    """The tasks that a name of lm-eval stands for, and the groups whose aggregated numbers belong to it.

    Args:
        name: A task, a group or a tag.
        tasks_path: A folder with task files of one's own; they go before lm-eval's.
        make: Builds a task of its config.

    Raises:
        ConfigError: The name is unknown, or the task cannot be measured here.
    """
    manager = _manager(tasks_path)
    if name not in manager.task_index:
        near = difflib.get_close_matches(name, manager.all_tasks, 3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(
            f"eval.tasks={name}: lm-eval has no task, group or tag of this name; {hint}`secateur tasks` lists the "
            f"seven, `secateur tasks all` every other, eval.tasks_path=DIR adds task files of your own"
        )
    manager._factory = _Factory(make)  # pyright: ignore[reportPrivateUsage]  the one place that builds tasks
    with quiet():
        loaded: Any = manager.load([name])
    return loaded["tasks"], loaded.get("groups", {})


@dataclass(frozen=True)
class Source:
    """Where a task's data comes from.

    Attributes:
        task_name: The task.
        path: Its data set on the hub.
        subset: Configuration of the data set.
        splits: What is scored and what examples are drawn from.
    """

    task_name: str
    path: str
    subset: str | None
    splits: tuple[str, ...]


def sources(name: str) -> list[Source]:
    """Where the data of a task, a group or a tag comes from; nothing is loaded.

    Raises:
        ConfigError: The name is unknown.
    """
    found: list[Source] = []

    def note(config: dict[str, Any]) -> Source:
        examples = config.get("fewshot_split") or config.get("training_split")
        splits = [config.get("test_split") or config.get("validation_split"), examples]
        splits = tuple(dict.fromkeys(split for split in splits if split))
        found.append(Source(config["task"], config["dataset_path"], config.get("dataset_name"), splits))
        return found[-1]

    find(name, None, note)
    return found


def names() -> list[str]:
    """Every task, group and tag that the installed lm-eval knows."""
    return list(_manager(None).all_tasks)


@lru_cache(maxsize=4)
def _manager(tasks_path: str | None) -> TaskManager:
    with quiet():
        return TaskManager(include_path=None if tasks_path is None else str(own_tasks(tasks_path)))


def _refuse_what_cannot_run(config: dict[str, Any]) -> None:
    name = config.get("task")
    if "class" in config:
        raise DataError(
            f"the task {name!r} is a Python class of its own, which is not read; measure it with lm-eval"
        )
    if config.get("unsafe_code"):
        raise ConfigError(f"the task {name!r} runs code that the model writes, which is not done here")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise ConfigError(f"the task {name!r} shows images or plays sound; these models read text")
