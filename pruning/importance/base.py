"""The table of importance estimators."""

from secateur.pruning.capture.views import Estimator
from secateur.pruning.errors import ConfigError

ESTIMATORS: dict[str, Estimator] = {}


def register(item: Estimator) -> Estimator:
    """Add an estimator to the table."""
    if item.name in ESTIMATORS:
        raise ValueError(f"two estimators are called {item.name}")
    ESTIMATORS[item.name] = item
    return item


def estimator(name: str) -> Estimator:
    """Look an estimator up.

    Raises:
        ConfigError: Naming those that exist.
    """
    if name not in ESTIMATORS:
        raise ConfigError(f"method.estimator={name}: unknown; estimators: {', '.join(sorted(ESTIMATORS))}")
    return ESTIMATORS[name]
