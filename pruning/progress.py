"""A progress bar on a terminal and in a notebook, nothing anywhere else."""

import sys
import time
from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

EVERY = 0.1
"""Seconds between two drawings; they are drawn as work is recorded, so that no thread disturbs a measurement."""


class _Rate(ProgressColumn):
    """Pieces per second, lately."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.2f}/s" if speed < 10 else f"{speed:.0f}/s")


class Bar:
    """Counts work done, with rate and remaining time, on standard error; one within another stands below it."""

    _screen: ClassVar[Progress | None] = None
    """What is on the terminal now."""

    def __init__(self, label: str, total: int, *, show: bool | None = None) -> None:
        self._label, self._total = label, total
        self._visible = (sys.stderr.isatty() or "ipykernel" in sys.modules) and show is not False
        self._drawn = 0.0

    def __enter__(self) -> Self:
        if self._visible:
            self._outer = Bar._screen
            self._progress = self._outer or _screen()
            self._task = self._progress.add_task(self._label, total=self._total)
            if self._outer is None:
                Bar._screen = self._progress
                self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._visible:
            self._progress.remove_task(self._task)
            if self._outer is None:
                Bar._screen = None
                self._progress.stop()

    def advance(self, count: int = 1) -> None:
        """Record `count` more pieces as done."""
        if not self._visible:
            return
        self._progress.advance(self._task, count)
        if time.monotonic() - self._drawn >= EVERY:
            self._progress.refresh()
            self._drawn = time.monotonic()


def _screen() -> Progress:
    """An empty display that leaves nothing behind."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    return Progress(
        *columns, console=Console(stderr=True), transient=True, auto_refresh=False,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
