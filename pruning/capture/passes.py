"""The calibration pass: one walk over the samples, snapshots at each requested count, every estimator at once.

Shapes: N samples, T tokens, B batch, L layers, U units.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pruning.calibration import Samples
from pruning.capture.activations import ActivationRecorder
from pruning.capture.gradients import STATISTICS, GradientFolder, requires_gradient
from pruning.capture.loss import next_token_loss
from pruning.capture.prior_pass import bypass_priors, gate_prior
from pruning.capture.products import FastProducts
from pruning.capture.result import Capture
from pruning.capture.snapshots import accumulated_statistics, batch_bounds, take
from pruning.capture.views import Estimator, Level
from pruning.capture.workers import Workers
from pruning.config import CaptureConfig, TaylorConfig
from pruning.errors import NumericsError
from pruning.models.loading import LoadedModel
from pruning.progress import Bar

log = logging.getLogger(__name__)

HALF_SCALES = (1024.0, 1.0, 2.0**-10, 2.0**-20)
"""Loss scales tried in float16, first to last: small gradients survive, large ones do not overflow."""


@dataclass
class _Tally:
    """What is counted while the pass runs."""

    forward_tokens: int = 0
    backward_tokens: int = 0
    text_tokens: int = 0
    numbers: list[int] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    statistics: list[torch.Tensor] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def by_number(self, batches: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        """What was kept of each batch that counted, by the batch's number."""
        return dict(zip(self.numbers, batches, strict=True))


