"""The typed form of `conf/grid/*.yaml` and `conf/slurm/*.yaml`, checked before anything is planned."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from secateur.pruning.config import Frozen

Values = dict[str, Any]
"""Config keys (groups or dotted values) with what they are set to."""


EARLY = 60
"""Seconds by which Slurm may send the signal of `--signal` too early: it looks at time limits twice a minute."""


class Estimate(Frozen):
    """What to expect of one task as long as no finished run has told."""

    capture_minutes: Annotated[float, Field(gt=0)]
    run_minutes: Annotated[float, Field(gt=0)]


class GridConfig(Frozen):
    """Which runs a grid consists of.

    Attributes:
        name: Name of the grid; its folder is `OUT/grids/<name>-<digest of its runs>`.
        experiment: A file of `conf/experiment/` below everything else.
        overrides: Config keys of every run.
        models: One mapping of config keys per model; each has `model`, the others hold for that model only.
        axes: Config key -> values; the runs are the product of models and axes.
        only: When given, a point stays only if it matches one of these conditions.
        skip: A point that matches one of these conditions is dropped.
        baselines: Whether the dense model of every model and evaluation is measured too.
        analysis: Whether the reports over the grid's runs are made at the end.
        threads: CPU threads of each run. Equal bits need equal threads; null leaves it to the launcher.
        worker: Command that does the work, for containers, e.g.
            `[apptainer, exec, --nv, image.sif, python, -m, secateur]`; null is this Python with this code.
        estimate: Expected minutes, for the plan, as long as no run has finished.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
    experiment: str | None = None
    overrides: Values = {}
    models: Annotated[tuple[Values, ...], Field(min_length=1)]
    axes: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    only: tuple[Values, ...] = ()
    skip: tuple[Values, ...] = ()
    baselines: bool = True
    analysis: bool = True
    threads: Annotated[int | None, Field(ge=1)] = None
    worker: tuple[str, ...] | None = None
    estimate: Estimate | None = None

    @model_validator(mode="after")
    def _keys_make_sense(self) -> Self:
        for entry in self.models:
            if "model" not in entry:
                raise ValueError(f"models: every entry names its `model`; this one does not: {entry}")
        clash = sorted(set(self.axes) & set(self.overrides))
        if clash:
            raise ValueError(f"{', '.join(clash)}: given both as an axis and as a fixed override; keep one")
        if "model" in self.axes:
            raise ValueError(
                "axes.model: list models under `models`, so that each can have its own overrides"
            )
        for condition in (*self.only, *self.skip):
            unknown = sorted(set(condition) - self.keys())
            if unknown:
                raise ValueError(
                    f"only/skip: {', '.join(unknown)} is no axis, override or model key of this grid"
                )
        return self

    def keys(self) -> set[str]:
        """Every config key that this grid sets."""
        return {*self.axes, *self.overrides, *(key for entry in self.models for key in entry)}


class Resources(Frozen):
    """What a job asks the cluster for; null is the cluster's default, an empty text takes an inherited value away."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    constraint: str | None = None
    time: Annotated[str | None, Field(description="time limit in Slurm's notation, in quotes")] = None
    mem: str | None = None
    cpus_per_task: Annotated[int | None, Field(ge=1)] = None
    extra: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _times_are_texts(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("time"), int):
            raise ValueError(
                f"time={raw['time']}: YAML has read it as a number; put the time limit in quotes ('02:00:00')"
            )
        return raw

    def over(self, base: "Resources") -> "Resources":
        """These resources, with `base` wherever nothing is said here."""
        mine = {
            name: getattr(self, name)
            for name in Resources.model_fields
            if getattr(self, name) not in (None, ())
        }
        return Resources(**({name: getattr(base, name) for name in Resources.model_fields} | mine))

    def arguments(self) -> list[str]:
        """Arguments of `sbatch`."""
        names = ("partition", "account", "qos", "gres", "constraint", "time", "mem", "cpus_per_task")
        given = [(name.replace("_", "-"), getattr(self, name)) for name in names]
        return [f"--{name}={value}" for name, value in given if value not in (None, "")] + list(self.extra)


class SlurmConfig(Resources):
    """A cluster: what jobs ask for, and how a job's shell is set up.

    Attributes:
        capture: What differs for the gradient passes.
        run: What differs for prune-and-evaluate runs and baselines.
        analysis: What differs for the last job, which needs no GPU.
        throttle: At most this many tasks of one array at a time.
        setup: Shell lines at the start of every job (`module load ...`); they are executed as they are.
        env: Environment variables of every job.
        requeue: Whether preempted jobs and jobs at their time limit go back into the queue.
        signal_before: Seconds before the time limit at which a job is told to stop and requeue.
        max_requeues: After this many time-outs a task counts as failed.
        offline: Whether compute nodes lack internet: everything is then checked before submission.
    """

    name: str = "default"
    capture: Resources = Resources()
    run: Resources = Resources()
    analysis: Resources = Resources(gres="")
    throttle: Annotated[int | None, Field(ge=1)] = None
    setup: tuple[str, ...] = ()
    env: dict[str, str] = {}
    requeue: bool = True
    signal_before: Annotated[int, Field(ge=0, description="seconds")] = 120
    max_requeues: Annotated[int, Field(ge=0)] = 20
    offline: bool = True

    @model_validator(mode="after")
    def _there_is_time_to_work(self) -> Self:
        if not self.requeue or self.signal_before == 0:
            return self
        for stage in ("capture", "run", "analysis"):
            time = self.resources(stage).time
            limit = seconds(time) if time else None
            if limit is not None and limit < self.signal_before + EARLY:
                raise ValueError(
                    f"time={time} with signal_before={self.signal_before}: Slurm may send the signal {EARLY} s early, "
                    f"and {stage} jobs would be stopped and requeued as soon as they start; give them more time"
                )
        return self

    def resources(self, stage: str) -> Resources:
        """What jobs of one stage (capture, run, analysis) ask for."""
        return {"capture": self.capture, "run": self.run, "analysis": self.analysis}[stage].over(self)


def seconds(time: str) -> int | None:
    """A time limit in Slurm's notation (`M`, `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`); None for any other word."""
    days, dash, rest = time.strip().rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in (*parts, *([days] if dash else []))) or len(parts) > 3:
        return None
    numbers = [int(part) for part in parts]
    units = (3600, 60, 1) if dash else {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}[len(parts)]
    return int(days or 0) * 86400 + sum(number * unit for number, unit in zip(numbers, units, strict=False))
