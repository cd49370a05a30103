"""The scores of every baseline against a plain computation of their own: hooks, `loss.backward()`, loops, float64."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from secateur.pruning.allocation import make_plan
from secateur.pruning.calibration import Samples
from secateur.pruning.capture.views import Level
from secateur.pruning.config import BudgetConfig, GuardConfig, MethodConfig
from secateur.pruning.importance.scores import Scores, final_scores
from secateur.pruning.models.adapter import STRUCTURES, Structure, linear
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.plan import PruningPlan
from tests.pruning.conftest import build, capture_of, text
from tests.pruning.test_scores import plain_gradients


def preset(**fields: Any) -> MethodConfig:
    """A method's config, `conf/method/*.yaml` in short."""
    return MethodConfig(**fields)


def plan_of(loaded: LoadedModel, scores: Scores, method: MethodConfig, ratio: float) -> PruningPlan:
    return make_plan(scores, loaded.layout, method, BudgetConfig(ratio=ratio), GuardConfig(), "test")


class Watch:
    """Per (layer, structure): rows [tokens, F] into the output projection, slopes [tokens, D] behind it."""

    def __init__(self, loaded: LoadedModel, samples: Samples) -> None:
        self.inputs: dict[tuple[int, Structure], torch.Tensor] = {}
        outputs: dict[tuple[int, Structure], torch.Tensor] = {}
        handles = []
        for index, layer in enumerate(loaded.adapter.decoder_layers(loaded.model)):
            for structure in STRUCTURES:
                module = linear(layer, loaded.adapter.output(structure))
                assert module is not None

                def hook(_: Any, x: Any, out: torch.Tensor, key: Any = (index, structure)) -> None:
                    out.retain_grad()
                    self.inputs[key], outputs[key] = x[0].detach().flatten(0, 1), out

                handles.append(module.register_forward_hook(hook))
        for parameter in loaded.model.parameters():
            parameter.requires_grad_(True)
        logits = loaded.model(samples.ids, use_cache=False).logits
        cross_entropy(
            logits[:, :-1].reshape(-1, logits.shape[-1]), samples.ids[:, 1:].reshape(-1), reduction="sum"
        ).backward()
        for handle in handles:
            handle.remove()
        self.slopes = {key: out.grad.flatten(0, 1) for key, out in outputs.items() if out.grad is not None}
        for parameter in loaded.model.parameters():
            parameter.grad = None
            parameter.requires_grad_(False)


# --- no text


def test_magnitude_is_the_sum_of_absolute_weights_and_random_is_seeded(variant: str) -> None:
    loaded = build(variant, torch.float64)
    weights = dict(loaded.model.named_parameters())
    scores, one, again, two = (
        final_scores(loaded, None, preset(estimator=name), 1, 1.0, seed)
        for name, seed in (("magnitude", 0), ("random", 0), ("random", 0), ("random", 1))
    )
    for structure in STRUCTURES:
        for index, layer in enumerate(loaded.layout.layers):
            units = layer.units(structure)
            expected = torch.zeros(units, dtype=torch.float64)
            for projection in loaded.adapter.of(structure):
                path, rows = f"model.layers.{index}.{projection.path}", projection.axis == 0
                lines = weights[f"{path}.weight"].detach().abs()
                parts = (lines if rows else lines.T).chunk(units)
                expected += torch.stack([part.sum() for part in parts])
                if f"{path}.bias" in weights and rows:
                    bias = weights[f"{path}.bias"].detach().abs()
                    expected += torch.stack([part.sum() for part in bias.chunk(units)])
            found = torch.from_numpy(scores.units[structure][index]) * layer.cost(structure)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
            draw = one.units[structure][index]
            assert np.array_equal(draw, again.units[structure][index])
            assert not np.array_equal(draw, two.units[structure][index])
            assert bool(((draw >= 0) & (draw < 1)).all())


# --- LLM-Pruner, vector-wise


