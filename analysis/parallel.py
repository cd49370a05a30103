"""The same work on many items, by all cores, where the system can fork; one after the other where it cannot."""

import multiprocessing
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_work: Callable[[int], object] | None = None


def fork_map(work: Callable[[int], T], count: int, least: int) -> list[T]:
    """`[work(0), work(1), ...]`, by several processes when there are at least `least` items.

    The processes inherit everything that `work` refers to; only results travel, so `work` may be a closure over
    large data. It must not use threads.
    """
    workers = min(8, os.cpu_count() or 1, count)
    if count < least or workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [work(place) for place in range(count)]
    global _work  # noqa: PLW0603  how the children find it
    _work = work
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of any fork beside threads; ours (of pyarrow, BLAS) hold no lock that `work` takes
            warnings.simplefilter("ignore", DeprecationWarning)
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
                return list(pool.map(_call, range(count)))  # pyright: ignore[reportReturnType]
    finally:
        _work = None


def _call(place: int) -> object:
    assert _work is not None
    return _work(place)
