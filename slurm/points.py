"""From a grid's axes to typed run configs, fast: Hydra composes once per choice of config files."""

import copy
import itertools
from dataclasses import dataclass
from typing import Any

from secateur.eval.config import RunConfig
from secateur.pruning.compose import CONF_DIR, compose, register
from secateur.pruning.config import validate
from secateur.pruning.errors import ConfigError
from secateur.pruning.overrides import write
from secateur.slurm.config import GridConfig, Values

GROUPS = ("model", "calibration", "method", "eval", "experiment")
COMPARISONS = (">=", "<=", "!=", ">", "<")


@dataclass(frozen=True)
class Point:
    """One run of a grid: the overrides that a person would type, and the config they mean."""

    values: Values
    config: RunConfig

    @property
    def argv(self) -> tuple[str, ...]:
        """The overrides as words of a command line, groups first."""
        return words(self.values)


def words(values: Values) -> tuple[str, ...]:
    """Overrides as words of a command line, groups first."""
    ordered = sorted(values.items(), key=lambda item: item[0] not in GROUPS)
    return tuple(write(key, value) for key, value in ordered)


def expand(grid: GridConfig, typed: dict[str, tuple[Any, ...]] | None = None) -> list[Values]:
    """All points of a grid as mappings of config keys, conditions applied, in the order of the axes.

    Args:
        grid: The grid.
        typed: Keys given on the command line: they replace an axis or the list of models, or hold for every run.
    """
    typed = typed or {}
    models = _models(grid, typed)
    axes = {key: typed.get(key, values) for key, values in grid.axes.items()}
    axes |= {
        key: values for key, values in typed.items() if key not in axes and key != "model" and len(values) > 1
    }
    fixed = {key: values[0] for key, values in typed.items() if key not in axes and key != "model"}
    base = ({"experiment": grid.experiment} if grid.experiment else {}) | grid.overrides
    points: list[Values] = []
    for entry in models:
        for combination in itertools.product(*axes.values()):
            point = base | entry | dict(zip(axes, combination, strict=True)) | fixed
            if _kept(grid, point):
                points.append(point)
    if not points:
        raise ConfigError(f"grid {grid.name}: no run is left after `only` and `skip`")
    return points


class Composer:
    """Composes points; keeps what Hydra composed per choice of config files and sets values itself."""

    def __init__(self) -> None:
        register(RunConfig)
        self._bases: dict[tuple[str, ...], dict[str, Any]] = {}
        self._interpolated = any(
            "${" in path.read_text(encoding="utf-8") for path in CONF_DIR.rglob("*.yaml")
        )

    def point(self, values: Values) -> Point:
        """Compose and check one point.

        Raises:
            ConfigError: A key is unknown or a value is not allowed.
        """
        return Point(values, self.config(values))

    def config(self, values: Values) -> RunConfig:
        """The typed config that these overrides mean; equal to `compose("run", words(values))`."""
        groups = {key: value for key, value in values.items() if key in GROUPS}
        rest = {key: value for key, value in values.items() if key not in GROUPS}
        if self._interpolated or any(isinstance(value, dict) for value in rest.values()):
            return validate(RunConfig, compose("run", list(words(values))))
        # `???` values have to be given before Hydra resolves, so they are part of what is composed
        needed = {key: value for key, value in rest.items() if key in {"model.path", "calibration.path"}}
        key = words(groups | needed)
        if key not in self._bases:
            self._bases[key] = compose("run", list(key))
        raw = copy.deepcopy(self._bases[key])
        for name, value in rest.items():
            _set(raw, name, value)
        return validate(RunConfig, raw)


def _models(grid: GridConfig, typed: dict[str, tuple[Any, ...]]) -> list[Values]:
    if "model" not in typed:
        return list(grid.models)
    known = {entry["model"]: entry for entry in grid.models}
    return [known.get(name, {"model": name}) for name in typed["model"]]


def _set(raw: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    node: Any = raw
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        known = ", ".join(sorted(node)) if isinstance(node, dict) else ", ".join(sorted(raw))
        raise ConfigError(f"{name}={value}: unknown key; here exist: {known}")
    if isinstance(node[last], dict):
        raise ConfigError(
            f"{name}={value}: is a group of keys, not a value; set {name}.KEY or choose a file of conf/{name}/"
        )
    node[last] = list(value) if isinstance(value, tuple) else value


def _kept(grid: GridConfig, point: Values) -> bool:
    if grid.only and not any(_matches(condition, point) for condition in grid.only):
        return False
    return not any(_matches(condition, point) for condition in grid.skip)


def _matches(condition: Values, point: Values) -> bool:
    """Whether every key fits: equal, one of a list, or a comparison such as `">= 256"`."""
    return all(_fits(point.get(key), wanted) for key, wanted in condition.items())


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple):
        return any(_fits(value, item) for item in wanted)
    sign = next((sign for sign in COMPARISONS if isinstance(wanted, str) and wanted.startswith(sign)), None)
    if sign is None or value is None:
        return value == wanted
    try:
        left, right = float(value), float(str(wanted).removeprefix(sign))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"only/skip: {wanted!r} compares numbers, but the value is {value!r}") from error
    return {
        ">=": left >= right,
        "<=": left <= right,
        "!=": left != right,
        ">": left > right,
        "<": left < right,
    }[sign]
