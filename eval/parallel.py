"""Several processes, one evaluation: who computes what, and how the pieces come together.

Every process knows all requests and all windows, computes its share, and ends with everybody's results, so
that each of them could write the record; only rank 0 does. Started by `accelerate launch` or `torchrun`, or
by anything that sets up `torch.distributed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """This process among those that evaluate together."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0


def world() -> World:
    """The processes of `torch.distributed`, or this one alone."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


def add_up(values: np.ndarray) -> np.ndarray:
    """Sum a float64 array over all processes; each gets the result. Exact where all but one hold zeros."""
    if world().size == 1:
        return values
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(device)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def barrier() -> None:
    """Wait for all processes."""
    if world().size > 1:
        dist.barrier()


def shares(costs: Sequence[float], size: int) -> list[list[int]]:
    """Split pieces among processes by cost: longest first, each to the one with the least so far.

    Graham, Bounds on Multiprocessing Timing Anomalies (1969): at most 4/3 of the best possible longest share.

    Returns:
        For each process, the indices of its pieces in ascending order.
    """
    loads = [0.0] * size
    parts: list[list[int]] = [[] for _ in range(size)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = min(range(size), key=lambda r: (loads[r], r))
        loads[rank] += costs[index]
        parts[rank].append(index)
    return [sorted(part) for part in parts]