class CalibrationPass:
    """Hooks, accumulators and counters of one pass over one model."""

    def __init__(
        self, loaded: LoadedModel, config: CaptureConfig, level: Level, estimators: Sequence[Estimator]
    ) -> None:
        self.loaded, self.config, self.level = loaded, config, level
        self.estimators = [e for e in estimators if e.level > Level.WEIGHTS and level.serves(e.level)]
        self.workers = Workers()
        self.tally = _Tally()
        model: Any = loaded.model
        self._before = requires_gradient(model, False)
        model.zero_grad(set_to_none=True)  # what somebody left there is not of this text
        self.recorder = ActivationRecorder(
            model,
            loaded.adapter,
            loaded.layout,
            gradients=level >= Level.GATE,
            moments=level == Level.CURVATURE,
            offload=config.offload,
        )
        self.folder = (
            GradientFolder(
                model, loaded.adapter, loaded.layout, squares=level >= Level.SQUARES, offload=config.offload
            )
            if level.weight_gradients
            else None
        )
        self.products = FastProducts(loaded.adapter.decoder_layers(model))
        self._checkpointing(config.gradient_checkpointing)

    def _checkpointing(self, on: bool) -> None:
        """Gradient checkpointing acts only on layers in training mode; dropout modules stay in evaluation mode."""
        model: Any = self.loaded.model
        if on:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        elif self.config.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        for layer in self.loaded.adapter.decoder_layers(model):
            layer.training = on

    def batch(self, ids: torch.Tensor, mask: torch.Tensor, number: int) -> None:
        """Process one batch [B, T]: scales are tried in float16, a batch that stays bad is skipped or fatal."""
        half = self.loaded.model.dtype == torch.float16
        problem = ""
        for scale in HALF_SCALES if half else (1.0,):
            problem, losses = self._attempt(ids, mask, scale)
            if not problem:
                self.tally.losses.append(losses)
                self.tally.numbers.append(number)
                self.tally.text_tokens += int(mask.sum())
                return
        message = f"calibration batch {number}: {problem} is NaN or infinite"
        if self.config.on_nonfinite == "fail":
            raise NumericsError(
                f"{message}. Use model.dtype=bfloat16 or float32, or capture.on_nonfinite=skip"
            )
        log.warning("%s; the batch is skipped", message)
        self.tally.skipped.append({"batch": number, "where": problem})

    def _attempt(self, ids: torch.Tensor, mask: torch.Tensor, scale: float) -> tuple[str, torch.Tensor]:
        """One try at a batch; an empty problem means that it was added to the totals."""
        losses = self._forward_backward(ids, mask, scale)
        problem = "" if bool(torch.isfinite(losses).all()) else "the loss"
        bad = self.folder.bad() if self.folder is not None else []
        if bad:
            item = self.folder.tracked[bad[0]] if self.folder is not None else None
            problem = f"the gradient of layer {item.layer}, {item.name}" if item is not None else problem
        problem = problem or self.recorder.finite() or ""
        if not problem:
            if self.folder is not None:
                self.tally.statistics.append(self.folder.batch_statistics().float())
            self.recorder.commit(ids.shape[0], int((mask[:, 1:] & mask[:, :-1]).sum()))
        elif self.folder is not None and self.folder.folded():
            self._forward_backward(ids, mask, scale, undo=self.folder.folded())
        return problem, losses

    def _forward_backward(
        self, ids: torch.Tensor, mask: torch.Tensor, scale: float, undo: set[int] | None = None
    ) -> torch.Tensor:
        """Per-sample losses [B]; hooks see activations and gradients."""
        model: Any = self.loaded.model
        backward = self.level >= Level.GATE
        self.recorder.begin(mask, scale)
        if self.folder is not None:
            self.folder.begin(scale, undo)
        with torch.set_grad_enabled(backward):
            hidden = model.get_submodule(model.base_model_prefix)(
                input_ids=ids, use_cache=False
            ).last_hidden_state
            losses, total = next_token_loss(model, hidden, ids, mask, scale)
            self.tally.forward_tokens += ids.numel()
            if backward and hidden.requires_grad:
                self.recorder.begin_backward()
                total.backward()
                self.tally.backward_tokens += ids.numel()
        return losses.detach()

    def snapshot(self) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Scores of every estimator over all workers so far, and statistics of the accumulated gradient [P, S]."""
        workers, tracked = self.workers, self.folder.tracked if self.folder is not None else []
        tokens, batches = workers.total(self.tally.text_tokens), workers.total(len(self.tally.numbers))
        scores = take(self.loaded, self.estimators, self.recorder.sites, tracked, workers, tokens, batches)
        return scores, accumulated_statistics(tracked, workers) if tracked else None

    def close(self) -> None:
        """Remove hooks and give the model back as it was."""
        self.recorder.close()
        self.products.close()
        if self.folder is not None:
            self.folder.close()
        self._checkpointing(False)
        for name, parameter in self.loaded.model.named_parameters():
            parameter.requires_grad_(self._before[name])


def run_capture(
    loaded: LoadedModel,
    samples: Samples,
    config: CaptureConfig,
    taylor: TaylorConfig,
    level: Level,
    snapshots: Sequence[int],
    estimators: Sequence[Estimator],
    *,
    progress: bool | None = None,
) -> Capture:
    """Walk over the samples once.

    Raises:
        NumericsError: A loss or gradient is NaN or infinite and `capture.on_nonfinite=fail`, or every batch was.
    """
    started = time.perf_counter()
    walk = CalibrationPass(loaded, config, level, estimators)
    scores: dict[str, torch.Tensor] = {}
    accumulated: dict[int, torch.Tensor] = {}
    bounds = batch_bounds(taylor.batch_size, snapshots)
    try:
        with Bar("capture", snapshots[-1] if level > Level.WEIGHTS else 0, show=progress) as bar:
            for number, (start, stop) in enumerate(bounds if level > Level.WEIGHTS else []):
                if walk.workers.mine(number):
                    rows = slice(start, stop)
                    walk.batch(
                        samples.ids[rows].to(loaded.device), samples.mask(rows).to(loaded.device), number
                    )
                if stop in snapshots:
                    if walk.workers.total(len(walk.tally.numbers)) == 0:
                        where = walk.workers.gather(walk.tally.skipped)[0]["where"]
                        raise NumericsError(
                            f"none of the first {stop} calibration samples gave a finite gradient ({where}). "
                            "Look at the model's weights, or use model.dtype=bfloat16 or float32"
                        )
                    found, statistics = walk.snapshot()
                    scores |= {
                        f"{name.split('/')[0]}/{stop}/{name.split('/')[1]}": v for name, v in found.items()
                    }
                    if statistics is not None:
                        accumulated[stop] = statistics
                bar.advance(stop - start)
        gate = (
            gate_prior(walk.recorder, walk.tally.numbers, walk.workers, len(loaded.layout.layers))
            if level >= Level.GATE and "gate" in config.priors
            else None
        )
    finally:
        walk.close()
    tally = walk.tally
    loss, cosine, prior_tokens = bypass_priors(
        loaded, samples, config, taylor, snapshots[-1], walk.workers, progress
    )
    tensors = (
        tuple((t.layer, t.name, t.parameter.numel()) for t in walk.folder.tracked) if walk.folder else ()
    )
    batch_losses = walk.workers.gather_rows(tally.by_number([row.double().cpu() for row in tally.losses]))
    facts = {
        "samples": snapshots[-1],
        "seq_len": int(samples.ids.shape[1]),
        "batch_size": taylor.batch_size,
        "text": samples.digest,
        "forward_tokens": walk.workers.total(tally.forward_tokens + prior_tokens),
        "backward_tokens": walk.workers.total(tally.backward_tokens),
        "mean_loss": float(batch_losses.mean()) if len(batch_losses) else None,
        "skipped_batches": sorted(walk.workers.gather(tally.skipped), key=lambda skip: skip["batch"]),
        "workers": walk.workers.size,
        "seconds": time.perf_counter() - started,
    }
    statistics = (
        walk.workers.gather_rows(tally.by_number([row[None] for row in tally.statistics]))
        if len(tensors)
        else torch.zeros(0, 0, len(STATISTICS))
    )
    return Capture(
        level=level,
        snapshots=tuple(snapshots),
        scores=scores,
        tensors=tensors,
        batch_statistics=statistics,
        accumulated_statistics=accumulated,
        prior_loss=loss,
        prior_cosine=cosine,
        prior_gate=gate,
        facts=facts,
    )
