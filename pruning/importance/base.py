"""The table of importance estimators."""

from collections.abc import Generator
from contextlib import contextmanager

from secateur.pruning.capture.views import Estimator
from secateur.pruning.errors import ConfigError
from secateur.pruning.levels import LENT

ESTIMATORS: dict[str, Estimator] = {}


def register(item: Estimator) -> Estimator:
    """Add an estimator to the table."""
    if item.name in ESTIMATORS:
        raise ValueError(f"two estimators are called {item.name}")
    ESTIMATORS[item.name] = item
    return item


@contextmanager
def lent(item: Estimator) -> Generator[None]:
    """Have an estimator in the table for the length of a `with`: a function of a caller's own.

    Raises:
        ConfigError: An estimator of this name exists.
    """
    if item.name in ESTIMATORS:
        raise ConfigError(
            f"method={item.name}: an estimator of this name exists; call the function something else"
        )
    ESTIMATORS[item.name], LENT[item.name] = item, item.level
    try:
        yield
    finally:
        del ESTIMATORS[item.name], LENT[item.name]


def estimator(name: str) -> Estimator:
    """Look an estimator up.

    Raises:
        ConfigError: Naming those that exist.
    """
    if name not in ESTIMATORS:
        raise ConfigError(f"method.estimator={name}: unknown; estimators: {', '.join(sorted(ESTIMATORS))}")
    return ESTIMATORS[name]
