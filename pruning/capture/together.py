"""Batches that go through a pass together, as many as there is room for, and what happens when memory runs out."""

from collections import deque
from collections.abc import Generator, Sequence
from itertools import pairwise

from secateur.pruning.capture.passes import CalibrationPass
from secateur.pruning.capture.tally import Batch
from secateur.pruning.capture.views import Level


class Together:
    """Takes batches through a pass."""

    def __init__(self, walk: CalibrationPass) -> None:
        self._walk = walk
        self._alone: set[int] = set()

    def run(self, batches: Sequence[Batch]) -> Generator[int]:
        """Process batches; gives the samples that are done, step by step.

        When memory runs out, what the samples under way have changed is taken back and half as many are tried.
        """
        pending = deque(batches)
        while pending:
            chosen = self._next(pending)
            if self._survives(chosen):
                for _ in chosen:
                    pending.popleft()
                yield sum(len(batch.ids) for batch in chosen)

    def _next(self, pending: Sequence[Batch]) -> list[Batch]:
        """The batches that go together: squares are of each batch's own gradient, loss scales are one for all."""
        walk, chosen = self._walk, [pending[0]]
        if walk.level == Level.SQUARES or walk.is_bad(pending[0].number):
            return chosen
        attempts, left = walk.verdicts.attempt, walk.room.size - len(pending[0].ids)
        for before, batch in pairwise(pending):
            left -= len(batch.ids)
            same = attempts.get(before.number, 0) == attempts.get(batch.number, 0)
            if left < 0 or not same or {before.number, batch.number} & self._alone:
                break
            chosen.append(batch)
        return chosen

    def _survives(self, batches: Sequence[Batch]) -> bool:
        """Whether the batches are dealt with; else they are to be tried again, fewer at once."""
        walk = self._walk
        try:
            if len(batches) == 1:
                walk.batch(batches[0].ids, batches[0].mask, batches[0].number)
            elif not walk.together(batches):
                self._alone.update(batch.number for batch in batches)
                return False
            return True
        except (RuntimeError, MemoryError) as error:
            if not walk.revocable or not walk.room.less(error):
                raise
        walk.take_back(batches)  # behind the handler, whose traceback holds tensors
        return False
