"""The typed configuration of a whole run: pruning, then measuring. No torch here."""

from typing import Annotated, Literal

from pydantic import Field

from secateur.eval.seven import METRIC, TASKS
from secateur.pruning.config import LOCAL, Frozen, PruneConfig

__all__ = ["METRIC", "TASKS", "EvalConfig", "PerplexityConfig", "RunConfig"]

TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.:+-]*$")]


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
    tasks: Annotated[
        tuple[TaskName, ...], Field(description="the seven, or any task, group or tag of lm-eval")
    ] = TASKS
    tasks_path: Annotated[str | None, Field(description="a folder with lm-eval task files of your own")] = (
        None
    )
    num_fewshot: Annotated[
        int | None, Field(ge=0, description="examples before each question; null: as each task says")
    ] = None
    max_gen_toks: Annotated[
        int | None, Field(ge=1, description="tokens that a generative task writes; null: as each task says")
    ] = None
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


class RunConfig(PruneConfig):
    """One run from end to end."""

    eval: EvalConfig = EvalConfig()