def test_vector_taylor_is_abs_of_the_sum_over_each_row_and_column(variant: str) -> None:
    loaded, samples = build(variant, torch.float64), text(6)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [6])
    gradients = plain_gradients(loaded, list(samples.ids.split(2)))
    slope = {name: sum(g[name] for g in gradients) for name in gradients[0]}
    weights = dict(loaded.model.named_parameters())
    for structure in STRUCTURES:
        expected: list[float] = []
        for index, layer in enumerate(loaded.layout.layers):
            for unit in range(layer.units(structure)):
                value = 0.0
                for projection in loaded.adapter.of(structure):
                    path, rows = f"model.layers.{index}.{projection.path}", projection.axis == 0
                    product = (weights[f"{path}.weight"] * slope[f"{path}.weight"]).detach()  # type: ignore[operator]
                    lines = product if rows else product.T
                    size = len(lines) // layer.units(structure)
                    value += sum(abs(float(x.sum())) for x in lines[unit * size : (unit + 1) * size])
                    if f"{path}.bias" in weights and rows:
                        bias = (weights[f"{path}.bias"] * slope[f"{path}.bias"]).detach()  # type: ignore[operator]
                        value += float(bias[unit * size : (unit + 1) * size].abs().sum())
                expected.append(value)
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(
            capture.score("taylor_vector", 6, structure).double(),
            wanted,
            rtol=1e-5,
            atol=1e-6 * float(wanted.max()),  # RMSNorm computes in float32: sums that nearly cancel show it
        )


# --- ShortGPT


def influence(loaded: LoadedModel, ids: torch.Tensor) -> list[float]:
    """1 - mean cosine between what enters and what leaves each layer."""
    states: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        states.append((before, output[0] if isinstance(output, tuple) else output))

    layers = loaded.adapter.decoder_layers(loaded.model)
    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in layers]
    with torch.no_grad():
        loaded.model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return [1 - float(cosine_similarity(a.double(), b.double(), dim=-1).mean()) for a, b in states]


@pytest.mark.parametrize("ratio", [0.15, 0.25, 0.4, 0.6])
def test_shortgpt_removes_whole_layers_by_block_influence(variant: str, ratio: float) -> None:
    loaded, samples = build(variant, torch.float64), text(6)
    method = preset(estimator="constant", prior="cosine", scope="layer")
    capture = capture_of(loaded, samples, Level.WEIGHTS, [6], priors=("cosine",), prior_share=1.0)
    found = influence(loaded, samples.ids)
    assert np.allclose(capture.prior("cosine", 6, 1.0)[:, 0], found, rtol=1e-5, atol=1e-7)
    plan = plan_of(loaded, final_scores(loaded, capture, method, 6, 1.0, 0), method, ratio)
    share = [(len(x.kept_kv_groups) + len(x.kept_channels)) / (x.kv_groups + x.channels) for x in plan.layers]
    order = [share[i] for i in np.argsort(found)]
    assert order == sorted(order)
    assert sum(0 < x < 1 for x in share) <= 1
    assert 0 <= plan.target - plan.removed < loaded.layout.layers[0].channel_cost


# --- FLAP


def test_flap_standardises_fluctuation_block_by_block(variant: str) -> None:
    loaded, samples = build(variant, torch.float64), text(5)
    watch = Watch(loaded, samples)
    method = preset(estimator="fluctuation", standardise=True)
    capture = capture_of(loaded, samples, Level.ACTIVATIONS, [5])
    scores = final_scores(loaded, capture, method, 5, 1.0, 0)
    for index, layer in enumerate(loaded.adapter.decoder_layers(loaded.model)):
        for structure in STRUCTURES:
            module = linear(layer, loaded.adapter.output(structure))
            assert module is not None
            rows, weight = watch.inputs[index, structure].numpy(), module.weight.detach().numpy()
            features = ((rows - rows.mean(0)) ** 2).mean(0) * (weight**2).sum(0)
            units = features.reshape(loaded.layout.layers[index].units(structure), -1).sum(1)
            spread = units.std()
            expected = (
                (units - units.mean()) / spread if spread > 0 else 0 * units
            )  # one KV group: nothing to tell
            np.testing.assert_allclose(scores.units[structure][index], expected, rtol=1e-4, atol=1e-5)
