"""Refits after a cut, and cuts in several steps: against plain least squares and against what must not change."""

from typing import Any

import pytest
import torch

from secateur.pruning.allocation import make_plan
from secateur.pruning.capture.views import Level
from secateur.pruning.compensation.refit import cut_and_refit
from secateur.pruning.config import BudgetConfig, GuardConfig, MethodConfig
from secateur.pruning.config_method import CompensationConfig, ScheduleConfig
from secateur.pruning.importance.scores import Scores, final_scores
from secateur.pruning.models.adapter import STRUCTURES, Structure, linear
from secateur.pruning.models.loading import LoadedModel, load_pruned
from secateur.pruning.models.modeling_pruned import get_geometry
from secateur.pruning.plan import LayerPlan, PruningPlan, whole
from secateur.pruning.schedule import in_dense_units, ratios
from secateur.pruning.surgery import prune
from tests.pruning.conftest import build, capture_of, text

LEAST_SQUARES = CompensationConfig(kind="least_squares", ridge=(0.0,), target=0.0)


def uneven(loaded: LoadedModel, removed: set[int] = frozenset({2})) -> PruningPlan:  # type: ignore[assignment]
    """Half of layer 1's channels, one KV group of layer 3, and whole layers go."""
    layers: list[LayerPlan] = []
    for index, layer in enumerate(loaded.layout.layers):
        groups, channels = list(range(layer.kv_groups)), list(range(layer.channels))
        if index in removed:
            groups, channels = [], []
        elif index == 1:
            channels = channels[::2]
        elif index == 3:
            groups = groups[1:] or groups
        layers.append(LayerPlan(layer.kv_groups, layer.channels, tuple(groups), tuple(channels)))
    return PruningPlan(tuple(layers), "test", 1, 1, 100, 100)


def block_output(loaded: LoadedModel, layer: int, structure: Structure, ids: torch.Tensor) -> tuple[Any, Any]:
    """Input and output rows of one output projection, by plain hooks on the whole model."""
    module = linear(loaded.adapter.decoder_layers(loaded.model)[layer], loaded.adapter.output(structure))
    assert module is not None
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    with torch.no_grad():
        loaded.model(ids, use_cache=False)
    handle.remove()
    return seen[0].flatten(0, 1), seen[1].flatten(0, 1)


def residual(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    """The residual stream behind the last layer, in front of the final norm."""
    model: Any = loaded.model
    seen: list[torch.Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(ids, use_cache=False)
    handle.remove()
    return seen[0]


def test_own_target_is_plain_least_squares_of_the_uncut_block(variant: str) -> None:
    loaded, ids = build(variant, torch.float64), text(24, 30).ids
    inputs, output = block_output(loaded, 1, "mlp", ids)
    plan = uneven(loaded, removed=set())
    kept = list(plan.layers[1].kept_channels)
    before = build(variant, torch.float64)
    cut_and_refit(loaded, plan, ids, LEAST_SQUARES)
    module = linear(loaded.adapter.decoder_layers(loaded.model)[1], loaded.adapter.output("mlp"))
    assert module is not None
    rest = output if module.bias is None else output - module.bias
    expected = torch.linalg.lstsq(inputs[:, kept], rest).solution.T
    torch.testing.assert_close(module.weight.detach(), expected.detach(), rtol=1e-5, atol=1e-7)
    plain = prune(before.model, before.adapter, plan)
    outputs = tuple(f"{before.adapter.output(structure).path}.weight" for structure in STRUCTURES)
    for name, value in plain.state_dict().items():
        if not name.endswith(outputs):
            assert torch.equal(loaded.model.state_dict()[name], value), name


def test_units_that_others_can_replace_are_removed_without_a_trace() -> None:
    """Channels that copy another channel: after the refit the model's output is the dense one's."""
    loaded = build("llama", torch.float64)
    mlp: Any = loaded.adapter.decoder_layers(loaded.model)[1].mlp
    with torch.no_grad():
        for projection in (mlp.gate_proj, mlp.up_proj):
            projection.weight[1::2] = projection.weight[::2]
    ids = text(16, 30).ids
    with torch.no_grad():
        dense = loaded.model(ids).logits
    layers = [
        LayerPlan(
            x.kv_groups,
            x.channels,
            tuple(range(x.kv_groups)),
            tuple(range(0, x.channels, 2 if i == 1 else 1)),
        )
        for i, x in enumerate(loaded.layout.layers)
    ]
    cut_and_refit(loaded, PruningPlan(tuple(layers), "test", 1, 1, 100, 100), ids, LEAST_SQUARES)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, dense, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("onload", [False, True])
def test_refits_bring_the_residual_stream_closer_to_the_dense_one(variant: str, onload: bool) -> None:
    ids = text(40, 30).ids
    dense = build(variant)
    plan, distances = uneven(dense, removed=set()), {}
    wanted = residual(dense, ids)
    for label, config in {
        "none": None,
        "own": CompensationConfig(kind="least_squares", target=0.0, onload=onload),
        "dense": CompensationConfig(kind="least_squares", target=1.0, onload=onload),
    }.items():
        loaded = build(variant)
        if config is None:
            prune(loaded.model, loaded.adapter, plan)
        else:
            cut_and_refit(loaded, plan, ids, config)
        distances[label] = float((residual(loaded, ids) - wanted).norm())
    assert distances["own"] < distances["none"]
    assert distances["dense"] <= distances["own"]


def test_the_dense_model_beside_gives_the_same_refit_as_the_model_itself() -> None:
    """A reference of the same weights changes nothing; behind lost layers it still is the dense stream."""
    ids, config = text(20, 30).ids, CompensationConfig(kind="least_squares")
    one, two, reference = (
        build("qwen3", torch.float64),
        build("qwen3", torch.float64),
        build("qwen3", torch.float64),
    )
    plan = uneven(one)
    cut_and_refit(one, plan, ids, config)
    cut_and_refit(two, plan, ids, config, reference)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], value, rtol=1e-6, atol=1e-9)


