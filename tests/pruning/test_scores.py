"""Every shortcut of the calibration pass against the plain, slow, float64 way."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from pruning.capture.gradients import STATISTICS
from pruning.capture.passes import batch_bounds
from pruning.capture.priors import measure_priors
from pruning.capture.views import Level
from pruning.errors import NumericsError
from pruning.models.adapter import STRUCTURES, linear
from pruning.models.loading import LoadedModel
from tests.pruning.conftest import build, capture_of, text


def plain_gradients(loaded: LoadedModel, batches: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Gradients of the mean token loss of each batch by `loss.backward()`, by parameter name."""
    result = []
    for ids in batches:
        for parameter in loaded.model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        logits = loaded.model(ids, use_cache=False).logits
        cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)).backward()
        result.append({n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None})
    return result


def brute_taylor(
    loaded: LoadedModel, gradients: list[dict[str, torch.Tensor]], second: bool = False
) -> dict[str, torch.Tensor]:
    """Sum of abs(w x G) over each unit, index by index, from whole-model gradients."""
    total = {n: sum(g[n] for g in gradients) for n in gradients[0]}
    squares = {n: sum(g[n] ** 2 for g in gradients) / len(gradients) for n in gradients[0]}
    weights = dict(loaded.model.named_parameters())
    found: dict[str, list[float]] = {s: [] for s in STRUCTURES}
    for index, layer in enumerate(loaded.layout.layers):
        prefix = f"{loaded.adapter.layers}.{index}."
        for structure in STRUCTURES:
            for unit in range(layer.units(structure)):
                value = 0.0
                for projection in loaded.adapter.of(structure):
                    for kind in ("weight", "bias"):
                        name = f"{prefix}{projection.path}.{kind}"
                        if name not in weights or (kind == "bias" and projection.axis == 1):
                            continue
                        w, g, h = weights[name], total[name], squares[name]
                        size = w.shape[projection.axis if kind == "weight" else 0] // layer.units(structure)
                        part = slice(unit * size, (unit + 1) * size)
                        cut = (part,) if projection.axis == 0 else (slice(None), part)
                        value += float((w[cut] * g[cut]).abs().sum().detach())
                        if second:
                            value += float(0.5 * (w[cut] ** 2 * h[cut]).abs().sum().detach())
                found[structure].append(value)
    return {s: torch.tensor(v, dtype=torch.float64) for s, v in found.items()}


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


def test_snapshots_equal_separate_passes() -> None:
    loaded = build("llama")
    samples = text(12)
    together = capture_of(
        loaded, samples, Level.SQUARES, [4, 7, 12], batch_size=4, priors=("loss", "cosine", "gate")
    )
    for count in (4, 7, 12):
        points = [n for n in (4, 7, 12) if n <= count]
        alone = capture_of(loaded, samples, Level.SQUARES, points, batch_size=4)
        for name in ("taylor", "taylor_gate", "taylor_second", "wanda", "fluctuation"):
            for structure in STRUCTURES:
                assert torch.equal(
                    together.score(name, count, structure), alone.score(name, count, structure)
                )
        assert torch.equal(together.accumulated_statistics[count], alone.accumulated_statistics[count])


def test_batches_never_cross_a_snapshot() -> None:
    assert batch_bounds(4, [4, 7, 12]) == [(0, 4), (4, 7), (7, 11), (11, 12)]


def test_padding_counts_nowhere() -> None:
    loaded = build("llama", torch.float64)
    samples = text(1, length=12)
    padded = text(1, length=20)
    padded.ids[0, :12] = samples.ids[0]
    padded.lengths[0] = 12
    for name in ("taylor", "taylor_gate", "wanda", "fluctuation"):
        for structure in STRUCTURES:
            short = capture_of(loaded, samples, Level.GRADIENTS, [1]).score(name, 1, structure)
            long = capture_of(loaded, padded, Level.GRADIENTS, [1]).score(name, 1, structure)
            if name in ("taylor", "taylor_gate"):
                torch.testing.assert_close(short, long)
            else:  # per token of text: the count of tokens is the only difference
                torch.testing.assert_close(short / short.sum(), long / long.sum())


def test_offload_and_checkpointing_change_nothing() -> None:
    samples = text(4)
    plain = capture_of(build("mistral"), samples, Level.SQUARES, [4])
    for option in ("offload", "gradient_checkpointing"):
        other = capture_of(build("mistral"), samples, Level.SQUARES, [4], **{option: True})
        for key, value in plain.scores.items():
            torch.testing.assert_close(other.scores[key], value, rtol=1e-6, atol=0)


