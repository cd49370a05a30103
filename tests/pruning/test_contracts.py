"""What an estimator must give, and small rules that nothing else would notice if they were broken."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from secateur.pruning.allocation import Offer, _Cut, make_plan  # pyright: ignore[reportPrivateUsage]  the stop is inside
from secateur.pruning.capture.gradients import GradientFolder
from secateur.pruning.capture.run import run_capture
from secateur.pruning.capture.views import Estimator, Level
from secateur.pruning.config import BudgetConfig, CaptureConfig, GuardConfig, MethodConfig, TaylorConfig
from secateur.pruning.errors import BudgetError, ConfigError
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.importance.scores import static_scores
from tests.pruning.commands import Place, refused
from tests.pruning.conftest import build, text
from tests.pruning.test_budget import random_scores

WRONG = {
    "one value": lambda units: torch.ones(1, dtype=torch.float64),
    "a scalar": lambda units: torch.tensor(1.0, dtype=torch.float64),
    "a column": lambda units: torch.ones(units, 1, dtype=torch.float64),
    "one too many": lambda units: torch.ones(units + 1, dtype=torch.float64),
    "float32": torch.ones,
    "integers": lambda units: torch.ones(units, dtype=torch.int64),
}


@pytest.mark.parametrize("kind", sorted(WRONG))
@pytest.mark.parametrize("level", [Level.WEIGHTS, Level.ACTIVATIONS, Level.SQUARES])
def test_an_estimator_of_the_wrong_shape_or_dtype_is_refused(kind: str, level: Level) -> None:
    loaded, samples = build("llama"), text(4)
    rule = Estimator("odd", level, lambda view: WRONG[kind](view.units), "wrong")
    taylor = TaylorConfig(seq_len=20, num_samples=4, batch_size=2)
    says = r"method\.estimator=odd gives .*layer 0; it must give torch.float64 \["
    if level == Level.WEIGHTS:
        with pytest.raises(ConfigError, match=says):
            static_scores(loaded, rule, "mlp", 0)
    else:
        with pytest.raises(ConfigError, match=says):
            run_capture(loaded, samples, CaptureConfig(priors=()), taylor, level, [4], [rule])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["magnitude", "taylor_gate"])
def test_scores_that_are_not_finite_are_refused_by_the_estimators_name(
    here: Place, name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(view: Any) -> torch.Tensor:
        return torch.full((view.units,), value, dtype=torch.float64)

    monkeypatch.setitem(ESTIMATORS, name, replace(ESTIMATORS[name], score=bad))
    says = (f"method.estimator={name}", "layer 0, attention", "NaN or infinite")
    refused(here, f"method={name}", "capture.on_nonfinite=fail", says=says)


@pytest.mark.parametrize("scale", [1.0, 1024.0, 2.0**-10])
def test_squares_and_sums_forget_the_scale_of_the_loss(variant: str, scale: float) -> None:
    """float16 folds gradients of a scaled loss: sums carry one factor, squares two."""
    loaded, ids = build(variant, torch.float64), text(2).ids
    model: Any = loaded.model
    folder = GradientFolder(
        model, loaded.adapter, loaded.layout, layers=range(4), squares=True, offload=False
    )
    folder.begin(scale)
    (model(ids, labels=ids).loss * scale).backward()
    found = {(t.layer, t.name): (t.accumulator.clone(), t.squares, t.units) for t in folder.tracked}
    folder.close()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    model(ids, labels=ids).loss.backward()
    layers = loaded.adapter.decoder_layers(model)
    for tracked in folder.tracked:
        parameter = layers[tracked.layer].get_parameter(tracked.name)
        gradient, axis = parameter.grad, tracked.projection.axis
        assert gradient is not None
        squares = (parameter.detach() * gradient).square()
        if squares.dim() == 2:
            squares = squares.sum(1 - axis)
        accumulator, unit_squares, units = found[tracked.layer, tracked.name]
        torch.testing.assert_close(accumulator, gradient, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(unit_squares, squares.reshape(units, -1).sum(1), rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize(("rail", "structure"), [("min_channels", "mlp"), ("min_kv_groups", "attention")])
def test_a_guards_minimum_is_reached_and_not_passed(rail: str, structure: Any) -> None:
    """The largest budget under the guard leaves exactly the minimum in every layer; one unit more is refused."""
    layout = build("llama").layout
    layer, least = layout.layers[0], 2
    guard = GuardConfig(**{rail: least})
    method = MethodConfig(structures=structure)
    most = sum((x.units(structure) - least) * x.cost(structure) for x in layout.layers)

    def planned(amount: int) -> Any:
        budget = BudgetConfig(ratio=amount / layout.total_parameters)
        return make_plan(random_scores(layout), layout, method, budget, guard, "test")

    plan = planned(most)
    assert plan.removed == most
    assert [len(x.kept(structure)) for x in plan.layers] == [least] * 4
    with pytest.raises(BudgetError, match=f"guard.{rail}=2 allows {most:,}"):
        planned(most + layer.cost(structure) + layer.fixed(structure))


def test_an_exchange_gives_nothing_back_that_was_gone_before() -> None:
    """Channels with a score of minus infinity were cut in an earlier stage: the model no longer has them."""
    layout = build("llama").layout
    layer = layout.layers[0]
    per_group = -(-layer.group_cost // layer.channel_cost)
    gone = [Offer(-np.inf, -np.inf, 0, "mlp", (unit,)) for unit in range(per_group)]
    group = Offer(0.2, 0.2, 2, "attention", (0,))
    cut = _Cut(layout, GuardConfig())
    cut.take(gone, 10**9)
    before, spent = {place: list(units) for place, units in cut.removed.items()}, cut.spent
    assert not cut.exchange([*gone, group], spent + layer.channel_cost)
    assert (cut.removed, cut.spent) == (before, spent)
    known = [replace(offer, score=0.1) for offer in gone]
    assert cut.exchange([*known, group], spent + layer.channel_cost), "channels of this stage do come back"
