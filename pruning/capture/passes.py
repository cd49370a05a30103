"""The calibration pass over one segment of layers: hooks, accumulators, and what becomes of a batch.

Shapes: N samples, T tokens, B batch, L layers, U units.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from secateur.pruning.capture.activations import ActivationRecorder
from secateur.pruning.capture.borders import Borders
from secateur.pruning.capture.gradients import GradientFolder, requires_gradient
from secateur.pruning.capture.loss import next_token_loss
from secateur.pruning.capture.products import FastProducts
from secateur.pruning.capture.room import Room, no_limit
from secateur.pruning.capture.segments import Segment, SegmentRunner
from secateur.pruning.capture.snapshots import accumulated_statistics, take
from secateur.pruning.capture.tally import Batch, Tally, Verdicts
from secateur.pruning.capture.views import Estimator, Level
from secateur.pruning.capture.workers import Workers
from secateur.pruning.config import CaptureConfig
from secateur.pruning.errors import NumericsError
from secateur.pruning.memory import give_back
from secateur.pruning.models.loading import LoadedModel

log = logging.getLogger(__name__)

HALF_SCALES = (1024.0, 1.0, 2.0**-10, 2.0**-20)
"""Loss scales tried in float16, first to last: small gradients survive, large ones do not overflow."""


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
        room: Room | None = None,
    ) -> None:
        total = len(loaded.layout.layers)
        self.loaded, self.config, self.level = loaded, config, level
        self.estimators = [e for e in estimators if e.level > Level.WEIGHTS and level.serves(e.level)]
        self.segment = segment or Segment(0, total, total)
        self.runner = SegmentRunner(loaded, self.segment, borders or Borders())
        self.verdicts = verdicts or Verdicts()
        self.workers = workers or Workers()
        self.room = room or no_limit()
        self.tally = Tally()
        self._scales = HALF_SCALES if loaded.model.dtype == torch.float16 else (1.0,)
        self._revocable = False
        self._scale = 1.0
        self._work = 0, 0
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

    @property
    def revocable(self) -> bool:
        """Whether what is under way can be taken back: nothing of it is counted, no fold was cut short."""
        return self._revocable and not (self.folder is not None and self.folder.torn)

    def is_bad(self, number: int) -> bool:
        """Whether a batch is to be skipped."""
        return self.verdicts.attempt.get(number, 0) >= len(self._scales)

    def take_back(self, batches: Sequence[Batch]) -> None:
        """Undo what an attempt that memory ended has changed, in the smallest parts; it counts as no work."""
        self._revocable = False
        self.runner.begin()
        self.recorder.begin(batches[0].mask, self._scale)
        if self.folder is not None:
            self.folder.drop()
            give_back()
            folded = self.folder.folded()
            for batch in batches if folded else ():
                self._forward_backward([batch], self._scale, undo=folded, most=1)
        self.verdicts.forward, self.verdicts.backward = self._work
        give_back()

    def together(self, batches: Sequence[Batch]) -> bool:
        """Process several batches as one; False when something was not finite: each has to be tried alone."""
        attempt = self.verdicts.attempt.get(batches[0].number, 0)
        problem, losses = self._attempt(batches, self._scales[attempt])
        if not problem:
            self._count(batches, attempt, losses)
        return not problem

    def _count(self, batches: Sequence[Batch], attempt: int, losses: torch.Tensor) -> None:
        self.runner.leave({batch.number: len(batch.ids) for batch in batches})
        for batch, part in zip(batches, losses.split([len(batch.ids) for batch in batches]), strict=True):
            self.verdicts.attempt[batch.number] = attempt
            self.tally.losses.append(part)
            self.tally.numbers.append(batch.number)
            self.tally.text_tokens += int(batch.mask.sum())

    def batch(self, ids: torch.Tensor, mask: torch.Tensor, number: int) -> None:
        """Process one batch [B, T]: scales are tried in float16, a batch that stays bad is skipped or fatal.

        `mask` stays on the host, so that what is asked of it never waits for the device.
        A segment below the top takes the scale that the top found, once; where that fails, the verdict changes and the
        batch is disputed: every segment has to be walked again.
        """
        batch = Batch(number, ids, mask)
        for attempt in range(self.verdicts.attempt.get(number, 0), len(self._scales)):
            problem, losses = self._attempt([batch], self._scales[attempt])
            if not problem:
                self._count([batch], attempt, losses)
                return
            self.verdicts.attempt[number] = attempt + 1
            self.verdicts.problems[number] = problem
            if not self.segment.top:
                self.tally.disputed += 1
                break
        if not self.is_bad(number):
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

    def _attempt(self, batches: Sequence[Batch], scale: float) -> tuple[str, torch.Tensor]:
        """One try at batches; an empty problem means that they were added to the totals."""
        self._revocable, self._scale = True, scale
        self._work = self.verdicts.forward, self.verdicts.backward
        losses = self._forward_backward(batches, scale)
        problem = "" if bool(torch.isfinite(losses).all()) else "the loss"
        bad = self.folder.bad() if self.folder is not None else []
        if bad:
            item = self.folder.tracked[bad[0]] if self.folder is not None else None
            problem = f"the gradient of layer {item.layer}, {item.name}" if item is not None else problem
        problem = problem or self.recorder.finite() or ""
        self._revocable = False
        if not problem:
            if self.folder is not None:
                found = self.folder.batch_statistics().float()
                for batch in batches:
                    self.tally.statistics[batch.number] = found if len(batches) == 1 else found * torch.nan
            self.recorder.commit([len(batch.ids) for batch in batches], [batch.targets for batch in batches])
        elif self.folder is not None and self.folder.folded():
            self._forward_backward(batches, scale, undo=self.folder.folded())
        return problem, losses

    def _forward_backward(
        self,
        batches: Sequence[Batch],
        scale: float,
        undo: set[int] | None = None,
        most: int | None = None,
    ) -> torch.Tensor:
        """Per-sample losses [B] (zeros below the top segment); hooks see activations and gradients.

        One batch goes in pieces of at most `most` samples, or of as many as there is room for.
        """
        ids, mask = (torch.cat([getattr(b, name) for b in batches]) for name in ("ids", "mask"))
        most = len(ids) if len(batches) > 1 else most or self.room.size
        pieces = [slice(start, start + most) for start in range(0, len(ids), most)]
        targets: torch.Tensor | None = None
        if len(batches) > 1 or len(pieces) > 1:
            each = [max(1, batch.targets) for batch in batches for _ in batch.ids]
            targets = torch.tensor(each, dtype=torch.float32).to(ids.device, non_blocking=True)
        self.runner.begin()
        if self.folder is not None:
            self.folder.begin(scale, undo)
        losses: list[torch.Tensor] = []
        for rows in pieces:
            if rows.start == 0:
                self.recorder.begin(mask[rows], scale)
            else:
                self.recorder.more(mask[rows])
            if self.folder is not None:
                sums = undo is not None and self.level != Level.SQUARES  # each piece is taken back by itself
                self.folder.hold = rows is not pieces[-1] and not sums
            part = None if targets is None else targets[rows]
            losses.append(self._piece(ids[rows], mask[rows], scale, [b.number for b in batches], rows, part))
        return losses[0] if len(losses) == 1 else torch.cat(losses)

    def _piece(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        scale: float,
        numbers: Sequence[int],
        rows: slice,
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        """Samples that go through the device together: losses [B]."""
        backward = self.level >= Level.GATE
        with torch.set_grad_enabled(backward):
            if self.segment.top:
                hidden = self.runner.last_hidden(ids)
                text = mask.to(ids.device, non_blocking=True)
                losses, root = next_token_loss(self._head, hidden, ids, text, scale, targets)
                slope = None
            else:
                root, slope = self.runner.output(ids, numbers, rows)
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
