"""How many samples go through the device together: estimated at first, halved when memory runs out.

What is computed does not depend on it: means, squares and statistics belong to the batches of `taylor.batch_size`, of
which several go together where results add up, and one goes in pieces where it does not fit.

Shapes: T tokens, D hidden, F features at the input of an output projection.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

import torch

from secateur.pruning.capture.views import Level
from secateur.pruning.config import CaptureConfig, TaylorConfig
from secateur.pruning.memory import available, give_back, out_of_memory
from secateur.pruning.models.adapter import STRUCTURES, linear
from secateur.pruning.models.loading import LoadedModel

log = logging.getLogger(__name__)
Part = TypeVar("Part")

MOST_TOKENS = 2**15
"""More at once gains nothing: a walk over the gradients is below 1 % of the products by then."""
SHARE = 0.8
"""Of the free memory, what the estimate may fill; the rest is for the allocator's gaps and for logits."""


@dataclass
class Room:
    """Samples that go through the device together.

    Attributes:
        size: How many, from now on.
        fixed: Whether it is to stay so.
        halvings: How often memory ran out.
    """

    size: int
    fixed: bool = True
    halvings: int = 0

    def less(self, error: Exception) -> bool:
        """Halve because of an error; False where it is another error, or nothing is left to halve."""
        if self.fixed or self.size == 1 or not out_of_memory(error):
            return False
        log.warning(
            "memory ran out with %d samples at once: %d from now on, with the same results",
            self.size,
            self.size // 2,
        )
        self.size //= 2
        self.halvings += 1
        return True

    def in_parts(self, start: int, stop: int, work: Callable[[slice], Part]) -> list[Part]:
        """What `work` gives for rows `start` to `stop`, as many at once as there is room for; it leaves no trace."""
        found: list[Part] = []
        while start < stop:
            end = min(start + self.size, stop)
            try:
                found.append(work(slice(start, end)))
                start = end
                continue
            except (RuntimeError, MemoryError) as error:
                if not self.less(error):
                    raise
            give_back()  # behind the handler, whose traceback holds tensors
        return found


def room_for(
    loaded: LoadedModel, config: CaptureConfig, taylor: TaylorConfig, level: Level, segments: int
) -> Room:
    """The room that a pass begins with: `capture.batch_size`, or by `auto` what a GPU's free memory is good for.

    On a CPU, over several devices, and for squares of batch gradients `auto` is `taylor.batch_size`.
    """
    if config.batch_size != "auto":
        return Room(config.batch_size)
    batch = taylor.batch_size
    devices = {parameter.device for parameter in loaded.model.parameters()}
    if level == Level.SQUARES or len(devices) > 1 or (free := available(loaded.device)) is None:
        return Room(batch, fixed=False)
    left = SHARE * free - once(loaded, config, level, segments)
    fits = int(left / (taylor.seq_len * per_token(loaded, config, level, segments, taylor.seq_len)))
    most = min(fits, MOST_TOKENS // taylor.seq_len, taylor.num_samples)
    return Room(max(batch, most // batch * batch), fixed=False)


def once(loaded: LoadedModel, config: CaptureConfig, level: Level, segments: int) -> float:
    """Bytes that a pass takes for any number of samples: accumulators, the largest gradient, matrices, logits."""
    widths = [_Widths.of(loaded, index) for index in range(len(loaded.layout.layers))]
    share = 1 / segments
    total = 0.0
    if level.weight_gradients:
        largest = max((w.largest for w in widths), default=0)
        total += 4 * largest + (0 if config.offload else 4 * share * sum(w.weights for w in widths))
    if level == Level.CURVATURE and not config.offload:
        total += 4 * share * sum(w.moments for w in widths)
    return total + 4 * 4 * 256 * loaded.adapter.head(loaded.model).module.weight.shape[0]


def per_token(loaded: LoadedModel, config: CaptureConfig, level: Level, segments: int, length: int) -> float:
    """Bytes that stay alive per token at the peak of a pass: an upper estimate, by the widths of the layers.

    Per layer the backward pass keeps inputs of norms (also in float32), of projections, of the activation and of
    attention; with gradient checkpointing the layer's input, and one layer's all at a time. Eager attention keeps two
    rows of probabilities per head as well.
    """
    item = next(loaded.model.parameters()).dtype.itemsize
    settings: Any = loaded.model.config
    eager = getattr(settings, "_attn_implementation", "") == "eager"
    layers = [_Widths.of(loaded, index) for index in range(len(loaded.layout.layers))]
    kept: list[float] = []
    for w in layers:
        bytes_ = (item * 6 + 4 * 4) * w.hidden + item * (8 * w.queries + 5 * w.channels)
        bytes_ += (item + 8) * w.heads * length if eager else 0
        bytes_ += 4 * (w.queries + w.channels + 2 * w.hidden) if level == Level.CURVATURE else 0
        kept.append(bytes_)
    hidden = max((w.hidden for w in layers), default=0)
    if level < Level.GATE:
        return max(kept, default=0.0)
    alive = sum(sorted(kept, reverse=True)[: ceil(len(kept) / segments)])
    if config.gradient_checkpointing:
        alive = max(kept, default=0.0) + item * hidden * len(kept)
    return alive + (segments + 6) * item * hidden + 8 * hidden


@dataclass(frozen=True)
class _Widths:
    """Sizes of one layer: features, and numbers in weights and in second moments."""

    hidden: int
    queries: int
    heads: int
    channels: int
    weights: int
    largest: int
    moments: int

    @classmethod
    def of(cls, loaded: LoadedModel, index: int) -> "_Widths":
        """Read from the layer's modules; a block that is gone counts as nothing."""
        layer = loaded.adapter.decoder_layers(loaded.model)[index]
        modules = [m for p in loaded.adapter.projections if (m := linear(layer, p)) is not None]
        outputs = {s: linear(layer, loaded.adapter.output(s)) for s in STRUCTURES}
        features = {s: 0 if m is None else m.in_features for s, m in outputs.items()}
        sizes = [m.weight.numel() for m in modules] or [0]
        settings: Any = loaded.model.config
        moments = sum(m.in_features**2 + m.out_features**2 for m in outputs.values() if m is not None)
        return cls(
            int(settings.hidden_size), features["attention"],
            int(settings.num_attention_heads) if features["attention"] else 0,
            features["mlp"], sum(sizes), max(sizes), moments,
        )  # fmt: skip


def no_limit() -> Room:
    """Room for any batch."""
    return Room(torch.iinfo(torch.int64).max)
