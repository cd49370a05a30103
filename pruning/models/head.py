"""The output head of a model, and what the model does to the logits behind it.

Shapes: R rows, D hidden, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Head:
    """From hidden states behind the last norm [R, D] to logits [R, V].

    Attributes:
        module: The linear map.
        factor: On the logits.
        softcap: c of logits <- c tanh(logits / c), behind the factor; None for none.
    """

    module: Any
    factor: float = 1.0
    softcap: float | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing is done to the map's output."""
        return self.factor == 1.0 and self.softcap is None

    def bend(self, logits: torch.Tensor) -> torch.Tensor:
        """The model's logits from those of the map."""
        if self.factor != 1.0:
            logits = logits * self.factor
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def unbend(self, slope: torch.Tensor, bent: torch.Tensor) -> torch.Tensor:
        """The slope at the map's output, from the slope at the model's logits and these logits themselves."""
        if self.softcap is not None:
            slope = slope * (1 - (bent / self.softcap).square())
        return slope * self.factor if self.factor != 1.0 else slope

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, in the dtype of the map."""
        return self.bend(self.module(hidden))
