"""From samples to a capture: walks over the segments, snapshots at each requested count, every estimator at once.

Shapes: N samples, T tokens, L layers, P tracked tensors, S statistics, U units.
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from secateur.pruning.calibration import Samples
from secateur.pruning.capture.advice import memory_advice
from secateur.pruning.capture.borders import Borders
from secateur.pruning.capture.moments import STATISTICS
from secateur.pruning.capture.passes import CalibrationPass
from secateur.pruning.capture.prior_pass import bypass_priors, gate_prior
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.room import Room, room_for
from secateur.pruning.capture.segments import AUTO_BYTES, AUTO_SEGMENTS, Segment, cut
from secateur.pruning.capture.snapshots import batch_bounds
from secateur.pruning.capture.tally import Batch, Verdicts
from secateur.pruning.capture.together import Together
from secateur.pruning.capture.views import Estimator, Level
from secateur.pruning.capture.workers import Workers
from secateur.pruning.config import CaptureConfig, TaylorConfig
from secateur.pruning.errors import NumericsError
from secateur.pruning.models.adapter import linear
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.progress import Bar

log = logging.getLogger(__name__)


@dataclass
class _Part:
    """What the walk over one segment found; fields as in `Capture`, of the segment's layers only."""

    scores: dict[str, torch.Tensor] = field(default_factory=dict)
    accumulated: dict[int, torch.Tensor] = field(default_factory=dict)
    tensors: tuple[tuple[int, str, int], ...] = ()
    statistics: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    losses: torch.Tensor | None = None
    skipped: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    """What every walk is about."""

    loaded: LoadedModel
    samples: Samples
    config: CaptureConfig
    batch_size: int
    level: Level
    snapshots: Sequence[int]
    estimators: Sequence[Estimator]
    workers: Workers
    room: Room
    progress: bool | None


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
    """Walk over the samples, once for every segment of the model.

    Raises:
        NumericsError: A loss or gradient is NaN or infinite and `capture.on_nonfinite=fail`, or every batch was.
    """
    started = time.perf_counter()
    workers, verdicts = Workers(), Verdicts()
    segments = number_of_segments(loaded, config, level)
    room = room_for(loaded, config, taylor, level, segments)
    task = _Task(
        loaded, samples, config, taylor.batch_size, level, snapshots, estimators, workers, room, progress
    )
    with memory_advice(config, level, segments, len(loaded.layout.layers)):
        while (parts := _walks(task, verdicts, segments)) is None:
            log.warning(
                "a batch was not finite below the topmost segment: all segments start again, without it or with "
                "its next loss scale"
            )
    loss, cosine, prior_tokens = bypass_priors(
        loaded, samples, config, taylor, snapshots[-1], workers, progress
    )
    layers, prior_tokens = len(loaded.layout.layers), workers.total(prior_tokens)
    batch_losses = parts[-1].losses
    assert batch_losses is not None
    facts = {
        "samples": snapshots[-1],
        "seq_len": int(samples.ids.shape[1]),
        "batch_size": taylor.batch_size,
        "samples_at_once": room.size,
        "text": samples.digest,
        "forward_tokens": math.ceil(workers.total(verdicts.forward) / layers) + prior_tokens,
        "prior_tokens": prior_tokens,
        "backward_tokens": math.ceil(workers.total(verdicts.backward) / layers),
        "mean_loss": float(batch_losses.mean()) if len(batch_losses) else None,
        "skipped_batches": sorted(parts[-1].skipped, key=lambda skip: skip["batch"]),
        "workers": workers.size,
        "segments": len(parts),
        "seconds": time.perf_counter() - started,
    }
    rows = [part.statistics for part in parts if part.statistics is not None]
    gates = [part.gate for part in parts if part.gate is not None]
    return Capture(
        level=level,
        snapshots=tuple(snapshots),
        scores={key: torch.cat([part.scores[key] for part in parts]) for key in parts[0].scores},
        tensors=tuple(tensor for part in parts for tensor in part.tensors),
        batch_statistics=torch.cat(rows, 1) if rows else torch.zeros(0, 0, len(STATISTICS)),
        accumulated_statistics={
            count: torch.cat([part.accumulated[count] for part in parts if part.accumulated])
            for count in next((part.accumulated for part in parts if part.accumulated), {})
        },
        prior_loss=loss,
        prior_cosine=cosine,
        prior_gate=torch.stack(gates).sum(0) if gates else None,
        facts=facts,
    )


