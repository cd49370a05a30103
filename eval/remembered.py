"""The data that a checkpoint was measured on: noted beside its weights, the default when it is measured again."""

from pathlib import Path
from typing import Any

from secateur.eval.config import TASKS, EvalConfig
from secateur.pruning.errors import StorageError
from secateur.pruning.files import read_json
from secateur.pruning.overrides import write

FILE, ENTRY = "provenance.json", "evaluation"
BUNDLED = "bundled"
BUNDLED_PROTOCOLS = ("world@128",)
"""The perplexity of the shipped test bench, whose models read 256 tokens."""

TEXTS = {"eval.ppl.text", "eval.ppl.protocols"}
"""Keys that say what perplexity is measured on; one of them given replaces all."""


def remember(config: EvalConfig) -> dict[str, Any]:
    """Which data a config reads, as config keys and values; files by their full path. Limits are not data."""
    found: dict[str, Any] = {}
    ppl = config.ppl
    if config.data_dir is not None:
        local = config.data_dir if config.data_dir == BUNDLED else str(Path(config.data_dir).resolve())
        found["eval.data_dir"] = local
    if ppl.text is not None:
        found |= {"eval.ppl.text": str(Path(ppl.text).resolve()), "eval.ppl.window": ppl.window}
        found |= {"eval.ppl.field": ppl.field} if ppl.field != "text" else {}
    elif ppl.protocols or config.data_dir == BUNDLED:
        found["eval.ppl.protocols"] = list(ppl.protocols or BUNDLED_PROTOCOLS)
    if (ppl.text is not None or ppl.protocols) and config.tasks != TASKS:
        found["eval.tasks"] = list(config.tasks)
    if config.tasks_path is not None:
        found["eval.tasks_path"] = str(Path(config.tasks_path).resolve())
    return found


def recall(folder: Path, typed: list[str]) -> list[str]:
    """The overrides that a checkpoint remembers, without what is typed anew; none for a folder of another origin.

    Args:
        folder: The checkpoint.
        typed: Overrides of the command line.
    """
    try:
        raw: Any = read_json(folder / FILE).get(ENTRY)
    except (StorageError, AttributeError):
        return []
    if not isinstance(raw, dict):
        return []
    keys = {word.partition("=")[0] for word in typed}
    if "eval" in keys:
        keys.add("eval.tasks")
    if TEXTS & keys or "eval=none" in typed or ("eval.data_dir" in keys and "eval.ppl.text" in raw):
        keys |= {key for key in raw if key.startswith("eval.ppl.")}
    known = (
        "eval.data_dir",
        "eval.tasks",
        "eval.tasks_path",
        "eval.ppl.text",
        "eval.ppl.window",
        "eval.ppl.field",
        "eval.ppl.protocols",
    )
    return [write(key, raw[key]) for key in known if key in raw and key not in keys]
