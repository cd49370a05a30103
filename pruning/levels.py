"""How much a capture computes, and what each estimator needs. No torch here: planners ask for hundreds of runs."""

import ast
from enum import IntEnum
from functools import cache
from pathlib import Path

ESTIMATORS = Path(__file__).parent / "importance"
LENT: "dict[str, Level]" = {}
"""Estimators that have no file: a caller's own, for the length of one call (`importance.base.lent`)."""


class Level(IntEnum):
    """What a capture has to compute; up to `SQUARES` each level brings the cheaper ones along."""

    WEIGHTS = 0
    """No text at all."""
    ACTIVATIONS = 1
    """Forward passes with hooks on activations."""
    GATE = 2
    """Backward passes through activations only; weights stay frozen."""
    GRADIENTS = 3
    """Weight gradients, folded into float32 accumulators."""
    SQUARES = 4
    """Weight gradients, and their squares per batch."""
    CURVATURE = 5
    """What `GATE` gives, and second moments of activations and slopes at the output projections."""

    def serves(self, need: "Level") -> bool:
        """Whether a capture of this level holds what `need` asks for."""
        return need == self or (need <= Level.GATE if self == Level.CURVATURE else need < self)

    @property
    def weight_gradients(self) -> bool:
        """Whether gradients of weights are folded."""
        return self in (Level.GRADIENTS, Level.SQUARES)


def estimator_names() -> list[str]:
    """Names of the importance estimators: each is a file of `pruning/importance/`."""
    files = {p.stem for p in ESTIMATORS.glob("*.py") if p.stem not in {"__init__", "base", "scores"}}
    return sorted(files | set(LENT))


def level_of(estimator: str) -> Level:
    """The level that an estimator needs."""
    return LENT[estimator] if estimator in LENT else _declared(estimator)


@cache
def _declared(estimator: str) -> Level:
    """The level that an estimator's file declares as `Level.NAME`, read without running the file (it imports torch)."""
    tree = ast.parse((ESTIMATORS / f"{estimator}.py").read_text(encoding="utf-8"))
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Level"
    }
    if len(found) != 1:
        raise ValueError(f"{estimator}.py names {len(found)} levels ({sorted(found)}); it has to name one")
    return Level[found.pop()]
