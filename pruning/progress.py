"""A progress bar on a terminal, nothing anywhere else."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Bar:
    """Counts work done, with rate and remaining time, on standard error."""

    def __init__(self, label: str, total: int, *, show: bool | None = None) -> None:
        visible = sys.stderr.isatty() and show is not False
        self._bar = tqdm(total=total, desc=label, disable=not visible, leave=False, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, count: int = 1) -> None:
        """Record `count` more pieces as done."""
        self._bar.update(count)
