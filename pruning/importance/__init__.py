"""Importance estimators: one file each; a file dropped in here is found without another edit."""

import importlib
import pkgutil

from secateur.pruning.importance.base import ESTIMATORS, estimator

_PARTS = {"base", "scores"}

for _module in pkgutil.iter_modules(__path__):
    if _module.name not in _PARTS:
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ESTIMATORS", "estimator"]
