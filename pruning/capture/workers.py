"""The processes that share one capture: who does which batch, and how sums come together."""

import atexit
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.distributed

from secateur.pruning.errors import ConfigError

Item = TypeVar("Item")


class Workers:
    """One process, or the ranks of `accelerate launch` / `torchrun`.

    Sums over ranks are taken in the tensor's own dtype; batch k belongs to rank k modulo size.
    """

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = 0
        self._accelerator: Any = None
        if self.size > 1:
            from accelerate import Accelerator

            # without `cpu` accelerate leaves processes on a machine without accelerator alone, each one its own rank 0
            self._accelerator = Accelerator(cpu=not torch.accelerator.is_available())
            atexit.unregister(_leave)
            atexit.register(_leave)
            self.rank = self._accelerator.process_index
            if self._accelerator.num_processes != self.size:
                raise ConfigError(
                    f"WORLD_SIZE={self.size} processes were started, accelerate joins "
                    f"{self._accelerator.num_processes} of them; use torchrun, or accelerate launch --multi_gpu"
                )

    def mine(self, batch: int) -> bool:
        """Whether this process works on a batch."""
        return batch % self.size == self.rank

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over all processes (the tensor itself where there is one)."""
        if self._accelerator is None:
            return tensor
        return self._accelerator.reduce(tensor.to(self._accelerator.device, copy=True), "sum").to(
            tensor.device
        )

    def total(self, number: int) -> int:
        """Sum of a count over all processes."""
        return int(self.sum(torch.tensor(number, dtype=torch.int64)))

    def gather(self, items: list[Item]) -> list[Item]:
        """The items of all processes, on each of them; what they are must survive pickling between processes."""
        if self._accelerator is None:
            return items
        from accelerate.utils import gather_object

        return list(gather_object(items))

    def gather_rows(self, batches: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Rows of all batches of all processes, in batch order; batches are given by their number.

        They are equal but for their first axis.
        """
        everyone = self.gather([(number, batch.cpu().numpy()) for number, batch in batches.items()])
        rows = [torch.from_numpy(batch) for _, batch in sorted(everyone, key=lambda item: item[0])]
        return torch.cat(rows) if rows else torch.zeros(0)

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def _leave() -> None:
    """End the process group while the interpreter still lives; its threads, left to the end, now and then abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
