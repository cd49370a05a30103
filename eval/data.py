"""Where evaluation data lies on disk, and which bytes it is. No torch, no lm-eval here.

Layout of `eval.data_dir=DIR`: `DIR/tasks/<task>/<split>.{parquet,jsonl}` in the schema of the lm-eval task,
and `DIR/text/<name>/<split>.{parquet,jsonl}` with a column `text`.
"""

from functools import lru_cache
from pathlib import Path

from secateur.eval.config import EvalConfig
from secateur.eval.protocols import Protocol, protocols
from secateur.eval.seven import SPLIT, TASKS
from secateur.pruning.documents import TABLES, check_file
from secateur.pruning.errors import DataError
from secateur.pruning.files import digest, file_digest

TEXT_FOLDERS = {"wikitext2": ("wikitext2", "wikitext2_raw")}
HUB_TEXTS = {
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1", "test", None),
    "c4": ("allenai/c4", None, "validation", "en/c4-validation.00000-of-00008.json.gz"),
}
"""Texts that the hub serves when there is no `eval.data_dir`: dataset, configuration, split, data file."""


def data_folder(config: EvalConfig) -> Path | None:
    """The folder that data is read from; None means the hub.

    Raises:
        DataError: The folder does not exist.
    """
    if config.data_dir is None:
        return None
    if config.data_dir == "bundled":
        from secateur.pruning.world.bundle import data_dir

        return Path(data_dir())
    folder = Path(config.data_dir)
    if not folder.is_dir():
        raise DataError(
            f"eval.data_dir={config.data_dir} is not a folder. Expected DIR/tasks/<task>/<split>.parquet (or "
            f".jsonl) "
            f"and DIR/text/<name>/<split>.parquet; `secateur fetch data_dir={config.data_dir}` makes it on a "
            f"machine "
            f"with internet, and eval.data_dir=bundled is the shipped test bench"
        )
    return folder


def task_file(folder: Path, task: str) -> Path:
    """The file of one task's scored split.

    Raises:
        DataError: It is missing.
    """
    return _one(folder, [folder / "tasks" / task], (SPLIT[task],), f"eval.tasks={task}", f"tasks={task}")


def text_file(folder: Path, name: str) -> Path:
    """The file of a text: its test split, else its validation split (never train).

    Raises:
        DataError: It is missing.
    """
    candidates = [folder / "text" / part for part in TEXT_FOLDERS.get(name, (name,))]
    return _one(folder, candidates, ("test", "validation"), f"the perplexity text {name!r}", "tasks=none")


def _one(folder: Path, candidates: list[Path], splits: tuple[str, ...], what: str, fetch: str) -> Path:
    paths = [base / f"{split}{suffix}" for base in candidates for split in splits for suffix in TABLES]
    found = next((path for path in paths if path.is_file()), None)
    if found is not None:
        return found
    there = sorted(p.name for base in candidates if base.is_dir() for p in base.iterdir())
    raise DataError(
        f"{what} needs {paths[0]} (or .jsonl), which does not exist"
        + (f" (its folder holds {', '.join(there)})" if there else "")
        + f". `secateur fetch data_dir={folder} {fetch}` downloads it on a machine with internet"
    )


def own_tasks(path: str) -> Path:
    """The folder of `eval.tasks_path`.

    Raises:
        DataError: It does not exist.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"eval.tasks_path={path} is not a folder; it holds lm-eval task files (*.yaml)")
    return folder


def own_text(config: EvalConfig) -> Path:
    """The file of `eval.ppl.text`.

    Raises:
        DataError: It is missing or of an unknown kind.
    """
    assert config.ppl.text is not None
    path = Path(config.ppl.text).expanduser()
    check_file(path, "eval.ppl.text")
    return path


def protocol_file(config: EvalConfig, protocol: Protocol) -> Path | None:
    """The local file that a perplexity reads; None means the hub."""
    if config.ppl.text is not None:
        return own_text(config)
    folder = data_folder(config)
    if folder is not None:
        return text_file(folder, protocol.text)
    if protocol.text not in HUB_TEXTS:
        raise DataError(
            f"the perplexity text {protocol.text!r} is not on the hub list ({', '.join(HUB_TEXTS)}). Give "
            f"eval.data_dir=DIR with DIR/text/{protocol.text}/test.parquet, or eval.ppl.text=FILE"
        )
    return None


def file_identity(path: Path) -> str:
    """Digest of a data file's bytes, computed once per version of the file and process."""
    stat = path.stat()
    return _cached_digest(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _cached_digest(path: str, size: int, modified: int) -> str:
    return file_digest(Path(path))


def task_digest(config: EvalConfig, task: str) -> str:
    """Digest of one task's data; `hub` when it comes from there."""
    folder = data_folder(config)
    if folder is None:
        return "hub"
    if task in TASKS and not config.num_fewshot:
        return file_identity(task_file(folder, task))
    own = folder / "tasks" / task  # of a group all data counts, since which tasks are in it lm-eval knows
    return _folder_digest(own if own.is_dir() else folder / "tasks", TABLES)


def _folder_digest(folder: Path, kinds: tuple[str, ...]) -> str:
    """Digest of the files of some kinds below a folder, and of their names."""
    files = sorted(path for kind in kinds for path in folder.rglob(f"*{kind}") if path.is_file())
    return digest({str(path.relative_to(folder)): file_identity(path) for path in files})


def data_digest(config: EvalConfig) -> str:
    """Digest of every data file that the config's measurements read; part of a run's identity.

    Raises:
        DataError: A file is missing, so that this also is the check to make before a model is loaded.
    """
    parts: dict[str, str] = {f"task:{task}": task_digest(config, task) for task in config.tasks}
    if config.tasks_path is not None:
        parts["tasks_path"] = _folder_digest(own_tasks(config.tasks_path), (".yaml", ".py"))
    for protocol in protocols(config):
        path = protocol_file(config, protocol)
        parts[f"text:{protocol.name}"] = "hub" if path is None else file_identity(path)
    return digest(parts)
