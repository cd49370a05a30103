"""One run from end to end: prune (pruning/pipeline.py), measure (eval/measure.py), write the record.

    PruneConfig -> (model, adapter) -> samples -> Capture -> scores -> PruningPlan -> smaller model
                -> Measurements -> RunRecord
"""

import logging
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from eval.config import RunConfig
from eval.data import protocol_file
from eval.identity import dense_config, is_dense, run_id
from eval.measure import Measurements, measure
from eval.perplexity import texts_of
from eval.protocols import protocols
from eval.record import RECORD, Failure, LayerReport, Parameters, RunRecord, read_record, write_record
from pruning import pipeline
from pruning.calibration import text_digest
from pruning.checkpoint import save_pruned
from pruning.config import identity
from pruning.diagnosis import diagnose, gradient_figures
from pruning.files import digest, write_atomic, write_json
from pruning.pipeline import Pruned
from pruning.plan import PruningPlan
from pruning.provenance import now, peak_memory, provenance
from pruning.surgery import prune

log = logging.getLogger(__name__)

PLAN, STAGE, ANSWERS, CHECKPOINT = "plan.json", "stage.json", "answers.parquet", "model"
SHORTEST_LEAK = 40
"""Characters from which an evaluation text counts as recognisable in calibration text."""


@dataclass
class _Progress:
    """Where a run is: kept in `stage.json`, so that others can look."""

    folder: Path
    stage: str = "start"

    def __call__(self, stage: str) -> None:
        self.stage = stage
        facts = {"stage": stage, "started": now(), "pid": os.getpid(), "host": socket.gethostname()}
        write_json(self.folder / STAGE, facts)
        log.info("stage: %s", stage)


def experiment(config: RunConfig, plan: PruningPlan | None = None) -> RunRecord:
    """Run one experiment, or return the record that is there already. The dense baseline is measured first.

    Args:
        config: The run. `budget.ratio=0` measures the model as it is.
        plan: Apply this plan instead of making one (measuring a finished run again).

    Raises:
        SecateurError: With `failed.json` in the run folder saying the same.
    """
    name = run_id(config)
    folder = Path(config.out) / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if (folder / RECORD).exists():
            log.info("%s is done already: %s", name, folder / RECORD)
            return read_record(folder)
        progress = _Progress(folder)
        started = now()
        try:
            record = _run(config, name, folder, progress, started, plan)
        except BaseException as error:  # recorded, then raised on: nothing is swallowed
            failure = Failure(stage=progress.stage, type=type(error).__name__, message=str(error))
            write_record(folder, _empty_record(config, name, failure, started))
            raise
        write_record(folder, record)
        (folder / STAGE).unlink(missing_ok=True)
        return record


def baseline(config: RunConfig) -> RunRecord | None:
    """The dense baseline of a run, measured once per model and evaluation; None where there is nothing to measure."""
    if is_dense(config) or not (config.eval.tasks or protocols(config.eval)):
        return None
    return experiment(dense_config(config))


def capture_only(config: RunConfig) -> dict[str, Any]:
    """Compute (or find) the capture that runs with this config share; returns its facts."""
    from pruning.models.loading import load

    loaded = load(config.model, config.device)
    capture, reused = pipeline.obtain_capture(config, loaded, evaluation_text(config))
    return {**capture.facts, "reused": reused, "snapshots": list(capture.snapshots)}


def evaluation_text(config: RunConfig) -> frozenset[str]:
    """Digests of every document that perplexity is measured on: what calibration must not see."""
    found: set[str] = set()
    for protocol in protocols(config.eval):
        if protocol_file(config.eval, protocol) is not None:
            found |= {text_digest(t) for t in texts_of(config.eval, protocol) if len(t) >= SHORTEST_LEAK}
    return frozenset(found)


def _run(
    config: RunConfig, name: str, folder: Path, progress: _Progress, started: str, plan: PruningPlan | None
) -> RunRecord:
    clock = time.perf_counter()
    if plan is None and not is_dense(config):
        pruned = pipeline.run(
            config, exclude=evaluation_text(config), plan_path=folder / PLAN, announce=progress
        )
    else:
        pruned = _given(config, plan, progress)
    loaded = pruned.loaded
    if config.save_model and not (folder / CHECKPOINT).exists():
        progress("save")
        save_pruned(folder / CHECKPOINT, loaded.model, loaded.tokenizer, pruned.plan, provenance())
    progress("evaluate")
    content = digest([loaded.fingerprint, [(p.kept_kv_groups, p.kept_channels) for p in pruned.plan.layers]])
    measured = measure(
        loaded.model, loaded.tokenizer, config.eval, folder, progress=config.progress is not False, identity=content,
        cache=Path(config.out) / "cache" / "requests",
    )
    if len(measured.answers):
        write_atomic(folder / ANSWERS, lambda path: measured.answers.to_parquet(path, index=False))
    seconds = {**pruned.seconds, **measured.seconds, "total": time.perf_counter() - clock}
    return _record(config, name, pruned, measured, seconds, started)


