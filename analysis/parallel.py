"""The same work on many items, by all cores, where the system can fork; one after the other where it cannot."""

import multiprocessing
import os
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_work: Callable[[int], object] | None = None


def fork_map(work: Callable[[int], T], count: int, least: int) -> list[T]:
    """`[work(0), work(1), ...]`, by several processes when there are at least `least` items.

    The processes inherit everything that `work` refers to; only results travel, so `work` may be a closure over
    large data. It must not use threads.
    """
    with forked(work, count, least) as collect:
        return collect()


@contextmanager
def forked(work: Callable[[int], T], count: int, least: int) -> Generator[Callable[[], list[T]]]:
    """`fork_map` that has begun: this process goes on with something else, then calls what it was given."""
    workers = min(8, os.cpu_count() or 1, count)
    if count < least or workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield lambda: [work(place) for place in range(count)]
        return
    global _work  # noqa: PLW0603  how the children find it
    _work = work
    with warnings.catch_warnings():
        # Python 3.12 warns of any fork beside threads; ours (of pyarrow, BLAS) hold no lock that `work` takes
        warnings.simplefilter("ignore", DeprecationWarning)
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))
        results = pool.map(_call, range(count))  # forks here, once for all
    _work = None
    try:
        yield lambda: list(results)  # pyright: ignore[reportReturnType]  what `work` returns has come back
    finally:
        pool.shutdown(cancel_futures=True)


def _call(place: int) -> object:
    assert _work is not None
    return _work(place)
