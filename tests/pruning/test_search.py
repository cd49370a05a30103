"""The search never ends worse than it began, keeps the budget, and goes on after a kill with the same result."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.eval.config import RunConfig
from secateur.pruning import pipeline
from secateur.pruning.allocation import make_plan
from secateur.pruning.compose import compose, register
from secateur.pruning.config import BudgetConfig, GuardConfig, MethodConfig, validate
from secateur.pruning.files import read_json
from secateur.pruning.importance.scores import Scores
from secateur.pruning.plan import PruningPlan
from secateur.pruning.search import Factors, divergence, exchange
from tests.pruning.conftest import build
from tests.pruning.test_budget import random_scores

OVERRIDES = (
    "model=tiny_llama", "method=taylor_gate", "calibration=world", "taylor.seq_len=32", "taylor.num_samples=8",
    "method.search.kind=exchange", "method.search.forwards=9", "method.search.num_samples=4", "budget.ratio=0.2",
)  # fmt: skip


def judged_by(weights: list[float]) -> Any:
    """An objective that dislikes cuts in some layers."""

    def judge(plan: PruningPlan) -> float:
        return sum(
            w * (layer.mlp_cut + layer.attention_cut) for w, layer in zip(weights, plan.layers, strict=True)
        )

    return judge


@pytest.mark.parametrize("seed", range(5))
def test_a_search_never_ends_worse_and_keeps_the_budget(seed: int) -> None:
    layout = build("llama").layout
    scores, method, budget = random_scores(layout, seed), MethodConfig(), BudgetConfig(ratio=0.3)

    def plan_of(factors: Factors) -> PruningPlan:
        scaled = {
            s: tuple(v * factors[s, i] for i, v in enumerate(scores.units[s])) for s in ("attention", "mlp")
        }
        return make_plan(Scores(scaled), layout, method, budget, GuardConfig(), "test")  # type: ignore[arg-type]

    judge = judged_by([5.0, 0.1, 1.0, 1.0])
    blocks = [(s, i) for i in range(4) for s in ("attention", "mlp")]
    found = exchange(judge, plan_of, blocks, budget=40)
    start = plan_of(dict.fromkeys(blocks, 1.0))  # type: ignore[arg-type]
    assert found.start == judge(start)
    assert found.value == judge(found.plan)
    assert found.value < found.start
    assert found.evaluations <= 40
    assert 0 <= found.plan.target - found.plan.removed < layout.layers[0].channel_cost


def test_a_search_with_one_evaluation_returns_the_start() -> None:
    layout = build("llama").layout
    scores = random_scores(layout)

    def plan_of(factors: Factors) -> PruningPlan:
        del factors
        return make_plan(scores, layout, MethodConfig(), BudgetConfig(ratio=0.3), GuardConfig(), "test")

    found = exchange(judged_by([1.0] * 4), plan_of, [("mlp", 0)], budget=1)
    assert found.value == found.start
    assert found.evaluations == 1


def test_divergence_is_the_mean_kl_of_the_logits() -> None:
    loaded = build("llama", torch.float64)
    model: Any = loaded.model
    head = loaded.adapter.head(model)
    one, two = (
        torch.randn(700, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (1, 2)
    )
    with torch.no_grad():
        p, q = model.lm_head(one).softmax(-1), model.lm_head(two).softmax(-1)
        assert divergence(head, one, two) == pytest.approx(
            float((p * (p / q).log()).sum(-1).mean()), rel=1e-9
        )
        assert divergence(head, one, one) == pytest.approx(0.0, abs=1e-12)


def config(out: Path, *more: str) -> RunConfig:
    """A small searched run."""
    register(RunConfig)
    return validate(RunConfig, compose("run", [*OVERRIDES, f"out={out}", *more]))


def test_a_run_with_search_tells_what_it_found(tmp_path: Path) -> None:
    found = pipeline.run(config(tmp_path))
    facts = found.story["search"]
    assert facts["value"] <= facts["start"]
    assert 1 < facts["evaluations"] <= 9
    assert found.plan.target - found.plan.removed < found.loaded.layout.layers[0].channel_cost
    again = pipeline.run(config(tmp_path))
    assert again.plan.layers == found.plan.layers


def test_a_killed_search_goes_on_with_the_same_result(tmp_path: Path) -> None:
    """kill -9 after some candidates: they are not judged again, and the plan is that of an undisturbed search."""
    whole = pipeline.run(config(tmp_path / "whole"))
    code = (
        "import sys; from pathlib import Path; from tests.pruning.test_search import config; "
        "from secateur.pruning import pipeline; pipeline.run(config(Path(sys.argv[1])))"
    )
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(killed)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        journals = list((killed / "cache" / "search").glob("*.json"))
        if journals and len(read_json(journals[0])) >= 3:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    journal = next((killed / "cache" / "search").glob("*.json"))
    before = read_json(journal)
    assert len(before) >= 3
    resumed = pipeline.run(config(killed))
    assert resumed.plan.layers == whole.plan.layers
    assert resumed.story["search"] == whole.story["search"]
    after = read_json(journal)
    assert {key: after[key] for key in before} == before
