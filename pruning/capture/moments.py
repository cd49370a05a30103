"""Moments of gradients, and the statistics that follow from them; sums are float64 and do not overflow.

Shapes: P tracked tensors.
"""

import torch

from secateur.pruning.capture.views import row_chunks

STATISTICS = ("mean_abs", "std", "l2", "max", "min")
"""Per tensor: mean of abs(g), standard deviation, L2 norm, largest and smallest value."""


def statistics(moments: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """From moments (sum abs, sum, sum of squares, max, min) of `count` numbers to `STATISTICS`. float64 [..., 5]."""
    absolute, total, squares, largest, smallest = moments.unbind(-1)
    variance = (squares / count - (total / count) ** 2).clamp(min=0)
    return torch.stack([absolute / count, variance.sqrt(), squares.sqrt(), largest, smallest], -1)


def moment_statistics(gradient: torch.Tensor) -> torch.Tensor:
    """`STATISTICS` of one tensor, float64 [5]."""
    return statistics(moments_of(gradient).cpu(), torch.tensor(gradient.numel(), dtype=torch.float64))


def powers(scale: float) -> torch.Tensor:
    """What each moment has to be divided by when the gradient carries the factor `scale`."""
    return torch.tensor([scale, scale, scale**2, scale, scale], dtype=torch.float64)


def moments_of(gradient: torch.Tensor) -> torch.Tensor:
    """Sum abs, sum, sum of squares, max, min of a tensor; float64 [5]; never infinite by overflow."""
    matrix = gradient if gradient.dim() == 2 else gradient[None]
    return combine(torch.stack([chunk_moments(matrix[rows]) for rows in row_chunks(matrix)]))


def chunk_moments(chunk: torch.Tensor) -> torch.Tensor:
    """`moments_of` a tensor that is small enough to be worked on at once."""
    wide = chunk if chunk.dtype == torch.float64 else chunk.float()
    smallest, largest = wide.aminmax()
    norm = torch.linalg.vector_norm(wide, dtype=torch.float64 if wide.dtype == torch.float64 else None)
    absolute = torch.linalg.vector_norm(wide, ord=1)
    values = torch.stack([absolute, wide.sum(), norm, largest, smallest]).double()
    if chunk.dtype in (torch.bfloat16, torch.float32) and not bool(torch.isfinite(values).all()):
        exact = chunk.double()
        values = torch.stack(
            [exact.abs().sum(), exact.sum(), torch.linalg.vector_norm(exact), exact.max(), exact.min()]
        )
    values[2] = values[2] ** 2
    return values


def combine(parts: torch.Tensor) -> torch.Tensor:
    """Moments of a whole from the moments [n, 5] of its parts."""
    return torch.cat([parts[:, :3].sum(0), parts[:, 3].max()[None], parts[:, 4].min()[None]])


def layer_statistics(tensors: torch.Tensor, sizes: list[int]) -> dict[str, float]:
    """Statistics of several tensors taken together, weighted by size.

    Args:
        tensors: float64 [P, 5], `STATISTICS` of each tensor.
        sizes: Elements of each tensor.

    Returns:
        mean_abs, std, l2, max, min of all elements as one sample (std about the common mean is bounded below by
        the pooled one; the pooled one is given).
    """
    weights = torch.tensor(sizes, dtype=torch.float64)
    weights = weights / weights.sum()
    return {
        "mean_abs": float((tensors[:, 0] * weights).sum()),
        "std": float((tensors[:, 1].square() * weights).sum().sqrt()),
        "l2": float(tensors[:, 2].square().sum().sqrt()),
        "max": float(tensors[:, 3].max()),
        "min": float(tensors[:, 4].min()),
    }
