"""Priors of layers and blocks against bypassing each one, and against the slope of the loss."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from secateur.pruning.capture.priors import measure_priors
from secateur.pruning.capture.views import Level
from secateur.pruning.models.adapter import STRUCTURES, linear
from tests.pruning.conftest import build, capture_of, text


def test_loss_prior_equals_bypassing_each_block(variant: str) -> None:
    """The block adds nothing to the residual stream: its output projection is zeroed, in float64."""
    loaded = build(variant, torch.float64)
    samples = text(3)
    mask = samples.mask(slice(0, 3))
    rise, cosine, _ = measure_priors(loaded.model, loaded.adapter, samples.ids, mask, loss=True)
    assert rise is not None

    def losses() -> torch.Tensor:
        with torch.no_grad():
            logits = loaded.model(samples.ids, use_cache=False).logits
        return cross_entropy(logits[:, :-1].transpose(1, 2), samples.ids[:, 1:], reduction="none").mean(1)

    dense = losses()
    for index, layer in enumerate(loaded.adapter.decoder_layers(loaded.model)):
        outputs = [linear(layer, loaded.adapter.output(s)) for s in STRUCTURES]
        for block, gone in enumerate((outputs, outputs[:1], outputs[1:])):
            kept = [{n: p.clone() for n, p in m.named_parameters()} for m in gone if m is not None]
            with torch.no_grad():
                for module in gone:
                    assert module is not None
                    for parameter in module.parameters():
                        parameter.zero_()
            torch.testing.assert_close(rise[:, index, block], losses() - dense, rtol=1e-4, atol=1e-6)
            with torch.no_grad():
                for module, values in zip(gone, kept, strict=True):
                    assert module is not None
                    for name, parameter in module.named_parameters():
                        parameter.copy_(values[name])
    assert bool((cosine >= -1e-9).all())
    assert float(cosine[:, :, 0].max()) > 1e-4


def test_gate_prior_is_the_slope_of_the_loss() -> None:
    """Scaling a block's output by 1 - e raises the loss by e x prior, to first order."""
    loaded = build("llama", torch.float64)
    samples = text(2)
    capture = capture_of(loaded, samples, Level.GATE, [2], priors=("gate",))
    prior = capture.prior("gate", 2, 1.0)

    def loss() -> float:
        with torch.no_grad():
            logits = loaded.model(samples.ids, use_cache=False).logits
        return float(cross_entropy(logits[:, :-1].transpose(1, 2), samples.ids[:, 1:]))

    step = 1e-3
    for index, layer in enumerate(loaded.adapter.decoder_layers(loaded.model)):
        for block, structure in enumerate(STRUCTURES):
            module = linear(layer, loaded.adapter.output(structure))
            assert module is not None
            weight = module.weight.detach().clone()
            around = []
            for factor in (1 - step, 1 + step):
                with torch.no_grad():
                    module.weight.copy_(weight * factor)
                around.append(loss())
            with torch.no_grad():
                module.weight.copy_(weight)
            rise = (around[0] - around[1]) / (2 * step)
            assert float(prior[index, block + 1]) == pytest.approx(rise, rel=1e-2, abs=1e-5)
