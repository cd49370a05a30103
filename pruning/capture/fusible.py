"""Where the fused kernels can be used."""

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

import torch

DEVICES = ("cuda", "meta")
"""ROCm calls itself `cuda` too; on `meta`, only shapes are worked out."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@cache
def triton_is_here() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def fusible(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether there are any, and all lie on one accelerator, without gaps, in a dtype that the kernels read."""
    every = list(tensors)
    return (
        bool(every)
        and len({tensor.device for tensor in every}) == 1
        and all(
            tensor.device.type in DEVICES and tensor.dtype in DTYPES and tensor.is_contiguous()
            for tensor in every
        )
        and triton_is_here()
    )
