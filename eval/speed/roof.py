"""What the machine can do at best: a large matrix product, and reading a large array; the best of several tries."""

import time

import torch

from secateur.eval.speed.journal import Roof
from secateur.eval.speed.timing import synchronise

TRIES = 5


@torch.inference_mode()
def measure_roof(device: torch.device, dtype: torch.dtype) -> Roof:
    """Peak FLOP/s of a square product and bytes/s of a product with one column, which reads every weight once."""
    size = 8192 if device.type == "cuda" else 1536
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    rows = 32_768 if device.type == "cuda" else 12_288
    matrix = torch.ones(rows, 4096, device=device, dtype=dtype)  # beyond the caches
    column = torch.ones(4096, 1, device=device, dtype=dtype)
    product = _best(lambda: a @ b, device)
    reading = _best(lambda: matrix @ column, device)
    return Roof(
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        flops=2.0 * size**3 / product,
        bandwidth=matrix.numel() * matrix.element_size() / reading,
    )


def _best(work: object, device: torch.device) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    assert callable(work)
    work()
    seconds: list[float] = []
    for _ in range(TRIES):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
