"""From the words of a command line to the settings that are measured: every combination of what has several values."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from secateur.eval.record import read_record
from secateur.eval.speed.config import SpeedConfig, dense_of, is_pruned
from secateur.pruning.compose import amend, compose, register
from secateur.pruning.config import validate
from secateur.pruning.errors import ConfigError
from secateur.pruning.naming import folder_name
from secateur.pruning.overrides import exists, parse, write

PLAN = "plan.json"
FROM_RUN = ("model", "calibration", "method", "taylor", "capture", "budget", "guard", "seed")


def variants(words: Sequence[str]) -> tuple[list[SpeedConfig], tuple[str, ...]]:
    """Every setting that a command line asks for, and the keys that it varies.

    `key=a,b` varies a key; `run=ID` and `checkpoint=DIR` may be given several times and stand beside `model=A,B`.

    Raises:
        ConfigError: A word that does not parse, an unknown key, a value out of range, a missing run or folder.
    """
    runs = [w.partition("=")[2] for w in words if w.startswith("run=")]
    checkpoints = [w.partition("=")[2] for w in words if w.startswith("checkpoint=")]
    rest = [w for w in words if not w.startswith(("run=", "checkpoint="))]
    axes = _axes(rest)
    given = axes.pop("model", None)
    wanted: list[list[str]] = [[f"model={name}"] for name in given or []]
    wanted += [
        _checkpoint(path) for text in checkpoints for path in ([text] if exists(text) else text.split(","))
    ]
    names = [name for text in runs for name in text.split(",")]
    found: list[SpeedConfig] = []
    for values in product(*axes.values()):
        overrides = [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
        found += [_composed([*model, *overrides]) for model in (wanted or ([] if names else [[]]))]
        found += [_of_run(name, overrides) for name in names]
    swept = tuple(key for key, values in axes.items() if len(values) > 1)
    return _with_dense(found), swept


def _axes(words: Sequence[str]) -> dict[str, list[str]]:
    """Key -> its values as texts; one value where nothing is varied."""
    axes: dict[str, list[str]] = {}
    for override in parse(words):
        key = override.get_key_element()
        if key in axes:
            raise ConfigError(f"{key} was given twice; several values are written {key}=A,B")
        if override.is_sweep_override():
            axes[key] = [str(value) for value in override.sweep_string_iterator()]
        else:
            axes[key] = [override.get_value_element_as_str()]
    return axes


def _composed(overrides: list[str]) -> SpeedConfig:
    register(SpeedConfig)
    return validate(SpeedConfig, compose("bench", overrides))


def _checkpoint(path: str) -> list[str]:
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(f"checkpoint={path}: no model folder (no config.json in it)")
    return ["model=local", write("model.path", path), write("model.name", folder_name(str(folder.resolve())))]


def _of_run(name: str, overrides: list[str]) -> SpeedConfig:
    """The model of a finished run: its base model and its plan, under the settings given here."""
    raw: dict[str, Any] = _composed([w for w in overrides if not w.startswith("model.")]).model_dump(
        mode="json"
    )
    folder = Path(raw["out"]) / name
    if not folder.is_dir():
        raise ConfigError(f"run={name}: no such run in out={raw['out']}")
    record = read_record(folder)
    raw |= {key: record.config[key] for key in FROM_RUN}
    if record.kind == "pruned":
        raw["bench"] |= {"plan": str(folder / PLAN), "run": name}
    return validate(SpeedConfig, amend(raw, [w for w in overrides if w.startswith("model.")]))


def _with_dense(found: list[SpeedConfig]) -> list[SpeedConfig]:
    """Settings without repetition, each pruned one's dense counterpart among them."""
    result: list[SpeedConfig] = []
    for config in found:
        wanted = [dense_of(config), config] if is_pruned(config) and config.bench.baseline else [config]
        result += [one for one in wanted if one not in result]
    return result
