"""Scores of the calibration pass against the plain, slow, float64 way."""

import pytest
import torch

from secateur.pruning.capture.views import Level
from secateur.pruning.models.adapter import STRUCTURES, linear
from tests.pruning.brute import brute_taylor, plain_gradients
from tests.pruning.conftest import build, capture_of, text


@pytest.mark.parametrize("second", [False, True])
def test_taylor_equals_brute_force(variant: str, second: bool) -> None:
    loaded = build(variant, torch.float64)
    samples = text(6)
    name = "taylor_second" if second else "taylor"
    capture = capture_of(loaded, samples, Level.SQUARES, [6])
    expected = brute_taylor(loaded, plain_gradients(loaded, list(samples.ids.split(2))), second)
    for structure in STRUCTURES:
        torch.testing.assert_close(
            capture.score(name, 6, structure).double(), expected[structure], rtol=1e-6, atol=0
        )


def test_gate_identity(variant: str) -> None:
    """Sum of w x G over the columns of `down_proj` (`o_proj`) of a unit = sum over tokens of a x dL/da."""
    loaded = build(variant, torch.float64)
    samples = text(1)
    capture = capture_of(loaded, samples, Level.GATE, [1], batch_size=1)
    gradient = plain_gradients(loaded, [samples.ids])[0]
    for structure in STRUCTURES:
        expected = []
        for index, layer in enumerate(loaded.layout.layers):
            name = f"{loaded.adapter.layers}.{index}.{loaded.adapter.output(structure).path}.weight"
            product = (dict(loaded.model.named_parameters())[name] * gradient[name]).sum(0)
            expected.append(product.reshape(layer.units(structure), -1).sum(1).abs())
        wanted = torch.cat(expected).detach()
        # RMSNorm computes in float32 whatever the model's dtype: where the sum nearly cancels, that shows
        torch.testing.assert_close(
            capture.score("taylor_gate", 1, structure).double(),
            wanted,
            rtol=1e-5,
            atol=1e-6 * float(wanted.max()),
        )


def test_gate_pass_leaves_weights_alone() -> None:
    loaded = build("llama")
    before = {n: p.requires_grad for n, p in loaded.model.named_parameters()}
    capture_of(loaded, text(4), Level.GATE, [4])
    assert all(p.grad is None for p in loaded.model.parameters())
    assert {n: p.requires_grad for n, p in loaded.model.named_parameters()} == before


def test_gate_is_the_same_with_and_without_weight_gradients() -> None:
    loaded = build("qwen2")
    samples = text(4)
    light, full = (capture_of(loaded, samples, level, [4]) for level in (Level.GATE, Level.GRADIENTS))
    for structure in STRUCTURES:
        torch.testing.assert_close(
            light.score("taylor_gate", 4, structure), full.score("taylor_gate", 4, structure)
        )


def test_activation_estimators_equal_plain_statistics() -> None:
    loaded = build("qwen3", torch.float64)
    samples = text(5)
    seen: dict[tuple[int, str], torch.Tensor] = {}
    handles = []
    for index, layer in enumerate(loaded.adapter.decoder_layers(loaded.model)):
        for structure in STRUCTURES:
            module = linear(layer, loaded.adapter.output(structure))
            assert module is not None
            key = (index, structure)
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, x, key=key: seen.__setitem__(key, x[0].flatten(0, 1))
                )
            )
    with torch.no_grad():
        loaded.model(samples.ids, use_cache=False)
    for handle in handles:
        handle.remove()
    capture = capture_of(loaded, samples, Level.ACTIVATIONS, [5])
    for structure in STRUCTURES:
        wanda, flap = [], []
        for index, layer in enumerate(loaded.adapter.decoder_layers(loaded.model)):
            module = linear(layer, loaded.adapter.output(structure))
            assert module is not None
            weight, a = module.weight.detach(), seen[index, structure]
            units = loaded.layout.layers[index].units(structure)
            wanda.append((weight.abs().sum(0) * a.square().mean(0).sqrt()).reshape(units, -1).sum(1))
            flap.append((weight.square().sum(0) * a.var(0, correction=0)).reshape(units, -1).sum(1))
        torch.testing.assert_close(
            capture.score("wanda", 5, structure).double(), torch.cat(wanda), rtol=1e-5, atol=0
        )
        torch.testing.assert_close(
            capture.score("fluctuation", 5, structure).double(), torch.cat(flap), rtol=1e-5, atol=0
        )
