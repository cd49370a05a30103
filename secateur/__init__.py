"""Structured-pruning experiments on large language models, from Python.

`prune` is the whole way; `load`, `capture`, `scores`, `plan`, `cut` and `evaluate` are its steps; `runs` and `report`
read what runs have left. Nothing is imported before it is asked for (docs/api.md).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.api import Pruned, prune
    from secateur.api_steps import capture, cut, evaluate, load, plan, report, runs, scores
    from secateur.eval.fast_lm import FastLM
    from secateur.pruning.errors import SecateurError

__version__ = "0.1.0"
__all__ = [
    "FastLM",
    "Pruned",
    "SecateurError",
    "__version__",
    "capture",
    "cut",
    "evaluate",
    "load",
    "plan",
    "prune",
    "report",
    "runs",
    "scores",
]
_HOMES = {
    "FastLM": "eval.fast_lm",
    "Pruned": "api",
    "SecateurError": "pruning.errors",
    "capture": "api_steps",
    "cut": "api_steps",
    "evaluate": "api_steps",
    "load": "api_steps",
    "plan": "api_steps",
    "prune": "api",
    "report": "api_steps",
    "runs": "api_steps",
    "scores": "api_steps",
}
"""Which module below this package a name comes from."""


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    return getattr(importlib.import_module(f"secateur.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return sorted({*globals(), *__all__})