def test_statistics_are_of_each_batch_alone() -> None:
    loaded = build("qwen2")
    samples = text(4)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [4])
    gradients = plain_gradients(loaded, list(samples.ids.split(2)))
    for batch, found in enumerate(gradients):
        for row, (layer, name, size) in enumerate(capture.tensors):
            g = found[f"{loaded.adapter.layers}.{layer}.{name}"].double()
            expected = torch.stack([g.abs().mean(), g.std(correction=0), g.norm(), g.max(), g.min()])
            torch.testing.assert_close(
                capture.batch_statistics[batch, row].double(), expected, rtol=1e-4, atol=1e-9
            )
            assert size == g.numel()
    assert capture.batch_statistics.shape == (2, len(capture.tensors), len(STATISTICS))


def test_layer_statistics_weigh_tensors_by_size() -> None:
    loaded = build("llama")
    samples = text(4)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [4])
    total = plain_gradients(loaded, list(samples.ids.split(2)))
    prefix = f"{loaded.adapter.layers}.2."
    names = [f"{prefix}{name}" for layer, name, _ in capture.tensors if layer == 2]
    every = torch.cat([sum(g[n] for g in total).flatten() for n in names]).double()
    found = capture.layer_gradients(4)[2]
    assert found["mean_abs"] == pytest.approx(float(every.abs().mean()), rel=1e-5)
    assert found["l2"] == pytest.approx(float(every.norm()), rel=1e-5)
    assert found["max"] == pytest.approx(float(every.max()), rel=1e-5)


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


def test_overflowing_half_precision_gives_finite_statistics() -> None:
    """Gradients near float16's largest number: sums and norms overflow there, not here."""
    loaded = build("llama", torch.float16)
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight.mul_(300.0)
    capture = capture_of(loaded, text(4), Level.GRADIENTS, [4])
    largest = capture.batch_statistics[..., STATISTICS.index("l2")].max()
    assert float(largest) ** 2 > torch.finfo(torch.float16).max  # a float16 sum of squares would be infinite
    assert bool(torch.isfinite(capture.batch_statistics).all())
    assert bool(torch.isfinite(capture.accumulated_statistics[4]).all())
    assert all(bool(torch.isfinite(value).all()) for value in capture.scores.values())


def poison(loaded: LoadedModel, batch: int, layer: int) -> None:
    """Make one batch's gradient NaN from one layer downwards."""
    calls = {"n": 0}

    def hook(_: torch.nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        if not output.requires_grad:
            return output
        number = calls["n"]
        calls["n"] += 1
        if number == batch:
            output.register_hook(lambda g: g * float("nan"))
            calls["n"] -= 1 if calls.get("again") is None else 0
            calls["again"] = 1
        return output

    linear_map = linear(loaded.adapter.decoder_layers(loaded.model)[layer], loaded.adapter.output("mlp"))
    assert linear_map is not None
    linear_map.register_forward_hook(hook)


def test_a_nan_batch_is_skipped_without_a_trace() -> None:
    """The scores equal those of a pass that never saw the batch."""
    samples = text(6)
    loaded = build("llama", torch.float64)
    poison(loaded, batch=1, layer=1)
    capture = capture_of(loaded, samples, Level.GRADIENTS, [6], on_nonfinite="skip")
    assert [item["batch"] for item in capture.facts["skipped_batches"]] == [1]
    assert "layer" in capture.facts["skipped_batches"][0]["where"]
    kept = text(6)
    clean = kept.ids[torch.tensor([0, 1, 4, 5])]
    expected = brute_taylor(
        build("llama", torch.float64), plain_gradients(build("llama", torch.float64), list(clean.split(2)))
    )
    for structure in STRUCTURES:
        torch.testing.assert_close(
            capture.score("taylor", 6, structure).double(), expected[structure], rtol=1e-6, atol=0
        )


def test_a_nan_batch_is_fatal_when_so_configured() -> None:
    loaded = build("llama")
    poison(loaded, batch=1, layer=1)
    with pytest.raises(
        NumericsError, match=r"batch 1: the gradient of layer 1, mlp.*NaN.*capture.on_nonfinite=skip"
    ):
        capture_of(loaded, text(6), Level.GRADIENTS, [6], on_nonfinite="fail")


def test_only_nan_batches_are_an_error() -> None:
    loaded = build("llama")
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NumericsError, match="none of the first 4"):
        capture_of(loaded, text(4), Level.GATE, [4])


def test_gradients_that_were_there_before_do_not_count() -> None:
    loaded, samples = build("llama"), text(4)
    clean = capture_of(loaded, samples, Level.GRADIENTS, [4])
    for parameter in loaded.model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    again = capture_of(loaded, samples, Level.GRADIENTS, [4])
    assert torch.equal(clean.score("taylor", 4, "mlp"), again.score("taylor", 4, "mlp"))
