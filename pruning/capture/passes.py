"""The calibration pass over one segment of layers: hooks, accumulators, and what becomes of a batch.

Shapes: N samples, T tokens, B batch, L layers, U units.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pruning.capture.activations import ActivationRecorder
from pruning.capture.borders import Borders
from pruning.capture.gradients import GradientFolder, requires_gradient
from pruning.capture.loss import next_token_loss
from pruning.capture.products import FastProducts
from pruning.capture.segments import Segment, SegmentRunner
from pruning.capture.snapshots import accumulated_statistics, take
from pruning.capture.views import Estimator, Level
from pruning.capture.workers import Workers
from pruning.config import CaptureConfig
from pruning.errors import NumericsError
from pruning.models.loading import LoadedModel

log = logging.getLogger(__name__)

HALF_SCALES = (1024.0, 1.0, 2.0**-10, 2.0**-20)
"""Loss scales tried in float16, first to last: small gradients survive, large ones do not overflow."""


@dataclass
class Verdicts:
    """What is known of batches, over all segments, and the work that it took.

    Attributes:
        attempt: Batch -> number of the loss scale that it is tried with first; behind the last one: it is skipped.
        problems: Batch -> where its loss or gradient was last not finite.
        forward, backward: Work: tokens times the decoder layers that they went through.
    """

    attempt: dict[int, int] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    forward: int = 0
    backward: int = 0


@dataclass
class _Tally:
    """What is counted while the pass runs."""

    text_tokens: int = 0
    numbers: list[int] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    statistics: list[torch.Tensor] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    disputed: int = 0
    """Batches that were fine in the segments above and are not in this one."""

    def by_number(self, batches: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        """What was kept of each batch that counted, by the batch's number."""
        return dict(zip(self.numbers, batches, strict=True))


class CalibrationPass:
    """Hooks, accumulators and counters of one walk over the samples, for one segment of a model."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: CaptureConfig,
        level: Level,
        estimators: Sequence[Estimator],
        *,
        segment: Segment | None = None,
        borders: Borders | None = None,
        verdicts: Verdicts | None = None,
        workers: Workers | None = None,
    ) -> None:
        total = len(loaded.layout.layers)
        self.loaded, self.config, self.level = loaded, config, level
        self.estimators = [e for e in estimators if e.level > Level.WEIGHTS and level.serves(e.level)]
        self.segment = segment or Segment(0, total, total)
        self.runner = SegmentRunner(loaded, self.segment, borders or Borders())
        self.verdicts = verdicts or Verdicts()
        self.workers = workers or Workers()
        self.tally = _Tally()
        model: Any = loaded.model
        self._head = loaded.adapter.head(model)
        self._before = requires_gradient(model, False)
        model.zero_grad(set_to_none=True)  # what somebody left there is not of this text
        self.recorder = ActivationRecorder(
            model,
            loaded.adapter,
            loaded.layout,
            layers=self.segment.layers,
            gradients=level >= Level.GATE,
            moments=level == Level.CURVATURE,
            offload=config.offload,
        )
        self.folder = (
            GradientFolder(
                model,
                loaded.adapter,
                loaded.layout,
                layers=self.segment.layers,
                squares=level >= Level.SQUARES,
                offload=config.offload,
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
        """Process one batch [B, T]: scales are tried in float16, a batch that stays bad is skipped or fatal.

        `mask` stays on the host, so that what is asked of it never waits for the device.
        A segment below the top takes the scale that the top found, once; where that fails, the verdict changes and the
        batch is disputed: every segment has to be walked again.
        """
        scales = HALF_SCALES if self.loaded.model.dtype == torch.float16 else (1.0,)
        for attempt in range(self.verdicts.attempt.get(number, 0), len(scales)):
            problem, losses = self._attempt(ids, mask, scales[attempt], number)
            if not problem:
                self.runner.leave(number)
                self.verdicts.attempt[number] = attempt
                self.tally.losses.append(losses)
                self.tally.numbers.append(number)
                self.tally.text_tokens += int(mask.sum())
                return
            self.verdicts.attempt[number] = attempt + 1
            self.verdicts.problems[number] = problem
            if not self.segment.top:
                self.tally.disputed += 1
                break
        if self.verdicts.attempt.get(number, 0) < len(scales):
            return
        problem = self.verdicts.problems[number]
        message = f"calibration batch {number}: {problem} is NaN or infinite"
        if self.config.on_nonfinite == "fail":
            raise NumericsError(
                f"{message}. Use model.dtype=bfloat16 or float32, or capture.on_nonfinite=skip"
            )
        if self.segment.top:
            log.warning("%s; the batch is skipped", message)
            self.tally.skipped.append({"batch": number, "where": problem})

    def _attempt(
        self, ids: torch.Tensor, mask: torch.Tensor, scale: float, number: int
    ) -> tuple[str, torch.Tensor]:
        """One try at a batch; an empty problem means that it was added to the totals."""
        losses = self._forward_backward(ids, mask, scale, number)
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
            self._forward_backward(ids, mask, scale, number, undo=self.folder.folded())
        return problem, losses

    def _forward_backward(
        self, ids: torch.Tensor, mask: torch.Tensor, scale: float, number: int, undo: set[int] | None = None
    ) -> torch.Tensor:
        """Per-sample losses [B] (zeros below the top segment); hooks see activations and gradients."""
        backward = self.level >= Level.GATE
        self.recorder.begin(mask, scale)
        if self.folder is not None:
            self.folder.begin(scale, undo)
        with torch.set_grad_enabled(backward):
            if self.segment.top:
                hidden = self.runner.last_hidden(ids)
                text = mask.to(ids.device, non_blocking=True)
                losses, root = next_token_loss(self._head, hidden, ids, text, scale)
                slope = None
            else:
                root, slope = self.runner.output(ids, number)
                losses = root.new_zeros(len(ids))
            own = len(self.segment.layers)
            self.verdicts.forward += ids.numel() * (self.segment.total if self.segment.top else own)
            if backward and root.requires_grad:
                self.recorder.begin_backward()
                root.backward(slope)
                self.verdicts.backward += ids.numel() * own
        return losses.detach()

    def snapshot(self) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Scores of every estimator over all workers so far, and statistics of the accumulated gradient [P, S]."""
        workers, tracked = self.workers, self.folder.tracked if self.folder is not None else []
        tokens, batches = workers.total(self.tally.text_tokens), workers.total(len(self.tally.numbers))
        scores = take(
            self.loaded,
            self.segment.layers,
            self.estimators,
            self.recorder.sites,
            tracked,
            workers,
            tokens,
            batches,
        )
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
