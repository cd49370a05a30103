"""How close pruned models come to their FLOP ratio in prefill: `python -m secateur.eval.speed.bench_pruned`.

A Llama of 61 M random parameters, cut by 20 % and 50 % with whole blocks removed, against the dense one in one random
order. Quote the ratios, not the times.
"""

import random
from statistics import median
from typing import Any

import torch

from secateur.eval.bench_setup import Shape
from secateur.eval.speed.bounds import prefill_flops
from secateur.eval.speed.journal import Facts
from secateur.eval.speed.models import facts_of
from secateur.eval.speed.timing import make_cache, prompt, timed_pass
from secateur.pruning.models.adapter import STRUCTURES, Structure, adapter_for
from secateur.pruning.models.layout import Layout, read_layout
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.plan import LayerPlan, PruningPlan
from secateur.pruning.surgery import prune

SHAPE = Shape("61 M parameters", vocabulary=8192, hidden=640, channels=1792, layers=10, heads=10, kv_heads=10)
PROMPT = 256
SHARES = (0.2, 0.5)


def build() -> Any:
    """A Llama with random weights, float32."""
    return SHAPE.build().requires_grad_(requires_grad=False)


def block_plan(layout: Layout, share: float) -> PruningPlan:
    """Remove whole blocks, every other one from the back, until the budget; the rest in channels of what is left."""
    target = round(share * layout.total_parameters)
    removed = 0
    blocks: list[tuple[int, Structure]] = [
        (i, s) for i in range(len(layout.layers) - 2, 0, -1) for s in STRUCTURES
    ]
    gone: set[tuple[int, Structure]] = set()
    for index, structure in blocks[::2] + blocks[1::2]:
        layer = layout.layers[index]
        price = layer.units(structure) * layer.cost(structure) + layer.fixed(structure)
        if removed + price <= target:
            gone.add((index, structure))
            removed += price
    first = layout.layers[0]
    narrower = min(first.channels - 64, (target - removed) // first.channel_cost)
    removed += narrower * first.channel_cost
    plans: list[LayerPlan] = []
    for index, layer in enumerate(layout.layers):
        groups = 0 if (index, "attention") in gone else layer.kv_groups
        channels = 0 if (index, "mlp") in gone else layer.channels - (narrower if index == 0 else 0)
        plans.append(LayerPlan(layer.kv_groups, layer.channels, tuple(range(groups)), tuple(range(channels))))
    return PruningPlan(
        tuple(plans), "random", target, removed, layout.total_parameters, layout.decoder_parameters
    )


def cut(share: float) -> tuple[Any, Facts]:
    """The model without `share` of its parameters, and what it costs."""
    model = build()
    adapter = adapter_for("llama")
    plan = block_plan(read_layout(model, adapter), share)
    if plan.removed:
        prune(model, adapter, plan)
    layout = read_layout(model, adapter)
    loaded = LoadedModel(model, None, adapter, layout, "random", torch.device("cpu"), None)
    return model, facts_of(loaded, plan, 0.0)


def compare(repetitions: int = 9, length: int = PROMPT) -> dict[float, tuple[float, float, float]]:
    """Per share: parameters removed (share), prefill speed-up over dense, FLOP ratio."""
    models = {share: cut(share) for share in (0.0, *SHARES)}
    seconds: dict[float, list[float]] = {share: [] for share in models}
    ids = prompt(SHAPE.vocabulary, 1, length, torch.device("cpu"))
    dice = random.Random(0)
    for number in range(repetitions + 1):
        for share in dice.sample(list(models), len(models)):
            model = models[share][0]
            timed = timed_pass(model, ids, 0, make_cache(model.config, "dynamic", length + 1), lambda: None)
            if number:  # the first round warms up
                seconds[share].append(timed.prefill_s)
    dense = models[0.0][1]
    result: dict[float, tuple[float, float, float]] = {}
    for share in SHARES:
        facts = models[share][1]
        # passes of one round are neighbours in time: a busy moment meets both sides of a ratio
        speedup = median(a / b for a, b in zip(seconds[0.0], seconds[share], strict=True))
        ratio = prefill_flops(dense, 1, length) / prefill_flops(facts, 1, length)
        result[share] = (1 - facts.parameters / dense.parameters, speedup, ratio)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    for removed, speedup, ratio in compare().values():
        share = f"-{removed:.1%} of {build().num_parameters():,} parameters"
        print(f"{share}: prefill of {PROMPT} tokens {speedup:.2f} times as fast, FLOPs allow {ratio:.2f}")
