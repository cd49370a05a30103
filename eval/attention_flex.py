"""FlexAttention, compiled once per process: the tree mask without padding or dense scores on CUDA."""

from functools import lru_cache
from typing import Any

import torch


def available(device: torch.device) -> bool:
    """Whether this device has a compiled FlexAttention."""
    if device.type != "cuda":
        return False
    from torch.utils._triton import has_triton

    return bool(has_triton())


@lru_cache(maxsize=1)
def compiled() -> Any:
    """The compiled kernel; lengths are dynamic, since every pack has its own."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)
