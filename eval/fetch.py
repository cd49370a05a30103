"""`secateur fetch`: fill a data folder, and a model folder, on a machine that has internet.

The only command that goes to the network unasked. Every file appears by rename when it is whole, and a file that is
there is not fetched again, so an interrupted fetch continues where it stopped.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.eval.data import HUB_TEXTS
from secateur.eval.hub import need_hub
from secateur.eval.seven import SPLIT, STOCK, TASKS
from secateur.pruning.documents import TABLES
from secateur.pruning.errors import ConfigError, DataError, SecateurError
from secateur.pruning.files import write_atomic

HELP = """secateur fetch: download evaluation data, and optionally a model, for machines without internet

examples:
  secateur fetch data_dir=DIR                                   the seven tasks, WikiText-2 and a piece of C4
  secateur fetch data_dir=DIR tasks=piqa,boolq texts=wikitext2  only some
  secateur fetch data_dir=DIR tasks=none texts=none model=Qwen/Qwen2.5-0.5B model_dir=MODELS/qwen

keys
  data_dir=DIR      folder to fill: DIR/tasks/<task>/<split>.parquet, DIR/text/<name>/<split>.parquet
  tasks=all         all seven, none, or a comma-separated list; any task, group or tag of lm-eval too, with the
                    split that its few-shot examples are drawn from
  texts=all         all, none, or a list of wikitext2, c4
  model=ID          a model of the hub: config, tokenizer and safetensors files, nothing else
  model_dir=DIR     where the model goes
  revision=REV      the model's revision

