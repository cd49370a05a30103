"""From a grid's config to its plan: N captures, one baseline per model and evaluation, M runs, the analysis."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from secateur.eval.code import code_fingerprint
from secateur.eval.config import RunConfig
from secateur.eval.identity import calibration_identity, dense_config, is_dense, model_identity, run_id
from secateur.eval.protocols import protocols
from secateur.pruning.compose import CONF_DIR, options
from secateur.pruning.config import capture_identity, validate
from secateur.pruning.errors import ConfigError
from secateur.pruning.files import digest
from secateur.pruning.levels import Level, level_of
from secateur.pruning.naming import safe_name
from secateur.slurm.config import GridConfig, SlurmConfig, Values
from secateur.slurm.gather import FOLDER, REPORT
from secateur.slurm.plan import Plan, Task
from secateur.slurm.points import Composer, Point, expand, words

NOT_DENSE = ("method", "taylor", "budget", "guard", "capture", "calibration", "seed", "save_model")
"""First parts of keys that mean nothing for an unpruned model."""


def load_config(group: str, name: str) -> dict[str, Any]:
    """Read `conf/<group>/<name>.yaml`, or a file of the user's own when `name` is a path.

    Raises:
        ConfigError: There is no such file, or it is no YAML mapping.
    """
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else CONF_DIR / group / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(options(group))
        raise ConfigError(
            f"{group}={name}: no such {group}; there are {known}, or give the path of a .yaml file"
        )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} has to hold KEY: VALUE lines")
    return {"name": path.stem} | raw


def load_grid(name: str) -> GridConfig:
    """Read and check a grid file."""
    return validate(GridConfig, load_config("grid", name))


def load_slurm(name: str, typed: Values | None = None) -> SlurmConfig:
    """Read and check a cluster file; `typed` are keys such as `partition` or `run.time` from the command line."""
    raw = load_config("slurm", name)
    for key, value in (typed or {}).items():
        *parents, last = key.split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    try:
        return validate(SlurmConfig, raw)
    except (ValidationError, AttributeError, TypeError) as error:
        raise ConfigError(f"slurm={name}: {error}") from error


def build(grid: GridConfig, out: Path, keys: dict[str, tuple[Any, ...]] | None = None, **how: Any) -> Plan:
    """Plan a grid: every task with what it needs; what is finished is dropped later, when the plan is launched.

    Args:
        grid: The grid.
        out: Folder of the runs.
        keys: Config keys from the command line.
        how: Further fields of the plan (launcher, slurm, ...).

    Raises:
        ConfigError: A point has an unknown key or a value that is not allowed.
        ModelError: A model folder does not exist.
        DataError: A data file does not exist.
    """
    composer = Composer()
    points: dict[str, Point] = {}
    for values in expand(grid, keys):
        point = composer.point(values | {"out": str(out), "eval.baseline": False})
        points.setdefault(run_id(point.config), point)
    pruned = {name: point for name, point in points.items() if not is_dense(point.config)}
    wanted = points.values() if grid.baselines else [p for p in points.values() if is_dense(p.config)]
    captures, need = _captures(pruned)
    runs = [_run(name, point, need.get(name)) for name, point in pruned.items()]
    tasks = [*captures, *_baselines(composer, wanted), *runs]
    name = f"{grid.name}-{digest([task.id for task in tasks], 8)}"
    if grid.analysis:
        tasks.append(_analysis(name, out, [task.id for task in tasks if task.kind != "capture"]))
    return Plan(
        grid=name, name=grid.name, out=str(out), cwd=str(Path.cwd()), worker=grid.worker, threads=grid.threads,
        code=code_fingerprint(), tasks=tuple(tasks), unshared_tokens=_unshared(pruned.values()),
        expected=grid.estimate.model_dump() if grid.estimate else {}, **how,
    )  # fmt: skip


def needs_capture(config: RunConfig) -> bool:
    """Whether a run reads gradient statistics."""
    method = config.method
    return not is_dense(config) and (level_of(method.estimator) > Level.WEIGHTS or method.prior != "none")


def _captures(points: dict[str, Point]) -> tuple[list[Task], dict[str, str]]:
    """One task per group of runs that share a gradient pass, and which run needs which."""
    groups: dict[str, list[tuple[str, Point]]] = {}
    for name, point in points.items():
        config = point.config
        if not needs_capture(config):
            continue
        facts = [
            capture_identity(config),
            model_identity(config.model),
            calibration_identity(config.calibration),
            _excluded(config),
            level_of(config.method.estimator) == Level.CURVATURE,  # a pass of its own kind
        ]
        key = f"capture-{safe_name(config.model.name)}-{config.taylor.seq_len}-{digest(facts, 10)}"
        groups.setdefault(key, []).append((name, point))
    tasks = [_capture(key, [point for _, point in members]) for key, members in groups.items()]
    return tasks, {name: key for key, members in groups.items() for name, _ in members}


def _excluded(config: RunConfig) -> list[Any]:
    """Which evaluation texts and questions calibration leaves out."""
    names = sorted({protocol.text for protocol in protocols(config.eval)})
    tasks = sorted(config.eval.tasks)
    own = [config.eval.data_dir, config.eval.tasks_path, config.eval.ppl.text, config.eval.ppl.field]
    return [*own, names, tasks] if names or tasks else []


def _capture(key: str, points: list[Point]) -> Task:
    counts = sorted({point.config.taylor.num_samples for point in points})
    first = max(points, key=lambda point: level_of(point.config.method.estimator))
    sizes = {"taylor.num_samples": counts[-1], "capture.snapshots": counts[:-1]}
    length = first.config.taylor.seq_len
    return Task(
        id=key,
        kind="capture",
        argv=("capture", *words(first.values | sizes)),
        label=f"{first.config.model.name} {length} x {counts[-1]}",
        counts=tuple(counts),
        gradient_tokens=counts[-1] * length,
    )


def _baselines(composer: Composer, points: Iterable[Point]) -> list[Task]:
    """The dense runs that the points are compared with, each once."""
    tasks: dict[str, Task] = {}
    seen: set[RunConfig] = set()
    for point in points:
        dense = dense_config(point.config)
        if dense in seen:
            continue
        seen.add(dense)
        values = {key: value for key, value in point.values.items() if key.split(".")[0] not in NOT_DENSE}
        # `calibration.path=???` of a config file has to be given even where nothing is calibrated
        values |= {
            key: point.values[key] for key in ("calibration", "calibration.path") if key in point.values
        }
        composed = composer.point(values | {"method": "dense", "budget.ratio": 0.0})
        name = run_id(composed.config)
        assert name == run_id(dense), f"baseline {name} is not the one its runs look for"
        tasks.setdefault(name, _run(name, composed, None))
    return list(tasks.values())


def _run(name: str, point: Point, capture: str | None) -> Task:
    config = point.config
    what = f"{config.method.name} -{config.budget.ratio:.0%} {config.taylor.seq_len} x {config.taylor.num_samples}"
    return Task(
        id=name,
        kind="baseline" if is_dense(config) else "run",
        argv=("run", *point.argv),
        needs=(capture,) if capture else (),
        label=f"{config.model.name} {'dense' if is_dense(config) else what}",
        config=config.model_dump(mode="json"),
    )


def _analysis(grid: str, out: Path, runs: list[str]) -> Task:
    folder = out / "grids" / grid
    argv = ("analyze", f"runs={folder / FOLDER}", f"out={folder / REPORT}")  # no config: taken as they stand
    return Task(id=f"analysis-{grid}", kind="analysis", argv=argv, needs=tuple(runs), label="reports")


def _unshared(points: Iterable[Point]) -> int:
    """Gradient tokens when every run makes its own pass."""
    configs = [point.config for point in points if needs_capture(point.config)]
    return sum(config.taylor.seq_len * config.taylor.num_samples for config in configs)
