"""`method.allocation=alike`: equally many units in every layer, the lowest-scored ones, to within one of each layer."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import secateur
from secateur.pruning.alike import cut_alike
from secateur.pruning.allocation import make_plan, step_of
from secateur.pruning.config import BudgetConfig, GuardConfig
from secateur.pruning.config_method import MethodConfig, SearchConfig
from secateur.pruning.errors import BudgetError, ConfigError
from secateur.pruning.importance.scores import Scores
from secateur.pruning.models.layout import LayerLayout, Layout

LAYER = LayerLayout(4, 12, group_cost=40, channel_cost=9, attention_fixed=5, mlp_fixed=5)
LAYOUT = Layout((LAYER,) * 3, 3 * 278, 3 * 278)
ALIKE = MethodConfig(estimator="random", allocation="alike")


def scores(seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    return Scores({"attention": tuple(rng.random((3, 4))), "mlp": tuple(rng.random((3, 12)))})


def options(found: Scores, target: int) -> Iterator[tuple[float, set[tuple[int, str, int]]]]:
    """Brute force: every pair of counts within the step, by the scores of what goes."""
    for groups in range(4):
        for channels in range(12):
            spent = 3 * (40 * groups + 9 * channels)
            if 0 <= target - spent < 3 * 9:
                kinds = (("attention", groups), ("mlp", channels))
                gone = {
                    (la, s, int(u))
                    for s, n in kinds
                    for la in range(3)
                    for u in np.argsort(found.units[s][la])[:n]
                }
                yield sum(float(found.units[s][la][u]) for la, s, u in gone), gone


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [0, 100, 250, 400])
def test_the_cheapest_equal_cut_is_taken(target: int, seed: int) -> None:
    found = scores(seed)
    removed, spent = cut_alike(found, LAYOUT, ALIKE, GuardConfig(), target)
    best = min(options(found, target), key=lambda option: option[0])[1]
    assert {(la, s, unit) for (la, s), units in removed.items() for unit in units} == best
    assert spent == sum(LAYER.cost(s) * len(units) for (_, s), units in removed.items())


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_qwen2"])
@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_layers_of_a_real_plan_are_alike(name: str, ratio: float) -> None:
    options: dict[str, Any] = {"method.allocation": "alike", "guard.round_to": 4, "taylor.num_samples": 8}
    plan = secateur.prune(name, "taylor", ratio=ratio, device="cpu", **options).plan
    kept = {(len(layer.kept_kv_groups), len(layer.kept_channels)) for layer in plan.layers}
    assert len(kept) == 1
    (_, channels) = kept.pop()
    assert channels % 4 == 0
    assert plan.removed > 0.9 * plan.target


def test_what_cannot_be_alike_is_refused() -> None:
    def plan(layout: Layout = LAYOUT, guard: GuardConfig | None = None, ratio: float = 0.3) -> Any:
        return make_plan(scores(), layout, ALIKE, BudgetConfig(ratio=ratio), guard or GuardConfig(), "test")

    with pytest.raises(ConfigError, match=r"guard.protect_first must be 0"):
        plan(guard=GuardConfig(protect_first=1))
    other = LayerLayout(4, 11, group_cost=40, channel_cost=9, attention_fixed=5, mlp_fixed=5)
    with pytest.raises(ConfigError, match="differ already"):
        plan(Layout((LAYER, LAYER, other), 800, 800))
    with pytest.raises(BudgetError, match="Lower the ratio"):
        plan(ratio=0.95)
    with pytest.raises(ValueError, match=r"method.allocation=alike forbids"):
        MethodConfig(estimator="random", allocation="alike", search=SearchConfig(kind="exchange"))
    assert step_of(LAYOUT, ALIKE, GuardConfig(round_to=2)) == 3 * 2 * 9


def test_what_is_gone_stays_gone() -> None:
    found = scores()
    for layer in range(3):
        found.units["attention"][layer][1] = -np.inf
    removed, _ = cut_alike(found, LAYOUT, ALIKE, GuardConfig(), 200)
    assert all(1 in removed[layer, "attention"] for layer in range(3))