def test_blocks_in_front_of_the_first_cut_keep_their_bits() -> None:
    loaded, before = build("llama"), build("llama")
    plan = uneven(loaded)
    facts = cut_and_refit(loaded, plan, text(8).ids, CompensationConfig(kind="least_squares"))
    assert set(facts["ridge"]) == {"1/mlp", "3/attention", "3/mlp"}
    for name, value in before.model.state_dict().items():
        if ".layers.0." in name or ".layers.1.self_attn" in name:
            assert torch.equal(loaded.model.state_dict()[name], value)


def test_two_cuts_with_plain_surgery_equal_one() -> None:
    """Plans in dense units, seen from a model that is cut already, remove what is new and nothing else."""
    scores = Scores(
        {
            s: tuple(
                torch.rand(
                    x.units(s), generator=torch.Generator().manual_seed(i), dtype=torch.float64
                ).numpy()
                for i, x in enumerate(build("llama").layout.layers)
            )
            for s in STRUCTURES
        }
    )
    one, two = build("llama"), build("llama")
    plans = [
        make_plan(scores, one.layout, MethodConfig(), BudgetConfig(ratio=r), GuardConfig(), "test")
        for r in (0.15, 0.45)
    ]
    prune(one.model, one.adapter, plans[1])
    prune(two.model, two.adapter, plans[0])
    again = make_plan(
        in_dense_units(_left(scores, plans[0]), plans[0]), build("llama").layout, MethodConfig(),
        BudgetConfig(ratio=0.45), GuardConfig(), "test",
    )  # fmt: skip
    assert again.removed == plans[1].removed
    prune(two.model, two.adapter, again.since(plans[0]))
    assert two.model.state_dict().keys() == one.model.state_dict().keys()
    for layer in range(len(again.layers)):
        assert set(again.layers[layer].kept_channels) <= set(plans[0].layers[layer].kept_channels)
    ids = text(2).ids
    with torch.no_grad():
        assert bool(torch.isfinite(two.model(ids).logits).all())


def _left(scores: Scores, plan: PruningPlan) -> Scores:
    """Scores of the units that a plan keeps, as a cut model has them."""
    alive = [i for i, x in enumerate(plan.layers) if x.kept_kv_groups or x.kept_channels]
    return Scores(
        {s: tuple(scores.units[s][i][list(plan.layers[i].kept(s))] for i in alive) for s in STRUCTURES}
    )


