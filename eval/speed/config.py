"""The typed configuration of a speed benchmark. No torch here."""

from typing import Annotated, Literal

from pydantic import Field

from secateur.eval.config import RunConfig
from secateur.pruning.config import LOCAL, BudgetConfig, Frozen, MethodConfig
from secateur.pruning.files import digest

Count = Annotated[int, Field(ge=1)]
RUNTIME = ("threads", "cache")
"""Settings of `bench` that a loaded model can change; all others need a load of their own."""
NO_PART = {"out", "progress", "save_model", "eval"}
"""Keys of a run that a benchmark has no use for."""
PLAN_OF_WORK = ("n_prompt", "n_gen", "batch", "repetitions", "warmup", "order_seed", "beyond_context", "name",
                "baseline", "roofline", "load_repetitions", "resident", "fit_limit", "fit_memory_gib")  # fmt: skip
"""Fields of `bench` that say what is measured and how often, not under which setting."""


class BenchConfig(Frozen):
    """What is timed, how often and under which run-time settings."""

    name: str = "default"
    n_prompt: Annotated[tuple[Count, ...], Field(min_length=1, description="prompt lengths, tokens")] = (
        64,
        128,
        256,
        512,
    )
    n_gen: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, description="decode steps; 0: none")
    ] = (32, 128)
    batch: Annotated[
        tuple[Count | Literal["max"], ...],
        Field(min_length=1, description="sequences at once; max: the largest that fits"),
    ] = (1,)
    repetitions: Count = 5
    warmup: Annotated[int, Field(ge=1, description="unmeasured passes before a cell's first sample")] = 1
    threads: Annotated[Count | None, Field(description="CPU threads of torch; null leaves them alone")] = None
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    cache: Annotated[Literal["dynamic", "static"], Field(description="kind of KV cache")] = "dynamic"
    mmap: Annotated[bool, Field(description="map the weight files at load, or read them whole")] = True
    plan: Annotated[str | None, Field(description="plan.json to cut the model to")] = None
    run: Annotated[str | None, Field(description="run that the plan is from")] = None
    label: Annotated[str, Field(description="free text: two labels of one setting are an A/A check")] = ""
    beyond_context: Annotated[
        bool, Field(description="also cells longer than the model's context: right times, senseless text")
    ] = False
    baseline: Annotated[bool, Field(description="measure the dense model beside every pruned one")] = True
    roofline: Annotated[bool, Field(description="measure the machine's FLOP/s and bytes/s")] = True
    load_repetitions: Annotated[int, Field(ge=0, description="loads timed in processes of their own")] = 0
    order_seed: int = 0
    resident: Annotated[int, Field(ge=1, json_schema_extra=LOCAL, description="models in memory at once")] = 8
    fit_limit: Annotated[int, Field(ge=1, description="batch=max stops here")] = 64
    fit_memory_gib: Annotated[
        float | None, Field(gt=0, description="memory that batch=max may fill; null: what is free")
    ] = None


class SpeedConfig(RunConfig):
    """One setting of a speed benchmark: a model, dense or pruned, and how it is run; `eval` plays no part."""

    method: MethodConfig = MethodConfig(name="random", estimator="random")
    budget: BudgetConfig = BudgetConfig(ratio=0.0)
    bench: BenchConfig = BenchConfig()


def load_key(config: SpeedConfig) -> str:
    """Digest of what decides the model in memory: settings that agree here share one load."""
    raw = config.model_dump(mode="json", exclude=NO_PART)
    raw["bench"] = {k: v for k, v in raw["bench"].items() if k not in (*RUNTIME, *PLAN_OF_WORK)}
    return digest(raw)


def settings(config: SpeedConfig) -> dict[str, str | int | float | bool | None]:
    """Every setting under its dotted key: what a measurement was made with. Lists become their text."""
    raw = config.model_dump(mode="json", exclude={*NO_PART, "capture"})
    raw["bench"] = {k: v for k, v in raw["bench"].items() if k not in PLAN_OF_WORK}
    flat: dict[str, str | int | float | bool | None] = {}

    def walk(node: dict[str, object], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif value is None or isinstance(value, str | int | float | bool):
                flat[prefix + key] = value
            else:
                flat[prefix + key] = str(value)

    walk(raw, "")
    return flat


def subject(config: SpeedConfig) -> str:
    """What the reports call the model of a setting."""
    name, bench = config.model.name, config.bench
    if bench.run is not None:
        return bench.run
    if config.budget.ratio == 0.0:
        return name
    rounded = f"-r{config.guard.round_to}" if config.guard.round_to > 1 else ""
    return f"{name}-{config.method.name}-{config.budget.ratio:g}{rounded}"


def is_pruned(config: SpeedConfig) -> bool:
    """Whether the benchmark cuts the model itself (a checkpoint is cut already)."""
    return config.bench.plan is not None or config.budget.ratio > 0


def dense_of(config: SpeedConfig) -> SpeedConfig:
    """The dense model under the same run-time settings."""
    fields = SpeedConfig.model_fields
    kept = {name: fields[name].get_default() for name in ("method", "taylor", "guard", "capture", "seed")}
    return config.model_copy(
        update={
            **kept,
            "budget": BudgetConfig(ratio=0.0),
            "bench": config.bench.model_copy(update={"plan": None, "run": None}),
        }
    )