On the machine without internet: eval.data_dir=DIR, and model=local model.path=MODEL_DIR.
"""
MODEL_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.txt", "LICENSE*", "README.md")
CALIBRATION_SPLITS = {
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1", "train", None),
    "c4": ("allenai/c4", None, "train", "en/c4-train.00000-of-01024.json.gz"),
}
"""Besides the evaluation splits: the text that calibration reads."""
C4_DOCUMENTS = 50_000


@dataclass(frozen=True)
class Wanted:
    """What a call of fetch asks for."""

    data_dir: Path | None
    tasks: tuple[str, ...]
    texts: tuple[str, ...]
    model: str | None
    model_dir: Path | None
    revision: str | None


def fetch(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    if any(word in {"-h", "--help"} for word in argv):
        sys.stdout.write(HELP)
        return 0
    try:
        wanted = parse(argv)
        for task in wanted.tasks:
            _fetch_task(wanted, task)
        for text in wanted.texts:
            _fetch_text(wanted, text)
        if wanted.model is not None:
            _fetch_model(wanted)
    except SecateurError as error:
        sys.stderr.write(f"secateur fetch: {error}\n")
        return 1
    return 0


def parse(argv: Sequence[str]) -> Wanted:
    """Read `key=value` words.

    Raises:
        ConfigError: An unknown key or value, or one that is missing.
    """
    given: dict[str, str] = {}
    for word in argv:
        key, sign, value = word.partition("=")
        if not sign or key not in {"data_dir", "tasks", "texts", "model", "model_dir", "revision"}:
            raise ConfigError(
                f"{word!r} is not understood; keys are data_dir, tasks, texts, model, model_dir, revision "
                f"(`secateur fetch --help`)"
            )
        given[key] = value
    tasks = _names(given.get("tasks", "all"), TASKS, "tasks", others=True)
    texts = _names(
        given.get("texts", "none" if given.get("tasks") == "none" else "all"), tuple(HUB_TEXTS), "texts"
    )
    if (tasks or texts) and "data_dir" not in given:
        raise ConfigError(
            "data_dir=DIR is required: the folder to fill (or tasks=none texts=none for a model alone)"
        )
    if ("model" in given) != ("model_dir" in given):
        raise ConfigError("model=ID and model_dir=DIR belong together")
    return Wanted(
        data_dir=Path(given["data_dir"]) if "data_dir" in given else None,
        tasks=tasks,
        texts=texts,
        model=given.get("model"),
        model_dir=Path(given["model_dir"]) if "model_dir" in given else None,
        revision=given.get("revision"),
    )


def _names(given: str, allowed: tuple[str, ...], key: str, *, others: bool = False) -> tuple[str, ...]:
    if given == "all":
        return allowed
    names = () if given == "none" else tuple(name.strip() for name in given.split(","))
    unknown = [name for name in names if name not in allowed]
    if unknown and not others:
        raise ConfigError(
            f"{key}={given}: unknown {', '.join(unknown)}; allowed: all, none, {', '.join(allowed)}"
        )
    return names


def write_split(folder: Path, split: str, dataset: Any) -> Path:
    """Write one split as parquet, by rename."""
    path = folder / f"{split}.parquet"
    write_atomic(path, lambda temporary: dataset.to_parquet(str(temporary)))
    return path


def _fetch_task(wanted: Wanted, task: str) -> None:
    assert wanted.data_dir is not None
    if task in SPLIT:
        _fetch_split(wanted.data_dir / "tasks" / task, task, *task_source(task), SPLIT[task])
        return
    from secateur.eval.more_tasks import sources

    for source in sources(task):
        for split in source.splits:
            folder = wanted.data_dir / "tasks" / source.task_name
            _fetch_split(folder, source.task_name, source.path, source.subset, split)


def _fetch_split(folder: Path, task: str, path: str, subset: str | None, split: str) -> None:
    if not _there(folder, split):
        dataset = _load(path, subset, split, None)
        _say(f"{task} {split}: {len(dataset)} questions -> {write_split(folder, split, dataset)}")


def task_source(task: str) -> tuple[str, str | None]:
    """Data set and configuration of a stock task, as its YAML names them."""
    import lm_eval
    from lm_eval.tasks._yaml_loader import load_yaml

    stock = load_yaml(Path(lm_eval.__file__).parent / "tasks" / STOCK[task], resolve_func=False)
    return str(stock["dataset_path"]), stock.get("dataset_name")


def _fetch_text(wanted: Wanted, text: str) -> None:
    assert wanted.data_dir is not None
    folder = wanted.data_dir / "text" / text
    for path, name, split, files in (HUB_TEXTS[text], CALIBRATION_SPLITS[text]):
        if _there(folder, split):
            continue
        dataset = _load(path, name, split, files)
        if text == "c4":
            dataset = dataset.select(range(min(C4_DOCUMENTS, len(dataset))))
        _say(f"{text} {split}: {len(dataset)} documents -> {write_split(folder, split, dataset)}")


def _there(folder: Path, split: str) -> bool:
    found = next((folder / f"{split}{end}" for end in TABLES if (folder / f"{split}{end}").is_file()), None)
    if found is not None:
        _say(f"{found} is there")
    return found is not None


def _load(path: str, name: str | None, split: str, files: str | None) -> Any:
    need_hub()
    import datasets

    try:
        return datasets.load_dataset(path, name, split=split, data_files=files)
    except (*_network_errors(), OSError, ValueError) as error:
        raise DataError(
            f"{path}{f' ({name})' if name else ''}, split {split}, cannot be downloaded: {_first(error)}. Run this "
            f"command on a machine with internet (HF_HUB_OFFLINE must be unset), and again to continue"
        ) from error


def _fetch_model(wanted: Wanted) -> None:
    need_hub()
    import huggingface_hub

    assert wanted.model is not None
    assert wanted.model_dir is not None
    try:
        huggingface_hub.snapshot_download(
            wanted.model,
            revision=wanted.revision,
            local_dir=wanted.model_dir,
            allow_patterns=list(MODEL_FILES),
        )
        info = huggingface_hub.model_info(wanted.model, revision=wanted.revision)
    except (*_network_errors(), OSError, ValueError) as error:
        raise DataError(
            f"model={wanted.model} cannot be downloaded: {_first(error)}. Check the id (and `hf auth login` for gated "
            f"models); run this command on a machine with internet, and again to continue"
        ) from error
    if not list(wanted.model_dir.glob("*.safetensors")):
        raise DataError(f"model={wanted.model} has no safetensors files; pickled weights are never loaded")
    source = json.dumps({"model": wanted.model, "revision": info.sha}) + "\n"
    write_atomic(wanted.model_dir / "source.json", lambda temporary: _write_text(temporary, source))
    _say(f"{wanted.model} -> {wanted.model_dir}")


def _network_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises when the network fails; its HTTP library changes between versions."""
    from huggingface_hub import errors

    return errors.HfHubHTTPError, getattr(errors, "HTTPError", ConnectionError)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _first(error: BaseException) -> str:
    """The first line of an error."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
