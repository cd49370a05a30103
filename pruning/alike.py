"""Plans whose layers all keep the same number of units: what stock classes and tensor parallelism can build."""

import numpy as np

from secateur.pruning.config import GuardConfig, MethodConfig
from secateur.pruning.errors import ConfigError
from secateur.pruning.importance.scores import Scores
from secateur.pruning.models.adapter import STRUCTURES, Structure
from secateur.pruning.models.layout import LayerLayout, Layout

Removed = dict[tuple[int, Structure], list[int]]


def cut_alike(
    scores: Scores, layout: Layout, method: MethodConfig, guard: GuardConfig, target: int
) -> tuple[Removed, int]:
    """The lowest-scored units of each layer, equally many in all: which go, and their parameters.

    Of the numbers of KV groups that may go, each with as many channels as the rest of the budget pays for, the one
    whose units have the lowest scores in sum is taken. Units with a score of minus infinity are gone already.

    Raises:
        ConfigError: The layers differ to begin with, or a guard rail treats some of them differently.
    """
    layer = _common(layout)
    for name in ("protect_first", "protect_last"):
        if getattr(guard, name):
            raise ConfigError(f"method.allocation=alike cuts all layers alike; guard.{name} must be 0")
    count = len(layout.layers)
    order = {s: [np.argsort(values, kind="stable") for values in scores.units[s]] for s in STRUCTURES}
    gone = {s: max(int(np.isneginf(values).sum()) for values in scores.units[s]) for s in STRUCTURES}
    best: tuple[bool, float, int] | None = None
    chosen, step = (0, 0), count * layer.channel_cost * guard.round_to
    for groups in range(gone["attention"], _most(layer, "attention", method, guard) + 1):
        left = target / count - groups * layer.group_cost
        channels = _channels(int(left // layer.channel_cost) if layer.channels else 0, layer, method, guard)
        if left < 0 or channels < gone["mlp"]:
            continue
        spent = count * (groups * layer.group_cost + channels * layer.channel_cost)
        numbers: dict[Structure, int] = {"attention": groups, "mlp": channels}
        loss = sum(
            float(np.nan_to_num(values[places[: numbers[s]]], neginf=0.0).sum())
            for s in STRUCTURES
            for values, places in zip(scores.units[s], order[s], strict=True)
        )
        met = target - spent < step
        found = (not met, loss if met else 0.0, -spent)
        if best is None or found < best:
            best, chosen = found, (groups, channels)
    removed: Removed = {}
    for s, n in zip(STRUCTURES, chosen, strict=True):
        for index, places in enumerate(order[s]):
            if n:
                removed[index, s] = [int(unit) for unit in places[:n]]
    return removed, count * (chosen[0] * layer.group_cost + chosen[1] * layer.channel_cost)


def _common(layout: Layout) -> LayerLayout:
    first = layout.layers[0]
    if any(layer != first for layer in layout.layers):
        raise ConfigError(
            "method.allocation=alike: the layers of this model differ already; choose global or uniform"
        )
    return first


def _most(layer: LayerLayout, structure: Structure, method: MethodConfig, guard: GuardConfig) -> int:
    """Units of a block that may go; one always stays, so that no block goes."""
    units = layer.units(structure)
    least = guard.min_kv_groups if structure == "attention" else guard.min_channels
    if method.structures not in ("both", structure) or units == 0:
        return 0
    return max(0, min(units - max(1, min(least, units)), int(guard.max_layer_ratio * units + 1e-9)))


def _channels(wanted: int, layer: LayerLayout, method: MethodConfig, guard: GuardConfig) -> int:
    """At most `wanted` channels, so that what stays is a multiple of `guard.round_to`."""
    count = max(0, min(wanted, _most(layer, "mlp", method, guard)))
    over = (layer.channels - count) % guard.round_to
    return count if not over else max(0, count - (guard.round_to - over))
