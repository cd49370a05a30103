"""What `eval.tasks` names, as lm-eval Task objects: stock prompts, metrics and aggregation over local (or hub) data.

The stock YAML of each of the seven is read as it is installed and only its data source is replaced, so versions and
prompts are lm-eval's. Building them this way skips lm-eval's scan of all its task files (6 s), which only
other names need (`more_tasks`). Tasks, their documents and their requests are kept for the life of the process: they
are the same for every model.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from jinja2.exceptions import TemplateError
from lm_eval.api.group import Group
from lm_eval.tasks._yaml_loader import load_yaml

from secateur.eval.config import EvalConfig
from secateur.eval.data import data_digest, data_folder, file_identity, task_file
from secateur.eval.quiet import quiet
from secateur.eval.seven import SPLIT, STOCK
from secateur.eval.stored_task import StoredTask
from secateur.pruning.documents import TABLES, read_rows
from secateur.pruning.errors import DataError

SPLITS = ("training", "validation", "test", "fewshot")
Settings = tuple[int | None, int | None]
"""What is changed in every task: num_fewshot, max_gen_toks."""


def load_tasks(config: EvalConfig) -> dict[str, StoredTask]:
    """The config's tasks, in its order, ready for `lm_eval.evaluator.evaluate`; a group's in place of its name.

    Raises:
        ConfigError: A name that lm-eval does not know.
        DataError: A task's data is missing, damaged or has other columns than the task reads.
    """
    folder = data_folder(config)
    found: dict[str, StoredTask] = {}
    for name in config.tasks:
        if name in STOCK and config.tasks_path is None:
            path = None if folder is None else task_file(folder, name)
            found[name] = _task(name, path, "" if path is None else file_identity(path), _settings(config))
        else:
            found |= _others(name, config.tasks_path, folder, _settings(config), data_digest(config))[0]
    return found


def load_groups(config: EvalConfig) -> dict[str, Group]:
    """The groups among the config's tasks, for their aggregated numbers.

    Raises:
        ConfigError: A name that lm-eval does not know.
        DataError: Data is missing or damaged.
    """
    folder, found = data_folder(config), dict[str, Group]()
    for name in config.tasks:
        if name not in STOCK or config.tasks_path is not None:
            found |= _others(name, config.tasks_path, folder, _settings(config), data_digest(config))[1]
    return found


def forget_tasks() -> None:
    """Drop the tasks that are kept in memory."""
    _task.cache_clear()
    _others.cache_clear()


def _settings(config: EvalConfig) -> Settings:
    return config.num_fewshot, config.max_gen_toks


@lru_cache(maxsize=32)
def _task(name: str, path: Path | None, content: str, settings: Settings) -> StoredTask:
    """One of the seven; `content` is part of the key, so that a changed file is read again."""
    stock: dict[str, Any] = load_yaml(Path(lm_eval.__file__).parent / "tasks" / STOCK[name])
    stock.pop("tag", None)
    files = None if path is None else {SPLIT[name]: path}
    return build(stock, settings, files)


@lru_cache(maxsize=32)
def _others(
    name: str, tasks_path: str | None, folder: Path | None, settings: Settings, content: str
) -> tuple[dict[str, StoredTask], dict[str, Group]]:
    """Tasks and groups of a name that is none of the seven; `content` as above."""
    from secateur.eval.more_tasks import find

    def make(stock: dict[str, Any]) -> StoredTask:
        return build(stock, settings, None if folder is None else split_files(folder, name, stock))

    return find(name, tasks_path, make)


def build(stock: dict[str, Any], settings: Settings, files: dict[str, Path] | None) -> StoredTask:
    """A task of a stock config, over local files by split, or over the hub's where there are none.

    Raises:
        DataError: Its data is missing, damaged or has other columns than the task reads.
    """
    name, (shots, max_gen_toks) = stock["task"], settings
    if shots is not None and stock.get("num_fewshot") != 0:  # lm-eval's rule: a task that says 0 means it
        stock = {**stock, "num_fewshot": shots}
    if max_gen_toks is not None and stock.get("output_type") == "generate_until":
        changed = {**(stock.get("generation_kwargs") or {}), "max_gen_toks": max_gen_toks}
        stock = {**stock, "generation_kwargs": changed}
    if files is not None:
        stock = redirected(stock, files | _examples(stock, files))
    where = "the hub" if files is None else str(next(iter(files.values()), name))
    try:
        with quiet():
            return StoredTask(config=stock)
    except (KeyError, ValueError, TypeError, IndexError, TemplateError) as error:
        if files is None:
            raise
        raise DataError(
            f"{where} cannot be read as the task {name!r} ({type(error).__name__}: {error}). Its columns must "
            f"be those of the lm-eval task; `secateur fetch data_dir=... tasks={name}` writes such a file"
        ) from error
    except (ConnectionError, OSError) as error:
        raise DataError(
            f"the task {name!r} cannot be loaded from {where} ({error}). Without internet give eval.data_dir=DIR; "
            f"`secateur fetch data_dir=DIR tasks={name}` fills it on a machine with internet"
        ) from error


def split_files(folder: Path, asked: str, stock: dict[str, Any]) -> dict[str, Path]:
    """The local files of a task's splits: in DIR/tasks/TASK, or in DIR/tasks/GROUP/TASK.

    Raises:
        DataError: The split that is scored is missing.
    """
    name = stock["task"]
    places = [folder / "tasks" / name, folder / "tasks" / asked / name]
    names = {kind: stock.get(f"{kind}_split") for kind in SPLITS}
    found = {
        split: path
        for split in names.values()
        if split
        for path in [_file(places, split)]
        if path is not None
    }
    scored = names["test"] or names["validation"] or "test"
    if scored not in found:
        raise DataError(
            f"eval.tasks={asked} needs {places[0] / scored}.parquet (or .jsonl), which does not exist. "
            f"`secateur fetch data_dir={folder} tasks={asked}` downloads it on a machine with internet"
        )
    return found


def _examples(stock: dict[str, Any], files: dict[str, Path]) -> dict[str, Path]:
    """The file that few-shot examples are drawn from, where some are asked for and the task names a split for them."""
    split = stock.get("fewshot_split") or stock.get("training_split")
    drawn_elsewhere = (stock.get("fewshot_config") or {}).get("samples") is not None
    if not stock.get("num_fewshot") or split is None or split in files or drawn_elsewhere:
        return {}
    place = next(iter(files.values())).parent
    path = _file([place], split)
    if path is None:
        raise DataError(
            f"the {stock['num_fewshot']} examples before each question of {stock['task']!r} come from "
            f"{place / split}.parquet (or .jsonl), which does not exist; `secateur fetch data_dir=... "
            f"tasks={stock['task']}` writes it, eval.num_fewshot=0 needs none"
        )
    return {split: path}


def _file(places: list[Path], split: str) -> Path | None:
    paths = [place / f"{split}{suffix}" for place in places for suffix in TABLES]
    return next((path for path in paths if path.is_file()), None)


def redirected(stock: dict[str, Any], files: dict[str, Path]) -> dict[str, Any]:
    """A stock task config whose only splits are local files."""

    def dataset(**_: Any) -> datasets.DatasetDict:
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_list(read_rows(path)) for split, path in files.items()}
        )

    named = {f"{kind}_split": stock.get(f"{kind}_split") for kind in SPLITS}
    left = {key: split if split in files else None for key, split in named.items()}
    return {**stock, "dataset_kwargs": None, "custom_dataset": dataset, **left}
