"""From Python arguments to the typed config of a run: the command line's keys, checks and messages. No torch here."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.eval.config import EvalConfig, RunConfig
from secateur.pruning.compose import compose, options, register
from secateur.pruning.config import validate
from secateur.pruning.errors import ConfigError
from secateur.pruning.overrides import write

Calibration = str | Path | Sequence[str] | None
GROUPS = ("model", "calibration", "method", "eval", "experiment")
"""Keys whose plain text chooses a file of `conf/`."""
MEMORY = "in-memory"
"""What a model without a folder is called."""


def overrides(given: Mapping[str, Any]) -> list[str]:
    """Nested dicts or dotted names as words of the command line.

    Raises:
        ConfigError: A value cannot be a config value.

    >>> overrides({"guard": {"round_to": 8}, "taylor.num_samples": 16, "eval": "none"})
    ['eval=none', 'guard.round_to=8', 'taylor.num_samples=16']
    """
    flat = _flat(given)
    return [f"{key}={value}" if key in GROUPS else write(key, value) for key, value in _ordered(flat)]


def _ordered(flat: dict[str, Any]) -> list[tuple[str, Any]]:
    """Groups first: a file of `conf/` lies below single values."""
    return sorted(flat.items(), key=lambda item: (item[0] not in GROUPS, item[0]))


def _flat(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{key}.")
        elif hasattr(value, "item") and not isinstance(value, (list, tuple)):  # a number of numpy's
            found[key] = value.item()
        else:
            found[key] = str(value) if isinstance(value, Path) else value
    return found


def config_of(words: list[str], given: Mapping[str, Any], **named: Any) -> RunConfig:
    """The typed config of words, of options, and of arguments that have a name of their own.

    Args:
        words: What model, method and calibration come to.
        given: The caller's options.
        named: Arguments by their key, dots written as `__`.

    Raises:
        ConfigError: A key is unknown, a value is wrong, or a key is given twice.
    """
    flat, mine = _flat(given), {key.replace("__", "."): value for key, value in named.items()}
    twice = sorted(set(flat) & set(mine))
    if twice:
        raise ConfigError(f"{twice[0]} is given as an option and as an argument of its own; give it once")
    register(RunConfig)
    try:
        return validate(RunConfig, compose("run", [*words, *overrides({**flat, **mine})]))
    except ConfigError as error:  # the command's message, on one line
        raise ConfigError("; ".join(line.strip() for line in str(error).splitlines())) from error


def model_words(model: Any, options_given: Mapping[str, Any]) -> list[str]:
    """Words for a model: a configured name, a folder, a hub id; or `in-memory`.

    A model that is not configured brings no evaluation data along, so none is assumed (`eval=none`).
    """
    name = str(model) if isinstance(model, str | Path) else MEMORY
    if name in options("model") and not Path(name).is_dir():
        return [f"model={name}"]
    quiet = [] if any(key.split(".")[0] in ("eval", "experiment") for key in options_given) else ["eval=none"]
    return ["model=local", write("model.path", name), *quiet]


def calibration_words(calibration: Calibration, folder: Path) -> list[str]:
    """Words for a text: a configured name, a file, or documents, which are written to `folder`.

    Raises:
        ConfigError: It is none of these.
    """
    if calibration is None:
        return []
    if isinstance(calibration, str | Path):
        name = str(calibration)
        if name in options("calibration") and name != "text_file":
            return [f"calibration={name}"]
        if not Path(name).expanduser().is_file():
            raise ConfigError(
                f"calibration={name[:80]}: no such file; give texts, a file, or one of "
                f"{', '.join(option for option in options('calibration') if option != 'text_file')}"
            )
        return ["calibration=text_file", write("calibration.path", str(Path(name).expanduser().resolve()))]
    texts: list[Any] = list(calibration)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            "calibration: give texts (str), one document each; the path of a file; or a configured name"
        )
    path = folder / "calibration.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return ["calibration=text_file", write("calibration.path", str(path))]


def measured(tasks: Sequence[str] | None, ppl: str | Path | Sequence[str] | None) -> list[str]:
    """Words for what is measured: names of tasks; protocols (`world@128`), or a file of text. One alone is all."""
    words: list[str] = []
    if tasks is not None or ppl is not None:
        words = [write("eval.tasks", [tasks] if isinstance(tasks, str) else list(tasks or ()))]
    if isinstance(ppl, str | Path) and Path(ppl).is_file():
        return [*words, write("eval.ppl.text", str(Path(ppl).resolve()))]
    if words:
        words.append(
            write("eval.ppl.protocols", [str(ppl)] if isinstance(ppl, str | Path) else list(ppl or ()))
        )
    return words


def refuse_nothing(config: EvalConfig) -> None:
    """An evaluation measures something.

    Raises:
        ConfigError: Neither tasks nor a perplexity are asked for.
    """
    if not (config.tasks or config.ppl.text or config.ppl.protocols):
        raise ConfigError("nothing to measure: give tasks=[...] or ppl=... (a protocol, or a file of text)")
