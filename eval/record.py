"""`RunRecord`: one strict JSON per run, written by rename, so that "exists" means "finished". No torch here."""

from pathlib import Path
from typing import Any, Literal

from secateur.pruning.config import Frozen
from secateur.pruning.files import write_json
from secateur.pruning.schema import read_typed

RECORD = "record.json"
FAILED = "failed.json"
ANSWERS = "answers.parquet"
"""Answers to single questions, beside the record: paired comparisons and hold-outs over questions read them."""
SCHEMA = 1


class Metric(Frozen):
    """One measured number. `value` is null when it is not finite; `note` then says why."""

    value: float | None
    stderr: float | None = None
    n: int | None = None
    unit: Literal["accuracy", "perplexity", "other"] = "other"
    higher_is_better: bool = True
    note: str | None = None


class LayerReport(Frozen):
    """What happened to one decoder layer (indices of the dense model)."""

    layer: int
    kv_groups: int
    kept_kv_groups: int
    channels: int
    kept_channels: int
    extreme: bool
    grad_mean: float | None = None
    grad_norm: float | None = None
    grad_std: float | None = None
    grad_max: float | None = None
    prior_layer: float | None = None
    prior_attention: float | None = None
    prior_mlp: float | None = None


class Parameters(Frozen):
    """Parameter counts before and after; `ratio` is the removed share of all parameters."""

    before: int
    after: int
    ratio: float
    decoder_before: int
    decoder_after: int


class Failure(Frozen):
    """Why a run has no metrics."""

    stage: str
    type: str
    message: str


class RunRecord(Frozen):
    """Everything that is known about one run.

    Attributes:
        run_id: Name of the run folder: model, method, sizes and a digest of what changes the result.
        kind: `dense` is the unpruned baseline of a model.
        config: The full config, defaults included.
        card: The protocol card: rows may be ranked together only when their cards agree
            (`model`-specific entries apart). Keys: tasks {name: {metric, version, num_fewshot, limit, data}},
            perplexity [protocol, ...], harness {lm_eval, backend}, calibration, seed, parameters_kept.
        metrics: By full protocol name: `acc_mean`, `<task>/acc`, `<task>/acc_norm`, `wikitext2@2048`, ...
        statistics: `grad_mean_ratio`, `grad_norm_ratio`, `grad_std_ratio`, `grad_max_ratio`,
            `grad_mean_range`, `grad_norm_range` (null with a reason under `notes`), `extreme_layers` (indices).
        diagnosis: Sentences with numbers: what is unusual about gradients and plan.
        timings: Seconds per stage.
        memory: Peak bytes: `host`, `device`.
        counters: `forward_tokens`, `backward_tokens` of scoring, `capture` = computed | reused, requests.
        provenance: Versions, commit, hardware, model and data revisions, start time.
    """

    schema_version: int = SCHEMA
    run_id: str
    kind: Literal["dense", "pruned"]
    status: Literal["done", "failed"]
    error: Failure | None = None
    config: dict[str, Any]
    card: dict[str, Any]
    metrics: dict[str, Metric] = {}
    parameters: Parameters | None = None
    layers: tuple[LayerReport, ...] = ()
    statistics: dict[str, Any] = {}
    diagnosis: tuple[str, ...] = ()
    notes: dict[str, str] = {}
    timings: dict[str, float] = {}
    memory: dict[str, int | None] = {}
    counters: dict[str, Any] = {}
    provenance: dict[str, Any] = {}


def write_record(folder: Path, record: RunRecord) -> Path:
    """Write `record.json` (or `failed.json`) atomically; a success removes an older failure."""
    path = folder / (RECORD if record.status == "done" else FAILED)
    write_json(path, record.model_dump(mode="json"))
    if record.status == "done":
        (folder / FAILED).unlink(missing_ok=True)
    return path


def read_record(path: Path) -> RunRecord:
    """Read one record from its file or its run folder.

    Raises:
        StorageError: The file is missing, damaged, or of another schema.
    """
    if path.is_dir():
        path = path / RECORD if (path / RECORD).exists() else path / FAILED
    return read_typed(path, RunRecord, f"a run record of schema {SCHEMA}")
