"""What a run leaves behind: its record, built from what pruning and measuring returned. No decisions here."""

from typing import Any

from secateur.eval.code import code_fingerprint
from secateur.eval.config import RunConfig
from secateur.eval.identity import is_dense, model_identity
from secateur.eval.measure import Measurements
from secateur.eval.record import Failure, LayerReport, Parameters, RunRecord
from secateur.pruning.config import identity
from secateur.pruning.diagnosis import diagnose, gradient_figures
from secateur.pruning.errors import SecateurError
from secateur.pruning.pipeline import Pruned
from secateur.pruning.provenance import now, peak_memory, provenance


def finished_record(
    config: RunConfig,
    name: str,
    pruned: Pruned,
    measured: Measurements,
    seconds: dict[str, float],
    started: str,
) -> RunRecord:
    """The record of a run that has done all that was asked for."""
    plan, capture = pruned.plan, pruned.capture
    samples = config.taylor.num_samples
    gradients = capture.layer_gradients(samples) if capture is not None else {}
    figures, notes = gradient_figures(gradients)
    facts = capture.facts if capture is not None else {}
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
            **pruned.story,
        },
        diagnosis=diagnose(plan, gradients, facts.get("skipped_batches", [])),
        notes=notes,
        timings=seconds,
        memory=peak_memory(),
        counters={
            "capture": "none" if capture is None else "reused" if pruned.reused else "computed",
            **pruned.work,
            **{f"eval_{key}" if "tokens" in key else key: value for key, value in measured.counters.items()},
        },
        provenance={
            **provenance(),
            "code": code_fingerprint(),
            "started": started,
            "finished": now(),
            "model_fingerprint": pruned.loaded.fingerprint,
            "model_revision": pruned.loaded.revision,
            "model_dtype": str(pruned.loaded.model.dtype),
            "calibration_text": facts.get("text"),
            "calibration_samples_at_once": facts.get("samples_at_once"),
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


def _layers(
    pruned: Pruned, gradients: dict[int, dict[str, float]], config: RunConfig
) -> tuple[LayerReport, ...]:
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


def failed_record(config: RunConfig, name: str, failure: Failure, started: str) -> RunRecord:
    """The record of a run that stopped with an error."""
    return RunRecord(
        run_id=name,
        kind="dense" if is_dense(config) else "pruned",
        status="failed",
        error=failure,
        config=config.model_dump(mode="json"),
        card=_card(config),
        memory=peak_memory(),
        provenance={
            **provenance(),
            "code": code_fingerprint(),
            "started": started,
            "finished": now(),
            "model_fingerprint": _fingerprint(config),
        },
    )


def _fingerprint(config: RunConfig) -> str | None:
    """Digest of the model; None where that is what failed."""
    try:
        return model_identity(config.model)
    except (SecateurError, OSError):
        return None
