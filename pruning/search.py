"""Search over the widths of blocks: scores of each block are scaled until the cut model is closest to the dense one.

Every candidate is a factor per block on the scores, so that each plan meets the budget exactly and obeys the guard
rails. Coordinate exchange: one block's factor goes up or down, a better plan stays, the step shrinks when nothing helps
(as in evolutionary allocation: EvoPress, Sieberling et al. 2024, arXiv 2410.14649; here without random populations).
The objective is measured on calibration text that nothing else has seen; a candidate is repaired as the method says
before it is judged. Each value is kept on disk, so that a killed search goes on with the same result.

Shapes: M held-out samples, T tokens, D hidden, V vocabulary.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.pruning.allocation import make_plan
from secateur.pruning.capture.loss import ROWS, next_token_loss
from secateur.pruning.config import PruneConfig
from secateur.pruning.files import digest, read_json, write_json
from secateur.pruning.importance.scores import Scores
from secateur.pruning.leaks import Excluded
from secateur.pruning.models.adapter import STRUCTURES, Structure
from secateur.pruning.models.head import Head
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.obtain import cache_folder, samples_for
from secateur.pruning.plan import PruningPlan
from secateur.pruning.progress import Bar
from secateur.pruning.repair import cut

log = logging.getLogger(__name__)
STEPS = (0.7, 0.35, 0.18)
"""Changes of a factor's logarithm, tried from coarse to fine."""
Factors = dict[tuple[Structure, int], float]


def _named(plan: PruningPlan) -> str:
    """What tells plans of one model apart: the units they keep."""
    return digest([[layer.kept_kv_groups, layer.kept_channels] for layer in plan.layers])


@dataclass(frozen=True)
class Found:
    """Where a search ended: its plan, the objective there and at the start, and what it took."""

    plan: PruningPlan
    start: float
    value: float
    evaluations: int

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {"start": self.start, "value": self.value, "evaluations": self.evaluations}


def exchange(
    judge: Callable[[PruningPlan], float],
    plan_of: Callable[[Factors], PruningPlan],
    blocks: list[Any],
    budget: int,
) -> Found:
    """Coordinate exchange from factors of 1; never ends on a plan that `judge` finds worse than the first.

    Args:
        judge: The objective, lower is better; must give equal plans equal values.
        plan_of: The plan that factors on the blocks' scores lead to.
        blocks: What can be scaled.
        budget: How many different plans may be judged.
    """
    values: dict[str, float] = {}

    def value(plan: PruningPlan) -> float:
        key = _named(plan)
        if key not in values:
            values[key] = judge(plan)
        return values[key]

    factors: Factors = dict.fromkeys(blocks, 1.0)
    best = plan_of(factors)
    start = lowest = value(best)
    for step in STEPS:
        improved = True
        while improved and len(values) < budget:
            improved = False
            for block in blocks:
                for sign in (1.0, -1.0):
                    if len(values) >= budget:
                        break
                    trial = factors | {block: factors[block] * float(np.exp(sign * step))}
                    plan = plan_of(trial)
                    found = value(plan)
                    if found < lowest:
                        factors, best, lowest, improved = trial, plan, found, True
                        break
    return Found(best, start, lowest, len(values))


def search(
    config: PruneConfig, dense: LoadedModel, scores: Scores, exclude: Excluded
) -> tuple[PruningPlan, dict[str, Any]]:
    """The best plan that the budget of evaluations finds, and facts for the record."""
    settings, count = config.method.search, config.taylor.num_samples
    samples = samples_for(config, dense, exclude, count + settings.num_samples)
    held_out = samples.ids[count:].to(dense.device)
    final = _final_states(dense, held_out)

    def plan_of(factors: Factors) -> PruningPlan:
        scaled = replace(scores, units={
            s: tuple(values * factors[s, i] for i, values in enumerate(scores.units[s])) for s in STRUCTURES
        })  # fmt: skip
        return make_plan(scaled, dense.layout, config.method, config.budget, config.guard, dense.fingerprint)

    blocks = [(s, i) for i, layer in enumerate(dense.layout.layers) for s in STRUCTURES if layer.units(s)]
    facts = [dense.fingerprint, samples.digest, config.model_dump(mode="json", include={"method", "taylor"})]
    with Bar("search", settings.forwards, show=config.progress) as bar:
        journal = _Journal(cache_folder(config) / "search" / f"{digest(facts)}.json")

        def judge(plan: PruningPlan) -> float:
            bar.advance(1)
            return journal.value(plan, lambda: _judged(config, dense, plan, held_out, final, exclude))

        found = exchange(judge, plan_of, blocks, settings.forwards)
    log.info(
        "search: %s %.5f -> %.5f in %d plans", settings.objective, found.start, found.value, found.evaluations
    )
    return found.plan, found.facts()


class _Journal:
    """Values of plans that were judged before, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, float] = read_json(path) if path.exists() else {}

    def value(self, plan: PruningPlan, compute: Callable[[], float]) -> float:
        """The value of a plan: looked up, or computed and kept."""
        key = _named(plan)
        if key not in self.values:
            self.values[key] = compute()
            write_json(self.path, self.values)
        return self.values[key]


@torch.no_grad()
def _final_states(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    """Hidden states in front of the head [M, T, D]."""
    base = loaded.adapter.decoder(loaded.model)
    return torch.cat([base(input_ids=part, use_cache=False).last_hidden_state for part in ids.split(8)])


@torch.no_grad()
def _judged(
    config: PruneConfig,
    dense: LoadedModel,
    plan: PruningPlan,
    ids: torch.Tensor,
    final: torch.Tensor,
    exclude: Excluded,
) -> float:
    """The objective of one plan, cut and repaired in a copy of the model."""
    twin = replace(dense, model=copy.deepcopy(dense.model))
    cut(config, twin, plan, exclude)
    states = _final_states(twin, ids)
    if config.method.search.objective == "loss":
        head = twin.adapter.head(twin.model)
        return float(next_token_loss(head, states, ids, torch.ones_like(ids, dtype=torch.bool))[1])
    return divergence(dense.adapter.head(dense.model), final.flatten(0, 1), states.flatten(0, 1))


def divergence(head: Head, dense: torch.Tensor, pruned: torch.Tensor) -> float:
    """Mean KL(dense || pruned) in nats over rows of final hidden states [M x T, D]; logits exist in chunks only."""
    total = 0.0
    for start in range(0, len(dense), ROWS):
        rows = slice(start, start + ROWS)
        one, two = (head(states[rows]).double().log_softmax(-1) for states in (dense, pruned))
        total += float((one.exp() * (one - two)).sum())
    return total / len(dense)
