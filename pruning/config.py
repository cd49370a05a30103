"""The typed configuration of a pruning run, checked before any model is loaded. No torch here.

Every value that changes a result is part of the run's identity; fields marked with `Local` (where it runs,
how it is batched on the device, where files go) are not.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from secateur.pruning.config_method import MethodConfig, PriorKind
from secateur.pruning.files import digest
from secateur.pruning.levels import estimator_names
from secateur.pruning.naming import folder_name
from secateur.pruning.schema import LOCAL, Frozen, identity, validate

__all__ = [
    "LOCAL",
    "RESULT_VERSION",
    "BudgetConfig",
    "CalibrationConfig",
    "CaptureConfig",
    "Frozen",
    "GuardConfig",
    "MethodConfig",
    "ModelConfig",
    "PriorKind",
    "PruneConfig",
    "TaylorConfig",
    "capture_identity",
    "config_digest",
    "estimator_names",
    "identity",
    "validate",
]

RESULT_VERSION = 2
"""Raised whenever a change of code changes results: runs of different versions have different identities."""

Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]


class ModelConfig(Frozen):
    """Which model is pruned and how it is loaded."""

    name: str = "local"
    path: Annotated[str, Field(min_length=1, description="hub id, directory, or bundled:NAME")]
    revision: str | None = None
    dtype: Dtype = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"] = "sdpa"
    device_map: Annotated[str | None, Field(json_schema_extra=LOCAL)] = None
    trust_remote_code: bool = False

    @model_validator(mode="before")
    @classmethod
    def _name_of_a_local_folder(cls, raw: Any) -> Any:
        """A local model is called what its folder is called, in run names and tables."""
        if isinstance(raw, dict) and raw.get("name", "local") == "local" and isinstance(raw.get("path"), str):
            return {**raw, "name": folder_name(raw["path"])}
        return raw


class CalibrationConfig(Frozen):
    """Which text the gradient pass sees; never text that evaluation reads."""

    name: str = "text_file"
    source: Literal["hub", "file", "world"] = "file"
    path: str | None = None
    subset: str | None = None
    split: str = "train"
    data_files: str | None = None
    revision: str | None = None
    field: str = "text"
    packing: Literal["packed", "study"] = "packed"
    blank_lines: Literal["keep", "single"] = "keep"
    min_chars: Annotated[int, Field(ge=0)] = 0
    seed: int = 0

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if self.source != "world" and not self.path:
            raise ValueError(
                f"calibration.path is required for calibration.source={self.source}: give a file or hub id"
            )
        return self


class TaylorConfig(Frozen):
    """Size of the calibration pass."""

    seq_len: Annotated[int, Field(ge=2, description="tokens per sample")] = 128
    num_samples: Annotated[int, Field(ge=1, description="samples whose gradients are accumulated")] = 256
    batch_size: Annotated[
        int, Field(ge=1, description="samples whose mean loss is one batch's; part of the definition")
    ] = 4

    @field_validator("batch_size", mode="before")
    @classmethod
    def _auto(cls, raw: Any) -> Any:
        """`auto` is the default: how many samples go through the device together is `capture.batch_size`'s matter."""
        return cls.model_fields["batch_size"].default if raw == "auto" else raw


class CaptureConfig(Frozen):
    """What one pass over the calibration text records."""

    estimators: Literal["auto", "all"] = "auto"
    snapshots: Annotated[tuple[int, ...], Field(json_schema_extra=LOCAL)] = ()
    priors: Annotated[tuple[Literal["loss", "cosine", "gate"], ...], Field(json_schema_extra=LOCAL)] = (
        "loss",
        "cosine",
        "gate",
    )
    prior_share: Annotated[
        float, Field(gt=0, le=1, description="share of the samples that measure priors")
    ] = 0.2
    batch_size: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto"],
        Field(
            json_schema_extra=LOCAL,
            description="samples that go through the device together; auto: on a GPU as many as its memory takes",
        ),
    ] = "auto"
    on_nonfinite: Literal["skip", "fail"] = "skip"
    offload: Annotated[bool, Field(json_schema_extra=LOCAL)] = False
    gradient_checkpointing: Annotated[bool, Field(json_schema_extra=LOCAL)] = False
    segments: Annotated[
        int | None,
        Field(
            ge=1,
            json_schema_extra=LOCAL,
            description="parts of the model whose gradients are accumulated in turn",
        ),
    ] = None


class BudgetConfig(Frozen):
    """How much is removed."""

    ratio: Annotated[float, Field(ge=0, lt=1, description="share of parameters removed")] = 0.2
    of: Literal["total", "decoder"] = "total"


class GuardConfig(Frozen):
    """Limits that no plan may cross."""

    min_kv_groups: Annotated[int, Field(ge=0)] = 0
    min_channels: Annotated[int, Field(ge=0)] = 0
    max_layer_ratio: Annotated[
        float, Field(gt=0, le=1, description="largest share cut of one layer's MLP or attention")
    ] = 1.0
    protect_first: Annotated[int, Field(ge=0)] = 0
    protect_last: Annotated[int, Field(ge=0)] = 0
    round_to: Annotated[int, Field(ge=1, description="kept MLP widths are multiples of this")] = 1


class PruneConfig(Frozen):
    """Everything that decides which smaller model comes out."""

    model: ModelConfig
    calibration: CalibrationConfig
    method: MethodConfig = MethodConfig()
    taylor: TaylorConfig = TaylorConfig()
    capture: CaptureConfig = CaptureConfig()
    budget: BudgetConfig = BudgetConfig()
    guard: GuardConfig = GuardConfig()
    seed: int = 0
    device: Annotated[str, Field(json_schema_extra=LOCAL)] = "auto"
    out: Annotated[str, Field(json_schema_extra=LOCAL)] = "runs"
    save_model: Annotated[bool, Field(json_schema_extra=LOCAL)] = False
    progress: Annotated[bool | None, Field(json_schema_extra=LOCAL)] = None


def config_digest(config: BaseModel, **extra: Any) -> str:
    """Short digest of a config's identity, of `extra` facts (file digests) and of the result version."""
    return digest({"version": RESULT_VERSION, "config": identity(config), **extra}, 10)


def capture_identity(config: PruneConfig) -> dict[str, Any]:
    """What decides a capture apart from the number of samples: runs that agree here share one gradient pass."""
    return {
        "version": RESULT_VERSION,
        "model": identity(config.model),
        "calibration": identity(config.calibration),
        "seq_len": config.taylor.seq_len,
        "batch_size": config.taylor.batch_size,
        "capture": identity(config.capture),
    }
