"""A calibration batch, and what is known and counted of batches.

Shapes: B samples, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Verdicts:
    """What is known of batches, over all segments, and the work that it took.

    Attributes:
        attempt: Batch -> number of the loss scale that it is tried with first; behind the last one: it is skipped.
        problems: Batch -> where its loss or gradient was last not finite.
        forward, backward: Work: tokens times the decoder layers that they went through.
    """

    attempt: dict[int, int] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    forward: int = 0
    backward: int = 0


@dataclass
class Tally:
    """What is counted while the pass runs."""

    text_tokens: int = 0
    numbers: list[int] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    statistics: dict[int, torch.Tensor] = field(default_factory=dict)
    """Of each batch's own gradient, by its number; NaN where batches went together."""
    skipped: list[dict[str, Any]] = field(default_factory=list)
    disputed: int = 0
    """Batches that were fine in the segments above and are not in this one."""

    def by_number(self, batches: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        """What was kept of each batch that counted, by the batch's number."""
        return dict(zip(self.numbers, batches, strict=True))


@dataclass(frozen=True)
class Batch:
    """Samples whose mean loss is formed: ids [B, T], and their mask [B, T] on the host."""

    number: int
    ids: torch.Tensor
    mask: torch.Tensor

    @property
    def targets(self) -> int:
        """Tokens that are predicted."""
        return int((self.mask[:, 1:] & self.mask[:, :-1]).sum())
