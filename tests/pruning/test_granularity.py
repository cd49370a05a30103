"""A budget that coarse units miss is said, with the nearest ratios that are met: every one of them is."""

from typing import Any

import pytest

from secateur.pruning.allocation import make_plan, step_of
from secateur.pruning.config import BudgetConfig, GuardConfig, MethodConfig
from secateur.pruning.errors import BudgetError
from secateur.pruning.granularity import missed
from secateur.pruning.plan import PruningPlan
from tests.pruning.commands import Place, call, only_record
from tests.pruning.conftest import VARIANTS, build
from tests.pruning.test_budget import random_scores


class Case:
    """One model and one set of options; plans of any ratio."""

    def __init__(self, name: str, of: Any = "total", round_to: int = 1, **method: Any) -> None:
        self.layout = build(name, intermediate_size=100).layout
        self.of, self.guard, self.method = of, GuardConfig(round_to=round_to), MethodConfig(**method)
        self.whole = self.layout.total_parameters if of == "total" else self.layout.decoder_parameters
        self.scores = random_scores(self.layout)

    def planned(self, ratio: float) -> PruningPlan:
        budget = BudgetConfig(ratio=ratio, of=self.of)
        return make_plan(self.scores, self.layout, self.method, budget, self.guard, "test")

    def removed(self, amount: int) -> int:
        try:
            return self.planned(amount / self.whole).removed
        except BudgetError:
            return 0

    def sentence(self, ratio: float) -> str:
        step = step_of(self.layout, self.method, self.guard)
        return missed(self.planned(ratio), self.layout, self.whole, step, self.planned)


OPTIONS: dict[str, dict[str, Any]] = {
    "one": {},
    "7": {"round_to": 7},
    "16": {"round_to": 16},
    "decoder": {"round_to": 16, "of": "decoder"},
    "mlp": {"round_to": 32, "structures": "mlp"},
    "attention": {"structures": "attention"},
    "uniform": {"round_to": 16, "allocation": "uniform"},
    "flap": {"round_to": 16, "compensation": {"kind": "bias"}},
}


@pytest.mark.parametrize("option", sorted(OPTIONS))
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_miss_is_said_and_the_named_ratios_are_met(name: str, option: str) -> None:
    case = Case(name, **OPTIONS[option])
    channel, said, both = case.layout.layers[0].channel_cost, 0, 0
    for ratio in (0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4):
        try:
            plan = case.planned(ratio)
        except BudgetError:
            continue  # the attention, or the MLPs, are less than that
        assert (
            plan.removed <= plan.target or option == "flap"
        )  # a lost block needs no bias: a little more goes
        sentence = case.sentence(ratio)
        assert bool(sentence) == (plan.target - plan.removed >= channel), (ratio, sentence)
        if not sentence:
            continue
        said += 1
        near = [float(number) for number in sentence.split("is met: ")[1].split(" and ")]
        amounts = [round(number * case.whole) for number in near]
        assert [case.planned(number).removed for number in near] == amounts
        assert all(
            amount == plan.removed or number > ratio for amount, number in zip(amounts, near, strict=True)
        )
        if option not in ("uniform", "flap") and len(near) == 2:
            between = range(plan.target, amounts[1], max(1, channel // 2))
            assert all(case.removed(amount) <= plan.target for amount in between)
            both += 1
    assert both > 0 or option in ("one", "uniform", "flap")
    assert said > 0 or option == "one"


@pytest.mark.parametrize("option", ["attention", "16", "one"])
def test_no_plan_removes_more_than_was_asked(option: str) -> None:
    """Amounts all around the price of the last KV group of a layer, which takes the norm along."""
    case = Case("llama", **OPTIONS[option])
    layer = case.layout.layers[0]
    for groups in (7, 15, 16):
        around = groups * layer.group_cost + groups // 4 * layer.attention_fixed
        for amount in range(around - 40, around + 41, 4):
            assert case.removed(amount) <= amount


def test_single_channels_miss_nothing() -> None:
    assert Case("llama").sentence(0.3) == ""


def test_nothing_above_is_said() -> None:
    """All attention goes and the budget asks for a little more."""
    case = Case("llama", structures="attention")
    most = sum(x.kv_groups * x.group_cost + x.attention_fixed for x in case.layout.layers)
    sentence = case.sentence((most + 700) / case.whole)
    assert f"{most:,} of the {most + 700:,} parameters asked for go, 700 fewer" in sentence
    assert float(sentence.split("is met: ")[1]) == pytest.approx(most / case.whole, abs=1e-4)


def test_a_run_says_it_in_table_log_and_record(here: Place) -> None:
    outcome = call("run", *here.arguments("method=magnitude", "guard.round_to=16", "budget.ratio=0.23"))
    assert outcome.code == 0, outcome.err
    (sentence,) = [s for s in only_record(here.out)["diagnosis"] if "coarse" in s]
    assert sentence in outcome.err
    assert "nearest budget.ratio that is met" in " ".join(outcome.out.split())
    above = sentence.split(" and ")[1]
    again = here.arguments(
        "method=magnitude", "guard.round_to=16", f"budget.ratio={above}", f"out={here.out}/2"
    )
    assert call("run", *again).code == 0
    record = only_record(here.out / "2")
    assert record["parameters"]["ratio"] == pytest.approx(float(above), abs=1e-4)
    assert not [s for s in record["diagnosis"] if "coarse" in s]