def number_of_segments(loaded: LoadedModel, config: CaptureConfig, level: Level) -> int:
    """How many walks to make: one where nothing as large as the weights is accumulated."""
    large = level.weight_gradients
    if config.segments is not None:
        return config.segments if large or level == Level.CURVATURE else 1
    if not large:
        return 1
    modules = (
        linear(layer, projection)
        for layer in loaded.adapter.decoder_layers(loaded.model)
        for projection in loaded.adapter.projections
    )
    weights = sum(module.weight.numel() for module in modules if module is not None)
    return AUTO_SEGMENTS if 4 * weights > AUTO_BYTES else 1


def _walks(task: _Task, verdicts: Verdicts, count: int) -> list[_Part] | None:
    """One walk per segment, lowest layers first in the result; None when a batch was disputed."""
    segments = cut(len(task.loaded.layout.layers), count)
    parts: list[_Part] = []
    steps = task.snapshots[-1] * len(segments) if task.level > Level.WEIGHTS else 0
    inner = (s.start for s in segments if not s.top and not s.bottom)  # the bottom starts from ids
    label = "capture" if len(segments) == 1 else f"capture, {len(segments)} segments"
    with Bar(label, steps, show=task.progress) as bar, closing(Borders(inner)) as borders:
        for segment in segments:
            part = _walk(task, segment, borders, verdicts, bar)
            if part is None:
                return None
            parts.insert(0, part)
    return parts


def _walk(task: _Task, segment: Segment, borders: Borders, verdicts: Verdicts, bar: Bar) -> _Part | None:
    """Go over all samples for one segment; None when a batch was disputed. Its accumulators are gone on return."""
    walk = CalibrationPass(
        task.loaded,
        task.config,
        task.level,
        task.estimators,
        segment=segment,
        borders=borders,
        verdicts=verdicts,
        workers=task.workers,
        room=task.room,
    )
    try:
        return _accumulated(task, walk, bar)
    finally:
        walk.close()


def _accumulated(task: _Task, walk: CalibrationPass, bar: Bar) -> _Part | None:
    """Every batch, and what is to be known at every snapshot and at the end; None when a batch was disputed."""
    part, workers, tally = _Part(), task.workers, walk.tally
    bounds = batch_bounds(task.batch_size, task.snapshots) if task.level > Level.WEIGHTS else []
    together, begin = Together(walk), 0
    for end in task.snapshots:
        group = [(number, rows) for number, rows in enumerate(bounds) if begin < rows[1] <= end]
        own = [_batch(task, number, slice(*rows)) for number, rows in group if workers.mine(number)]
        for done in together.run(own):
            bar.advance(done)
        bar.advance(sum(stop - start for number, (start, stop) in group if not workers.mine(number)))
        begin = end
        if not bounds:
            continue
        if workers.total(tally.disputed):
            return None
        if workers.total(len(tally.numbers)) == 0:
            where = workers.gather(tally.skipped)[0]["where"]
            raise NumericsError(
                f"none of the first {end} calibration samples gave a finite gradient ({where}). "
                "Look at the model's weights, or use model.dtype=bfloat16 or float32"
            )
        found, statistics = walk.snapshot()
        for name, value in found.items():
            estimator, structure = name.split("/")
            part.scores[f"{estimator}/{end}/{structure}"] = value
        if statistics is not None:
            part.accumulated[end] = statistics
    if task.level >= Level.GATE and "gate" in task.config.priors:
        sizes = {number: len(losses) for number, losses in tally.by_number(tally.losses).items()}
        part.gate = gate_prior(walk.recorder.sites, sizes, workers, len(task.loaded.layout.layers))
    if walk.folder is not None and walk.folder.tracked:
        part.tensors = tuple((t.layer, t.name, t.parameter.numel()) for t in walk.folder.tracked)
        part.statistics = workers.gather_rows({number: row[None] for number, row in tally.statistics.items()})
    part.losses = workers.gather_rows(tally.by_number([row.double().cpu() for row in tally.losses]))
    part.skipped = workers.gather(tally.skipped)
    return part


def _batch(task: _Task, number: int, rows: slice) -> Batch:
    """One batch, its ids on the model's device."""
    return Batch(number, task.samples.ids[rows].to(task.loaded.device), task.samples.mask(rows))
