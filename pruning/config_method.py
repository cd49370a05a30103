"""How statistics become scores, scores a plan, in how many cuts, and what is repaired after each. No torch here."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.pruning.levels import estimator_names
from secateur.pruning.schema import LOCAL, Frozen

PriorKind = Literal["none", "loss", "cosine", "gate"]
SECOND_ORDER = "surgeon"
"""The estimator whose importance is a loss rise in nats, so that a measured loss rise can anchor it."""


class ScheduleConfig(Frozen):
    """One cut, or several with a new capture before each.

    A trajectory is the chain of its cuts: runs whose first cuts agree share them, so that with `step` (rather than
    `steps`) one trajectory to 30 % passes through 10 % and 20 %.
    """

    kind: Literal["oneshot", "iterative"] = "oneshot"
    steps: Annotated[int | None, Field(ge=1, description="number of cuts")] = None
    step: Annotated[
        float | None, Field(gt=0, lt=1, description="share of the parameters of the first cut")
    ] = None
    growth: Annotated[float, Field(gt=0, description="size of each cut relative to the one before")] = 1.0

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.kind == "oneshot" and (self.steps is not None or self.step is not None):
            raise ValueError("method.schedule.steps and .step need method.schedule.kind=iterative")
        if self.kind == "iterative" and (self.steps is None) == (self.step is None):
            raise ValueError("method.schedule.kind=iterative needs exactly one of steps and step")
        return self


class CompensationConfig(Frozen):
    """How the output projections are refitted in closed form after a cut, on calibration activations only."""

    kind: Literal["none", "bias", "least_squares"] = "none"
    target: Annotated[
        float, Field(ge=0, le=1, description="0: the block's own output before the cut; 1: the dense model's")
    ] = 1.0
    ridge: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...],
        Field(min_length=1, description="candidates, relative to the mean of the Gram matrix's diagonal"),
    ] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    held_out: Annotated[
        float, Field(ge=0, lt=1, description="share of the samples that chooses the ridge, block by block")
    ] = 0.125
    num_samples: Annotated[
        int | None, Field(ge=2, description="samples of the refit; as many as taylor.num_samples by default")
    ] = None
    onload: Annotated[
        bool, Field(json_schema_extra=LOCAL, description="keep hidden states and dense layers on the CPU")
    ] = False


class SearchConfig(Frozen):
    """Search over per-block widths, on top of the scores; the objective is measured on held-out calibration text."""

    kind: Literal["none", "exchange"] = "none"
    forwards: Annotated[int, Field(ge=1, description="budget: passes over the held-out samples")] = 60
    num_samples: Annotated[int, Field(ge=1, description="held-out samples, behind the calibration ones")] = 32
    objective: Literal["kl", "loss"] = "kl"


class MethodConfig(Frozen):
    """How statistics become scores, scores a plan, and a cut model a repaired one."""

    name: str = "custom"
    estimator: str = "taylor"
    standardise: Annotated[
        bool, Field(description="scores of each block to mean 0 and deviation 1 (FLAP)")
    ] = False
    prior: PriorKind = "none"
    prior_role: Annotated[
        Literal["weight", "anchor"],
        Field(
            description="weight: x ln(1 + prior)^T; anchor: scaled so that a whole block costs what was measured"
        ),
    ] = "weight"
    scope: Literal["layer", "block"] = "block"
    temperature: Annotated[float, Field(ge=0)] = 1.0
    allocation: Literal["global", "uniform", "alike", "per_layer"] = "global"
    layer_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    structures: Literal["both", "attention", "mlp"] = "both"
    schedule: ScheduleConfig = ScheduleConfig()
    compensation: CompensationConfig = CompensationConfig()
    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _estimator_exists(self) -> Self:
        if self.estimator not in estimator_names():
            raise ValueError(
                f"method.estimator={self.estimator!r}: estimators are {', '.join(estimator_names())}"
            )
        return self

    @model_validator(mode="after")
    def _weights_where_needed(self) -> Self:
        if (self.allocation == "per_layer") != (self.layer_weights is not None):
            raise ValueError(
                "method.layer_weights is given exactly when method.allocation=per_layer (one per layer)"
            )
        return self

    @model_validator(mode="after")
    def _anchor_fits(self) -> Self:
        if self.prior_role == "anchor" and (
            self.estimator != SECOND_ORDER or self.prior != "loss" or self.scope != "block"
        ):
            raise ValueError(
                f"method.prior_role=anchor needs estimator={SECOND_ORDER}, prior=loss and scope=block: "
                "importance in nats, to be compared with a measured loss rise"
            )
        return self

    @model_validator(mode="after")
    def _search_from_one_cut(self) -> Self:
        if self.search.kind != "none" and self.allocation == "alike":
            raise ValueError(
                "method.search gives layers widths of their own; method.allocation=alike forbids that"
            )
        if self.search.kind != "none" and self.schedule.kind != "oneshot":
            raise ValueError(
                "method.search needs method.schedule.kind=oneshot: it starts from the dense model"
            )
        return self

    @property
    def changes_weights(self) -> bool:
        """Whether plan and base model alone do not make the pruned model."""
        return self.compensation.kind != "none"
