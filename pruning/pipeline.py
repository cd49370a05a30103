"""From a config to a smaller model: the main path, one step a line.

PruneConfig -> (model, adapter) -> samples [N, T] -> Capture -> scores per unit -> PruningPlan -> smaller model
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruning.allocation import make_plan
from pruning.calibration import load_samples
from pruning.capture.cache import CaptureCache
from pruning.capture.passes import run_capture
from pruning.capture.result import Capture
from pruning.capture.views import Level
from pruning.capture.workers import Workers
from pruning.config import PruneConfig, capture_identity
from pruning.files import digest
from pruning.importance import ESTIMATORS, estimator
from pruning.importance.scores import final_scores, needs_capture
from pruning.models.loading import LoadedModel, load
from pruning.plan import PruningPlan
from pruning.surgery import prune

log = logging.getLogger(__name__)
Announce = Callable[[str], None]


@dataclass
class Pruned:
    """A pruned model in memory, and how it came about.

    Attributes:
        loaded: The model (now smaller) with tokenizer and adapter; `loaded.layout` is the dense one's.
        plan: What was kept.
        capture: What the calibration pass learned; None for methods that read no text.
        reused: Whether the capture came from the cache.
        seconds: Per stage.
    """

    loaded: LoadedModel
    plan: PruningPlan
    capture: Capture | None
    reused: bool
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    config: PruneConfig,
    *,
    exclude: frozenset[str] = frozenset(),
    plan_path: Path | None = None,
    announce: Announce = lambda stage: None,
) -> Pruned:
    """Prune one model as configured.

    Args:
        config: What to do.
        exclude: Digests of evaluation documents, which calibration must not see.
        plan_path: Where the plan is kept; the extreme layers are thus on disk before the cut.
        announce: Told the name of each stage as it begins.
    """
    clock = _Clock(announce)
    clock.start("load")
    loaded = load(config.model, config.device)
    clock.start("capture")
    capture, reused = (
        obtain_capture(config, loaded, exclude) if needs_capture(config.method) else (None, True)
    )
    clock.start("plan")
    scores = final_scores(
        loaded, capture, config.method, config.taylor.num_samples, config.capture.prior_share, config.seed
    )
    plan = make_plan(scores, loaded.layout, config.method, config.budget, config.guard, loaded.fingerprint)
    if plan_path is not None:
        plan.save(plan_path)
    for index in plan.extreme_layers():
        log.warning(
            "layer %d is cut extremely: MLP %.0f %%, attention %.0f %%",
            index,
            100 * plan.layers[index].mlp_cut,
            100 * plan.layers[index].attention_cut,
        )
    clock.start("surgery")
    if plan.removed:
        prune(loaded.model, loaded.adapter, plan)
    clock.stop()
    log.info("removed %d of %d parameters (%.3f)", plan.removed, plan.total_parameters, plan.ratio)
    return Pruned(loaded, plan, capture, reused, clock.seconds)


def obtain_capture(config: PruneConfig, loaded: LoadedModel, exclude: frozenset[str]) -> tuple[Capture, bool]:
    """The capture that a run needs: from the cache, or one pass over the calibration text.

    Returns:
        The capture and whether it was reused.
    """
    cache_folder = Path(config.out) / "cache"
    samples = load_samples(config.calibration, config.taylor, loaded.tokenizer, cache_folder, exclude)
    key = digest(
        {
            **capture_identity(config),
            "fingerprint": loaded.fingerprint,
            "text": _text_identity(config, loaded, cache_folder, exclude),
        }
    )
    cache = CaptureCache(cache_folder / "captures" / key)
    rule, method, taylor = estimator(config.method.estimator), config.method, config.taylor
    level = Level.SQUARES if config.capture.estimators == "all" else rule.level

    def find() -> Capture | None:
        return cache.find(rule.level, taylor.num_samples, method.prior, config.capture.prior_share)

    def compute() -> Capture:
        asked = config.capture.model_copy(update={"priors": _priors(config)})
        return run_capture(
            loaded,
            samples,
            asked,
            taylor,
            level,
            snapshot_points(config),
            list(ESTIMATORS.values()),
            progress=config.progress,
        )

    workers = Workers()
    if workers.size == 1:
        return cache.get(find, compute)
    return _together(workers, cache, find, compute)


def _together(
    workers: Workers, cache: CaptureCache, find: Callable[[], Capture | None], compute: Callable[[], Capture]
) -> tuple[Capture, bool]:
    """Several processes, one capture: all compute their share, the main one stores it."""
    found = find()
    if workers.total(int(found is None)) == 0:
        assert found is not None
        return found, True
    capture = compute()
    if workers.main:
        cache.put(capture)
    workers.wait()
    return capture, False


def snapshot_points(config: PruneConfig) -> list[int]:
    """Sample counts that a capture serves: the one asked for, its half and quarter, and the configured ones."""
    count = config.taylor.num_samples
    points = {count} | {n for n in config.capture.snapshots if 0 < n <= count}
    points |= {count // part for part in (2, 4) if count % (part * config.taylor.batch_size) == 0}
    return sorted(points)


def _priors(config: PruneConfig) -> tuple[Any, ...]:
    """Priors to measure: the configured ones, and the one that the method needs."""
    kinds = set(config.capture.priors) | ({config.method.prior} - {"none"})
    return tuple(kind for kind in ("loss", "cosine", "gate") if kind in kinds)


def _text_identity(config: PruneConfig, loaded: LoadedModel, cache: Path, exclude: frozenset[str]) -> str:
    """Digest of the first sample and of what was left out: prefixes of one text are one text, whatever their number."""
    one = config.taylor.model_copy(update={"num_samples": 1})
    first = load_samples(config.calibration, one, loaded.tokenizer, cache, exclude)
    return f"{first.digest}-{first.left_out}"


class _Clock:
    """Seconds per stage."""

    def __init__(self, announce: Announce) -> None:
        self.seconds: dict[str, float] = {}
        self._announce = announce
        self._stage = ""
        self._since = 0.0

    def start(self, stage: str) -> None:
        self.stop()
        self._announce(stage)
        self._stage, self._since = stage, time.perf_counter()

    def stop(self) -> None:
        if self._stage:
            self.seconds[self._stage] = time.perf_counter() - self._since
        self._stage = ""
