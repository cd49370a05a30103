"""The calibration text and the capture that a run needs: from the cache, or by one pass.

Shapes: N samples, T tokens.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from secateur.pruning.calibration import Samples, load_samples
from secateur.pruning.capture.cache import CaptureCache
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.run import run_capture
from secateur.pruning.capture.views import Level
from secateur.pruning.capture.workers import Workers
from secateur.pruning.config import PruneConfig, capture_identity
from secateur.pruning.errors import ConfigError, ModelError
from secateur.pruning.files import digest
from secateur.pruning.identity import calibration_fingerprint
from secateur.pruning.importance import ESTIMATORS, estimator
from secateur.pruning.leaks import Excluded
from secateur.pruning.models.loading import LoadedModel

log = logging.getLogger(__name__)


def samples_for(
    config: PruneConfig, loaded: LoadedModel, exclude: Excluded, count: int | None = None
) -> Samples:
    """The calibration samples (`count` of them, or as many as configured), which the model must be able to read.

    Raises:
        ConfigError: They are longer than the model's context.
        ModelError: The tokenizer is another model's.
    """
    context = getattr(cast("Any", loaded.model).config, "max_position_embeddings", None)
    if context is not None and config.taylor.seq_len > context:
        raise ConfigError(
            f"taylor.seq_len={config.taylor.seq_len} is longer than the model's context of {context} tokens; "
            "ask for less"
        )
    size = config.taylor if count is None else config.taylor.model_copy(update={"num_samples": count})
    samples = load_samples(config.calibration, size, loaded.tokenizer, cache_folder(config), exclude)
    rows = cast("Any", loaded.model).get_input_embeddings().weight.shape[0]
    if int(samples.ids.max()) >= rows:
        raise ModelError(
            f"model.path={config.model.path}: its tokenizer gives token {int(samples.ids.max())}, its embedding "
            f"has {rows} rows. The tokenizer is another model's: copy the folder again"
        )
    return samples


def cache_folder(config: PruneConfig) -> Path:
    """Where captures, tokens and stages are shared between runs."""
    return Path(config.out) / "cache"


def obtain_capture(config: PruneConfig, loaded: LoadedModel, exclude: Excluded) -> tuple[Capture, bool]:
    """The capture that a run needs: from the cache, or one pass over the calibration text.

    Returns:
        The capture and whether it was reused.
    """
    samples = samples_for(config, loaded, exclude)
    cache = CaptureCache(cache_folder(config) / "captures" / capture_key(config, loaded, exclude))
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
    dear = estimator(config.method.estimator).level == Level.CURVATURE  # a snapshot inverts every Gram matrix
    parts = () if dear else (2, 4)
    return sorted({count} | whole | {count // part for part in parts if count % (part * batch) == 0})


def _priors(config: PruneConfig) -> tuple[Any, ...]:
    """Priors to measure: the configured ones, and the one that the method needs."""
    kinds = set(config.capture.priors) | ({config.method.prior} - {"none"})
    return tuple(kind for kind in ("loss", "cosine", "gate") if kind in kinds)


def capture_key(config: PruneConfig, loaded: LoadedModel, exclude: Excluded) -> str:
    """Digest of all that decides a capture but the number of samples: contents count, not where they lie.

    The text enters by its source and its first sample: prefixes of one text are one text.
    """
    one = config.taylor.model_copy(update={"num_samples": 1})
    first = load_samples(config.calibration, one, loaded.tokenizer, cache_folder(config), exclude)
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
