"""What a grid needs on machines without internet, looked for before anything is submitted."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from secateur.eval.config import RunConfig
from secateur.pruning.config import validate
from secateur.pruning.errors import SecateurError
from secateur.pruning.identity import BUNDLED, model_folder
from secateur.slurm.plan import Plan

WEIGHTS = ("*.safetensors", "*.bin")
RUN_BYTES = 4 * 2**20
"""Disk that a run's record, plan and log take."""

CAPTURE_BYTES = 64 * 2**20
"""Disk that a capture of a 7-8B model takes."""


class PreflightError(SecateurError):
    """Something that the grid needs is not there."""


@dataclass(frozen=True)
class Problem:
    """Something that is missing, and what to do about it."""

    what: str
    fix: str


def check(plan: Plan, offline: bool) -> list[Problem]:
    """Everything that would stop the grid's jobs.

    Args:
        plan: The grid.
        offline: Whether the machines that do the work lack internet.
    """
    configs = [validate(RunConfig, task.config) for task in plan.tasks if task.config is not None]
    problems = _folder(plan, configs)
    models = {config.model.path: config for config in configs}
    for config in models.values():
        problems += _model(config, offline)
    texts = {c.calibration.path: c for c in configs if c.calibration.source == "hub" and c.budget.ratio > 0}
    for path, config in texts.items():
        if offline and path and not _cached("datasets", path):
            name = config.calibration.name
            problems.append(
                Problem(
                    f"the calibration text {path} is not on this machine",
                    f"secateur fetch data_dir=DIR tasks=none texts={name}   (where there is internet), then "
                    f"calibration=text_file calibration.path=DIR/text/{name}/train.parquet",
                )
            )
    measured = [
        c
        for c in configs
        if c.eval.data_dir is None and (c.eval.tasks or (c.eval.ppl.protocols and not c.eval.ppl.text))
    ]
    if offline and measured:
        problems.append(
            Problem(
                "eval.data_dir is not given: every job would load its evaluation data from the hub",
                "secateur fetch data_dir=DIR   (where there is internet), then eval.data_dir=DIR",
            )
        )
    return problems


def refuse(problems: list[Problem]) -> None:
    """Stop when something is missing.

    Raises:
        PreflightError: Naming everything at once, each with the line to run.
    """
    if problems:
        lines = [f"  {problem.what}\n    {problem.fix}" for problem in problems]
        raise PreflightError(
            "\n".join(
                [
                    "not submitted, because jobs would fail:",
                    *lines,
                    "slurm.offline=false skips the checks for internet",
                ]
            )
        )


def _folder(plan: Plan, configs: list[RunConfig]) -> list[Problem]:
    out = Path(plan.out)
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".try"):
            pass
    except OSError as error:
        return [
            Problem(
                f"out={out} cannot be written: {error.strerror}",
                "out=DIR on a file system that all nodes share",
            )
        ]
    need = len(configs) * RUN_BYTES + len(plan.of("capture")) * CAPTURE_BYTES
    need += sum(_weights(config) for config in configs if config.save_model)
    free = shutil.disk_usage(there).free
    if free < need:
        text = f"out={out} has {free / 2**30:.1f} GiB free, the grid needs about {need / 2**30:.1f} GiB"
        return [Problem(text, "out=DIR on a larger file system, or save_model=false")]
    return []


def _model(config: RunConfig, offline: bool) -> list[Problem]:
    name, path = config.model.name, config.model.path
    folder = model_folder(config.model)
    if folder is not None:
        lacks = [what for what in ("config.json",) if not (folder / what).is_file()]
        if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
            lacks.append("weights (*.safetensors)")
        return (
            [Problem(f"model {name}: {folder} lacks {' and '.join(lacks)}", "give a complete model folder")]
            if lacks
            else []
        )
    if path.startswith(BUNDLED) or not offline or _cached("models", path):
        return []
    fix = (
        f"secateur fetch tasks=none texts=none model={path} model_dir=MODEL_DIR   (where there is internet), then "
        f"`model.path: MODEL_DIR` beside `model: {name}` in the grid file"
    )
    return [Problem(f"model {name}: {path} is not on this machine", fix)]


def _cached(kind: str, repo: str) -> bool:
    """Whether the hub's cache on this machine holds a snapshot of a repository."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    snapshots = hub / f"{kind}--{repo.replace('/', '--')}" / "snapshots"
    wanted = WEIGHTS if kind == "models" else ("*",)
    return snapshots.is_dir() and any(
        any(snap.glob(pattern)) for snap in snapshots.iterdir() for pattern in wanted
    )


def _weights(config: RunConfig) -> int:
    folder = model_folder(config.model)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder is not None else 0
