"""FlexAttention for the tree mask: no padding of trees, no dense scores, one compiled kernel for every layer.

Lowering FlexAttention fixes the number of heads, and pruned layers differ in it. So KV groups become the batch, which
is a mere size of the grid; what remains fixed, query heads per group and head width, is the same in all layers. A batch
of one is a graph of its own, so that a model has at most two. A thread compiles them while requests are tokenised.

T tokens of a pack, H query heads, K KV groups, G = H / K query heads per group, d head width.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from secateur.pruning.models.adapter import family_of
from secateur.pruning.models.layout import heads_of

BLOCK = 128
LEAST = 2 * BLOCK
"""Shortest sequence that the kernel is given; a single block would be another graph."""


def available(device: torch.device) -> bool:
    """Whether this device has a compiled FlexAttention worth its compilation."""
    if device.type != "cuda":
        return False
    from torch.utils._triton import has_triton

    return bool(has_triton())


@lru_cache(maxsize=1)
def compiled() -> Any:
    """The compiled kernel; lengths and KV groups are dynamic. Too many graphs are an error, not a slow way out."""
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: BlockMask, scaling: float | None
) -> torch.Tensor:
    """Attention of one layer over a pack.

    Args:
        query: [1, H, T, d].
        key: [1, K, T, d].
        value: [1, K, T, d].
        mask: From `tree_mask`, of the same T.
        scaling: Factor on the scores; d ** -0.5 by default.

    Returns:
        [1, T, H, d].
    """
    groups, tokens, width = key.shape[1:]
    missing = max(0, LEAST - tokens)
    folded = [
        F.pad(part[0].unflatten(0, (groups, -1)), (0, 0, 0, missing)).contiguous()  # [K, G or 1, T, d]
        for part in (query, key, value)
    ]
    scale = width**-0.5 if scaling is None else scaling
    found = compiled()(*folded, block_mask=mask, scale=scale, enable_gqa=True)
    return found[:, :, :tokens].permute(2, 0, 1, 3).reshape(1, tokens, -1, width)


def tree_mask(ends: torch.Tensor, positions: torch.Tensor, window: int | None) -> BlockMask:
    """Mask of a pack: query i sees key j when j <= i < ends[j] and, with a window, position[i] - position[j] < window.

    With and without window it is one function, so that both share a kernel. Padding sees itself.
    """
    tokens, device = len(ends), ends.device
    missing = max(0, LEAST - tokens)
    ends = torch.cat([ends, torch.arange(tokens + 1, tokens + missing + 1, device=device).to(ends)])
    positions = F.pad(positions, (0, missing))
    oldest = torch.full_like(positions, -1) if window is None else positions - window

    def visible(_b: Any, _h: Any, query: Any, key: Any) -> Any:
        return (key <= query) & (query < ends[key]) & (positions[key] > oldest[query])

    return create_block_mask(visible, None, None, len(ends), len(ends), device=str(device))


@dataclass(frozen=True)
class Kernel:
    """What a compiled graph is fixed to: G, d, the factor on the scores, whether there is a single KV group."""

    heads: int
    width: int
    scaling: float
    single: bool


def kernels(model: torch.nn.Module) -> set[Kernel]:
    """The graphs that a model's attention layers need."""
    family = family_of(model)
    try:
        layers = family.decoder_layers(model)
    except (AttributeError, AssertionError):  # a layout that nobody has described: compiled when first used
        return set()
    found = [heads_of(layer, family) for layer in layers]
    return {Kernel(each.queries, each.width, each.scaling, each.groups == 1) for each in found if each}


def warm_up(model: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> "Future[None]":
    """Compile a model's graphs in a thread of its own."""
    wanted = kernels(model)
    pool = ThreadPoolExecutor(1, thread_name_prefix="compile-attention")
    future = pool.submit(_compile, wanted, device, dtype)
    pool.shutdown(wait=False)
    return future


@torch.inference_mode()
def _compile(wanted: set[Kernel], device: torch.device, dtype: torch.dtype) -> None:
    """Call the kernel once per graph. All sizes differ from one another: equal ones would be taken for the same."""
    for kernel in sorted(wanted, key=lambda kernel: kernel.single):
        groups, blocks = [n for n in (3, 5, 7, 9) if n not in (kernel.heads, kernel.width)][:2]
        groups = 1 if kernel.single else groups
        steps = torch.arange(blocks * BLOCK, device=device)
        mask = tree_mask(torch.full_like(steps, len(steps)), steps, None)
        query, key = (
            torch.zeros(1, groups * heads, len(steps), kernel.width, device=device, dtype=dtype)
            for heads in (kernel.heads, 1)
        )
        attend(query, key, key, mask, kernel.scaling)