def test_a_plan_seen_from_the_start_is_itself() -> None:
    loaded = build("llama")
    plan = uneven(loaded)
    assert plan.since(whole(loaded.layout, "test")).layers == plan.layers
    with pytest.raises(KeyError):
        whole(loaded.layout, "test").since(plan)


def test_ratios_of_schedules() -> None:
    step = ScheduleConfig(kind="iterative", step=0.05)
    assert ratios(ScheduleConfig(), 0.3) == (0.3,)
    assert ratios(step, 0.2) == (0.05, 0.1, 0.15, 0.2)
    assert ratios(step, 0.3)[:3] == ratios(step, 0.2)[:3]
    assert ratios(ScheduleConfig(kind="iterative", steps=2, growth=3.0), 0.4) == pytest.approx((0.1, 0.4))
    assert ratios(ScheduleConfig(kind="iterative", step=0.1, growth=0.5), 0.17) == pytest.approx(
        (0.1, 0.15, 0.17)
    )
    assert ratios(step, 0.0) == (0.0,)


def test_anchored_scores_add_up_to_what_was_measured() -> None:
    """With the anchor a block is never cheaper than its measured bypass, on the surgeon's own scale."""
    loaded, samples = build("llama", torch.float64), text(8)
    capture = capture_of(loaded, samples, Level.CURVATURE, [8], priors=("loss",), prior_share=1.0)
    plain, anchored = (
        final_scores(
            loaded, capture, MethodConfig(estimator="surgeon", prior=prior, prior_role=role), 8, 1.0, 0
        )
        for prior, role in (("none", "weight"), ("loss", "anchor"))
    )
    measured = capture.prior("loss", 8, 1.0)
    for column, structure in enumerate(STRUCTURES, start=1):
        predicted = capture.score("block_rise", 8, structure)
        for layer in range(4):
            factor = max(1.0, float(measured[layer, column] / predicted[layer]))
            torch.testing.assert_close(
                torch.tensor(anchored.units[structure][layer]),
                torch.tensor(plain.units[structure][layer] * factor),
            )


def test_bias_stands_for_the_mean_of_what_was_removed(variant: str) -> None:
    """FLAP: the mean output of the refitted block over the calibration text is the uncut block's."""
    loaded, ids = build(variant, torch.float64), text(12, 30).ids
    _, before = block_output(loaded, 1, "mlp", ids)
    plan = make_plan(
        _flat(loaded), loaded.layout, MethodConfig(compensation=CompensationConfig(kind="bias")),
        BudgetConfig(ratio=0.2), GuardConfig(min_channels=1, min_kv_groups=1), "test",
    )  # fmt: skip
    dense_size = sum(p.numel() for p in loaded.model.parameters())
    cut_and_refit(loaded, plan, ids, CompensationConfig(kind="bias"))
    assert sum(p.numel() for p in loaded.model.parameters()) == dense_size - plan.removed
    assert 0 <= plan.target - plan.removed < max(x.channel_cost for x in build(variant).layout.layers)
    again = build(variant, torch.float64)
    layers = list(whole(again.layout, "test").layers)
    layers[1] = plan.layers[1]
    cut_and_refit(
        again, PruningPlan(tuple(layers), "test", 1, 1, 100, 100), ids, CompensationConfig(kind="bias")
    )
    _, after = block_output(again, 1, "mlp", ids)
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=1e-4, atol=1e-5)


def _flat(loaded: LoadedModel) -> Scores:
    """Scores that spread the cut over the channels of all layers."""
    return Scores(
        {
            "attention": tuple(
                torch.full((x.kv_groups,), 1e9, dtype=torch.float64).numpy() for x in loaded.layout.layers
            ),
            "mlp": tuple(torch.arange(x.channels, dtype=torch.float64).numpy() for x in loaded.layout.layers),
        }
    )


def test_a_checkpoint_with_biases_is_read_back_bit_for_bit(tmp_path: Any) -> None:
    loaded = build("llama")
    cut_and_refit(loaded, uneven(loaded), text(8).ids, CompensationConfig(kind="bias"))
    loaded.model.save_pretrained(tmp_path)  # type: ignore[operator]
    again, ids = load_pruned(tmp_path), text(2).ids
    with torch.no_grad():
        assert torch.equal(again(ids).logits, loaded.model(ids).logits)
    assert get_geometry(again.config)[1]["bias"] == ["o_proj", "down_proj"]
