"""From a config to a smaller model: the main path, one step a line.

PruneConfig -> (model, adapter) -> samples [N, T] -> Capture -> scores per unit -> PruningPlan -> smaller model
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from pruning.allocation import make_plan
from pruning.calibration import Samples, load_samples
from pruning.capture.cache import CaptureCache
from pruning.capture.passes import run_capture
from pruning.capture.result import Capture
from pruning.capture.views import Level
from pruning.capture.workers import Workers
from pruning.config import PruneConfig, capture_identity
from pruning.errors import ConfigError, ModelError, NumericsError
from pruning.files import digest
from pruning.identity import calibration_fingerprint
from pruning.importance import ESTIMATORS, estimator
from pruning.importance.scores import Scores, final_scores, needs_capture
from pruning.models.adapter import STRUCTURES
from pruning.models.loading import LoadedModel, load, outline, resolve_device
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
    _finite(scores)
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


def check(config: PruneConfig, exclude: frozenset[str] = frozenset()) -> None:
    """Refuse what can be known to fail before any weight is loaded.

    Raises:
        SecateurError: Unknown family, missing modules or device, too little text, or a budget that cannot be met.
    """
    resolve_device(config.device)
    model = outline(config.model)
    flat = Scores({s: tuple(np.zeros(layer.units(s)) for layer in model.layout.layers) for s in STRUCTURES})
    make_plan(flat, model.layout, config.method, config.budget, config.guard, model.fingerprint)
    if needs_capture(config.method):
        _samples(config, model, exclude)


def _samples(config: PruneConfig, loaded: LoadedModel, exclude: frozenset[str]) -> Samples:
    """The calibration samples, which the model must be able to read."""
    context = getattr(cast("Any", loaded.model).config, "max_position_embeddings", None)
    if context is not None and config.taylor.seq_len > context:
        raise ConfigError(
            f"taylor.seq_len={config.taylor.seq_len} is longer than the model's context of {context} tokens; "
            "ask for less"
        )
    samples = load_samples(config.calibration, config.taylor, loaded.tokenizer, _cache(config), exclude)
    rows = cast("Any", loaded.model).get_input_embeddings().weight.shape[0]
    if int(samples.ids.max()) >= rows:
        raise ModelError(
            f"model.path={config.model.path}: its tokenizer gives token {int(samples.ids.max())}, its embedding "
            f"has {rows} rows. The tokenizer is another model's: copy the folder again"
        )
    return samples


def _finite(scores: Scores) -> None:
    """Refuse to rank units by NaN or infinite scores."""
    for structure, layers in scores.units.items():
        for layer, values in enumerate(layers):
            if not np.isfinite(values).all():
                raise NumericsError(
                    f"the scores of layer {layer}, {structure}, are NaN or infinite: its weights or activations are. "
                    "Look at the model, or use model.dtype=bfloat16 or float32"
                )


def _cache(config: PruneConfig) -> Path:
    return Path(config.out) / "cache"


def obtain_capture(config: PruneConfig, loaded: LoadedModel, exclude: frozenset[str]) -> tuple[Capture, bool]:
    """The capture that a run needs: from the cache, or one pass over the calibration text.

    Returns:
        The capture and whether it was reused.
    """
    samples = _samples(config, loaded, exclude)
    cache = CaptureCache(_cache(config) / "captures" / capture_key(config, loaded, exclude))
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
    """Sample counts that a capture serves: the one asked for, its half and quarter, and the configured ones.

    A count that ends within a batch gets a pass of its own: here it would change the batches behind it.
    """
    count, batch = config.taylor.num_samples, config.taylor.batch_size
    asked = {n for n in config.capture.snapshots if 0 < n < count}
    whole = {n for n in asked if n % batch == 0}
    if asked != whole:
        log.warning(
            "no snapshot at %s samples: not a multiple of taylor.batch_size=%d", sorted(asked - whole), batch
        )
    return sorted({count} | whole | {count // part for part in (2, 4) if count % (part * batch) == 0})


def _priors(config: PruneConfig) -> tuple[Any, ...]:
    """Priors to measure: the configured ones, and the one that the method needs."""
    kinds = set(config.capture.priors) | ({config.method.prior} - {"none"})
    return tuple(kind for kind in ("loss", "cosine", "gate") if kind in kinds)


def capture_key(config: PruneConfig, loaded: LoadedModel, exclude: frozenset[str]) -> str:
    """Digest of all that decides a capture but the number of samples: contents count, not where they lie.

    The text enters by its source and its first sample: prefixes of one text are one text.
    """
    one = config.taylor.model_copy(update={"num_samples": 1})
    first = load_samples(config.calibration, one, loaded.tokenizer, _cache(config), exclude)
    places = {
        "model": config.model.model_copy(update={"path": "fingerprint"}),
        "calibration": config.calibration.model_copy(update={"path": "fingerprint"}),
    }
    return digest(
        {
            **capture_identity(config.model_copy(update=places)),
            "fingerprint": loaded.fingerprint,
            "text": [calibration_fingerprint(config.calibration), first.digest, first.left_out],
        }
    )


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
