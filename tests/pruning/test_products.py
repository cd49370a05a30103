"""Products and loss of the pass against PyTorch's own, which they stand in for."""

import copy

import pytest
import torch
from torch import nn

from secateur.pruning.capture import loss, products
from secateur.pruning.capture.loss import ChunkedLoss
from secateur.pruning.capture.products import FastProducts, product
from secateur.pruning.capture.views import Level
from secateur.pruning.models.head import Head
from tests.pruning.conftest import build, capture_of, text

needs_onednn = pytest.mark.skipif(not products.AVAILABLE, reason="this build of PyTorch has no oneDNN")
IN, OUT = 48, 20


def layer_and_rows(dtype: torch.dtype = torch.float32, *, bias: bool) -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(IN, OUT, bias=bias, dtype=dtype)), torch.randn(3, 7, IN, dtype=dtype)


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_equal_those_of_the_linear_module(bias: bool, frozen: bool) -> None:
    layer, rows = layer_and_rows(bias=bias)
    twin = copy.deepcopy(layer).double()
    layer.requires_grad_(not frozen)
    slope = torch.randn(7, 3, OUT).transpose(0, 1)  # not contiguous, as slopes of attention heads are not
    fast = FastProducts([layer])
    ours, theirs = rows.clone().requires_grad_(), rows.double().requires_grad_()
    found, expected = layer(ours), twin(theirs)
    assert type(found.grad_fn).__name__ == "_LinearBackward"
    assert (found.grad_fn.saved_tensors[0] is None) == frozen
    found.backward(slope)
    expected.backward(slope.double())
    fast.close()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-6)
    for parameter, reference in zip(layer.parameters(), twin.parameters(), strict=True):
        assert (parameter.grad is None) == frozen
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_hooks_fire_and_the_module_is_given_back() -> None:
    layer, rows = layer_and_rows(bias=True)
    before, seen = layer(rows), list[torch.Size]()
    layer[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    fast = FastProducts([layer])
    assert "forward" in layer[0].__dict__
    layer(rows)
    fast.close()
    assert seen == [rows.shape]
    assert "forward" not in layer[0].__dict__
    assert torch.equal(layer(rows), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_keep_their_own_products(dtype: torch.dtype) -> None:
    layer, rows = layer_and_rows(dtype, bias=False)
    fast = FastProducts([layer])
    assert "forward" not in layer[0].__dict__
    fast.close()
    assert torch.equal(product(rows, layer[0].weight), layer(rows))


def test_a_forward_that_somebody_else_put_there_is_left_alone() -> None:
    layer, rows = layer_and_rows(bias=False)
    layer[0].__dict__["forward"] = lambda given: given[..., :OUT] + 1.0
    FastProducts([layer]).close()
    assert torch.equal(layer(rows), rows[..., :OUT] + 1.0)


@pytest.mark.parametrize("chunk", [1, 300, 2**19])
def test_loss_and_slopes_equal_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CPU_CHUNK", chunk)
    monkeypatch.setattr(loss, "ROWS", 8)
    torch.manual_seed(0)
    hidden, weight, bias = (
        torch.randn(19, 16) * 30,
        torch.randn(50, 16),
        torch.randn(50),
    )  # losses up to some hundred
    targets, factors = torch.randint(0, 50, (19,)), torch.rand(19)
    ours, theirs = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
    losses, total = ChunkedLoss.apply(ours, weight, bias, targets, factors, 2.0, Head(None))  # type: ignore[misc]
    total.backward()
    logits = nn.functional.linear(theirs, weight.double(), bias.double())
    expected = nn.functional.cross_entropy(logits, targets, reduction="none")
    (expected * factors.double()).sum().mul(2.0).backward()
    assert float(expected.detach().max()) > 100.0
    torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-4)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-4)


@needs_onednn
def test_a_capture_is_the_same_without_onednn(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = text(4)
    fast = capture_of(build(variant), samples, Level.SQUARES, [4])
    monkeypatch.setattr(products, "AVAILABLE", False)
    own = capture_of(build(variant), samples, Level.SQUARES, [4])
    assert any("taylor_gate" in name for name in own.scores)
    for name, expected in own.scores.items():
        torch.testing.assert_close(fast.scores[name], expected, rtol=1e-4, atol=1e-6, msg=name)
