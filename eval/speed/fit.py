"""The largest batch that fits: doubling until memory or the limit says stop."""

from collections.abc import Callable

import psutil
import torch

from secateur.eval.speed.config import BenchConfig
from secateur.eval.speed.models import Ready
from secateur.pruning.memory import Meter

GIB = 2**30
MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError)


def largest_batch(ready: Ready, bench: BenchConfig, passes: Callable[[int], None]) -> tuple[int, str]:
    """The largest power of two that fits, and what stopped it: `memory` or `limit`.

    A batch is tried only when twice the memory that the last one took stays within what is allowed, so that nothing
    is driven into swap.

    Args:
        ready: The model.
        bench: Limits: `fit_limit`, `fit_memory_gib`.
        passes: Runs one pass of the longest cell with a batch.
    """
    allowed = _allowed(ready, bench)
    batch = 0
    size = 1
    while size <= bench.fit_limit:
        meter = Meter(ready.device)
        try:
            passes(size)
        except MEMORY_ERRORS:
            _release()
            break
        batch, size = size, size * 2
        if 2 * meter.peak().growth() > allowed:
            break
    return max(batch, 1), "limit" if size > bench.fit_limit else "memory"


def _allowed(ready: Ready, bench: BenchConfig) -> float:
    """Bytes that a pass may take on top of the weights."""
    weights = ready.facts.weight_bytes
    if bench.fit_memory_gib is not None:
        return bench.fit_memory_gib * GIB - weights
    if ready.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(ready.device)
        return float(free)
    return 0.8 * psutil.virtual_memory().available


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