def _given(config: RunConfig, plan: PruningPlan | None, progress: _Progress) -> Pruned:
    """A dense model, or one cut to a plan that exists: nothing is scored."""
    from pruning.models.loading import load
    from pruning.plan import LayerPlan

    progress("load")
    start = time.perf_counter()
    loaded = load(config.model, config.device)
    layout = loaded.layout
    if plan is None:
        everything = tuple(
            LayerPlan(x.kv_groups, x.channels, tuple(range(x.kv_groups)), tuple(range(x.channels))) for x in layout.layers
        )
        plan = PruningPlan(everything, loaded.fingerprint, 0, 0, layout.total_parameters, layout.decoder_parameters)
    if plan.removed:
        progress("surgery")
        prune(loaded.model, loaded.adapter, plan)
    return Pruned(loaded, plan, None, True, {"load": time.perf_counter() - start})


def _record(
    config: RunConfig, name: str, pruned: Pruned, measured: Measurements, seconds: dict[str, float], started: str
) -> RunRecord:
    plan, capture = pruned.plan, pruned.capture
    samples = config.taylor.num_samples
    gradients = capture.layer_gradients(samples) if capture is not None else {}
    figures, notes = gradient_figures(gradients)
    facts = capture.facts if capture is not None else {}
    worked = {} if pruned.reused else facts
    return RunRecord(
        run_id=name,
        kind="dense" if is_dense(config) else "pruned",
        status="done",
        config=config.model_dump(mode="json"),
        card={**measured.card, **_card(config), "parameters_kept": 1 - plan.ratio},
        metrics=measured.metrics,
        parameters=Parameters(
            before=plan.total_parameters,
            after=plan.total_parameters - plan.removed,
            ratio=plan.ratio,
            decoder_before=plan.decoder_parameters,
            decoder_after=plan.decoder_parameters - plan.removed,
        ),
        layers=_layers(pruned, gradients, config),
        statistics={
            **figures,
            "extreme_layers": list(plan.extreme_layers()),
            "extreme_mlp_layers": list(plan.extreme_mlp_layers()),
            "calibration_loss": facts.get("mean_loss"),
        },
        diagnosis=diagnose(plan, gradients, facts.get("skipped_batches", [])),
        notes=notes,
        timings=seconds,
        memory=peak_memory(),
        counters={
            "capture": "none" if capture is None else "reused" if pruned.reused else "computed",
            "forward_tokens": worked.get("forward_tokens", 0),
            "backward_tokens": worked.get("backward_tokens", 0),
            **{f"eval_{key}" if "tokens" in key else key: value for key, value in measured.counters.items()},
        },
        provenance={
            **provenance(),
            "started": started,
            "finished": now(),
            "model_fingerprint": pruned.loaded.fingerprint,
            "model_revision": pruned.loaded.revision,
            "model_dtype": str(pruned.loaded.model.dtype),
            "calibration_text": facts.get("text"),
        },
    )


def _card(config: RunConfig) -> dict[str, Any]:
    """The parts of the protocol card that pruning decides."""
    return {
        "calibration": identity(config.calibration),
        "taylor": config.taylor.model_dump(mode="json"),
        "seed": config.seed,
        "budget": config.budget.model_dump(mode="json"),
    }


def _layers(pruned: Pruned, gradients: dict[int, dict[str, float]], config: RunConfig) -> tuple[LayerReport, ...]:
    capture, plan = pruned.capture, pruned.plan
    prior = None
    if capture is not None and config.method.prior != "none":
        prior = capture.prior(config.method.prior, config.taylor.num_samples, config.capture.prior_share)
    extreme = set(plan.extreme_layers())
    rows: list[LayerReport] = []
    for index, layer in enumerate(plan.layers):
        gradient = gradients.get(index, {})
        rows.append(
            LayerReport(
                layer=index,
                kv_groups=layer.kv_groups,
                kept_kv_groups=len(layer.kept_kv_groups),
                channels=layer.channels,
                kept_channels=len(layer.kept_channels),
                extreme=index in extreme,
                grad_mean=gradient.get("mean_abs"),
                grad_norm=gradient.get("l2"),
                grad_std=gradient.get("std"),
                grad_max=max(abs(gradient["max"]), abs(gradient["min"])) if gradient else None,
                prior_layer=None if prior is None else float(prior[index, 0]),
                prior_attention=None if prior is None else float(prior[index, 1]),
                prior_mlp=None if prior is None else float(prior[index, 2]),
            )
        )
    return tuple(rows)


def _empty_record(config: RunConfig, name: str, failure: Failure, started: str) -> RunRecord:
    return RunRecord(
        run_id=name,
        kind="dense" if is_dense(config) else "pruned",
        status="failed",
        error=failure,
        config=config.model_dump(mode="json"),
        card=_card(config),
        memory=peak_memory(),
        provenance={**provenance(), "started": started, "finished": now()},
    )
