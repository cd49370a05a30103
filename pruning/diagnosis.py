"""What is unusual about gradients and plan, in words, with the numbers; and the study's summary figures."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from secateur.pruning.models.adapter import STRUCTURES, Structure
from secateur.pruning.plan import PruningPlan

LABELS: dict[Structure, str] = {"attention": "attention", "mlp": "MLP"}
FIGURES = {"mean": "mean_abs", "norm": "l2", "std": "std", "max": "max_abs"}


def gradient_figures(
    layers: Mapping[int, Mapping[str, float]],
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Ratios and ranges over layers of the accumulated gradient (the study's definitions, STUDY.md section 1).

    Returns:
        `grad_{mean,norm,std,max}_ratio` = max over layers / min over layers, `grad_{mean,norm}_range` = max - min;
        and for each that is null the reason.
    """
    names = [f"grad_{name}_ratio" for name in FIGURES] + ["grad_mean_range", "grad_norm_range"]
    if not layers:
        return dict.fromkeys(names), dict.fromkeys(names, "no weight gradients were computed for this method")
    result: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for name, key in FIGURES.items():
        values = [_figure(layer, key) for layer in layers.values()]
        low, high = min(values), max(values)
        if low > 0 and math.isfinite(high):
            result[f"grad_{name}_ratio"] = high / low
        else:
            result[f"grad_{name}_ratio"] = None
            notes[f"grad_{name}_ratio"] = f"smallest value over layers is {low:g}, largest {high:g}"
        if name in ("mean", "norm"):
            result[f"grad_{name}_range"] = high - low
    return result, notes


def diagnose(
    plan: PruningPlan, layers: Mapping[int, Mapping[str, float]], skipped: list[dict[str, Any]]
) -> tuple[str, ...]:
    """Sentences on what a reader should know before trusting the cut."""
    found: list[str] = list(plan.guards)
    found += [
        f"no layer keeps its {LABELS[structure]}"
        + (": the model reads every token by itself" if structure == "attention" else "")
        for structure in STRUCTURES
        if any(layer.units(structure) for layer in plan.layers)
        and not any(layer.kept(structure) for layer in plan.layers)
    ]
    for index in plan.extreme_layers():
        layer = plan.layers[index]
        found.append(
            f"layer {index} is cut extremely: {layer.mlp_cut:.0%} of its MLP channels and "
            f"{layer.attention_cut:.0%} of its KV groups go"
        )
    found += [
        f"calibration batch {batch['batch']} was skipped: {batch['where']} is NaN or infinite"
        for batch in skipped
    ]
    if len(layers) >= 3:
        found += _unusual_gradients(layers)
    return tuple(found)


def _unusual_gradients(layers: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Layers whose mean abs gradient is far from the others' (more than 3 robust deviations in log)."""
    numbers = list(layers)
    values = np.array([_figure(layers[i], "mean_abs") for i in numbers])
    if (values <= 0).any():
        return [
            f"layer {i} has a zero gradient" for i, value in zip(numbers, values, strict=True) if value <= 0
        ]
    logs = np.log(values)
    spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
    found = [
        f"layer {i} has a mean abs gradient of {value:.3g}, {value / np.median(values):.1f} times the median layer's"
        for i, value, distance in zip(numbers, values, np.abs(logs - np.median(logs)), strict=True)
        if spread > 0 and distance > 3 * spread
    ]
    ratio = values.max() / values.min()
    if ratio > 10:
        found.append(
            f"mean abs gradients differ {ratio:.1f}-fold over layers (layer {numbers[int(values.argmin())]} to layer "
            f"{numbers[int(values.argmax())]}): a global ranking compares unlike scales"
        )
    return found


def _figure(layer: Mapping[str, float], key: str) -> float:
    return max(abs(layer["max"]), abs(layer["min"])) if key == "max_abs" else layer[key]
