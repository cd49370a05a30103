"""The typed configuration of a whole run: pruning, then measuring. No torch here."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pruning.config import LOCAL, Frozen, PruneConfig

TASKS: tuple[str, ...] = (
    "boolq",
    "piqa",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
)
"""The seven zero-shot tasks, in the order of every table."""

METRIC: dict[str, str] = {
    "boolq": "acc",
    "piqa": "acc_norm",
    "hellaswag": "acc_norm",
    "winogrande": "acc",
    "arc_easy": "acc_norm",
    "arc_challenge": "acc_norm",
    "openbookqa": "acc_norm",
}
"""Which of a task's accuracies enters the mean of the seven."""


class PerplexityConfig(Frozen):
    """Which perplexities are measured; a text of one's own replaces the named protocols."""

    protocols: tuple[str, ...] = ("wikitext2@2048",)
    text: str | None = None
    window: Annotated[int, Field(ge=2, description="tokens per window for eval.ppl.text")] = 2048
    field: str = "text"
    blank_lines: Literal["keep", "single"] = "keep"
    max_tokens: Annotated[int | None, Field(ge=2)] = None


class EvalConfig(Frozen):
    """What is measured, on which data, by which backend."""

    name: str = "seven"
    tasks: tuple[str, ...] = TASKS
    backend: Literal["fast", "hflm"] = "fast"
    data_dir: str | None = None
    limit: Annotated[int | None, Field(ge=1, description="questions per task")] = None
    batch_size: Annotated[int, Field(ge=1, json_schema_extra=LOCAL)] = 16
    token_budget: Annotated[
        int | None,
        Field(ge=1, json_schema_extra=LOCAL, description="tokens per forward pass of backend=fast"),
    ] = None
    prefix_reuse: Annotated[bool, Field(json_schema_extra=LOCAL)] = False
    ppl: PerplexityConfig = PerplexityConfig()
    screen: Annotated[int | None, Field(ge=1, description="questions per task of a screening subset")] = None
    baseline: Annotated[bool, Field(json_schema_extra=LOCAL)] = True

    @model_validator(mode="after")
    def _tasks_exist(self) -> Self:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown:
            raise ValueError(f"eval.tasks: unknown {unknown}; the tasks are {', '.join(TASKS)}")
        return self


class RunConfig(PruneConfig):
    """One run from end to end."""

    eval: EvalConfig = EvalConfig()
