"""Into how many cuts a budget is divided, and how scores of a partly pruned model read in the dense model's units."""

from collections.abc import Mapping
from itertools import accumulate, repeat

import numpy as np

from secateur.pruning.config_method import ScheduleConfig
from secateur.pruning.importance.scores import Scores
from secateur.pruning.models.adapter import Structure
from secateur.pruning.plan import PruningPlan

CLOSE = 1e-9
"""Shares of parameters that differ by less are the same."""


def ratios(schedule: ScheduleConfig, target: float) -> tuple[float, ...]:
    """Cumulative budget ratios of the cuts, ascending; the last one is `target`.

    With `step` the first ratios do not depend on the target: a trajectory to 30 % passes through 10 % and 20 %.
    """
    if schedule.kind == "oneshot" or target == 0:
        return (target,)
    if schedule.steps is not None:
        sizes = [schedule.growth**k for k in range(schedule.steps)]
        return (*(round(target * part / sum(sizes), 12) for part in list(accumulate(sizes))[:-1]), target)
    assert schedule.step is not None
    found: list[float] = []
    size, done = schedule.step, schedule.step
    for _ in repeat(None, 10_000):
        if done >= target - CLOSE:
            break
        found.append(round(done, 12))
        size *= schedule.growth
        done += size
    return (*found, target)


def in_dense_units(scores: Scores, plan: PruningPlan) -> Scores:
    """Scores of a model that `plan` has cut, spread over the dense model's units; what is gone gets minus infinity."""
    alive = [i for i, layer in enumerate(plan.layers) if layer.kept_kv_groups or layer.kept_channels]

    def spread(table: Mapping[Structure, tuple[np.ndarray, ...]]) -> dict[Structure, tuple[np.ndarray, ...]]:
        return {s: _spread(values, plan, alive, s) for s, values in table.items()}

    return Scores(spread(scores.units), spread(scores.base))


def _spread(
    values: tuple[np.ndarray, ...], plan: PruningPlan, alive: list[int], structure: Structure
) -> tuple[np.ndarray, ...]:
    result = [np.full(layer.units(structure), -np.inf) for layer in plan.layers]
    for index, part in zip(alive, values, strict=True):
        result[index][list(plan.layers[index].kept(structure))] = part
    return tuple(result)
