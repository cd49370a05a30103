"""What sums of activations have to do, fused or not, and a whole pass; run as `fold_cases.py` is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from secateur.pruning.capture import fusible
from secateur.pruning.capture.fold import fold_for
from secateur.pruning.capture.fused_fold import FusedFold
from secateur.pruning.capture.fused_sums import FusedSums
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.site_sums import PlainSums, Site, SiteSums, sums_for
from secateur.pruning.capture.views import Level
from tests.pruning.conftest import build, capture_of, text
from tests.pruning.fold_cases import DEVICE, DTYPES, family

SUMS: dict[str, Callable[[Sequence[Site]], SiteSums]] = {"plain": PlainSums, "fused": FusedSums}
SMALL = {"intermediate_size": 12, "num_hidden_layers": 2}


def sites_of(features: int, units: int, count: int = 2) -> list[Site]:
    def zeros(size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.float64, device=DEVICE)

    return [
        Site(layer, "mlp", units, zeros(features), zeros(features), zeros(units)) for layer in range(count)
    ]


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("features", "units", "tokens"), [(48, 48, 20), (260, 5, 70), (512, 4, 65), (13, 13, 1)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_sums_of_activations(
    kind: str, dtype: torch.dtype, features: int, units: int, tokens: int, padded: bool
) -> None:
    torch.manual_seed(0)
    sites = sites_of(features, units)
    sums = SUMS[kind](sites)
    expected = sites_of(features, units)
    slopes: list[list[torch.Tensor]] = [[] for _ in sites]
    for samples, scale in ((3, 1.0), (2, 1024.0)):
        mask = torch.rand(samples, tokens, device=DEVICE) < 0.7 if padded else None
        sums.begin(mask, scale)
        for number, site in enumerate(expected):
            x = torch.randn(tokens, samples, features, device=DEVICE).to(dtype).transpose(0, 1)
            slope = torch.randn(samples, tokens, features, device=DEVICE).to(dtype)
            sums.see(number, x)
            sums.receive(number, x, slope)
            exact = x.double() if mask is None else x.double() * mask[..., None]
            site.total += exact.sum((0, 1))
            site.squares += exact.square().sum((0, 1))
            each = (x.double() * slope.double()).sum(1).reshape(samples, units, -1).sum(2) / scale
            site.gate += each.abs().sum(0)
            slopes[number].append(each.sum(1) * samples)
        assert sums.unsound() is None
        sums.commit([samples])
    for number, (found, site) in enumerate(zip(sites, expected, strict=True)):
        torch.testing.assert_close(found.total, site.total, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(found.squares, site.squares, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.gate, site.gate, rtol=1e-5, atol=1e-4)
        for one, other in zip(found.slopes, slopes[number], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("sizes", [(5,), (2, 3), (3, 2)])
def test_samples_may_come_in_pieces_and_batches_together(kind: str, sizes: tuple[int, ...]) -> None:
    """Five samples as one batch or two, in pieces of one size or another: the same sums."""
    torch.manual_seed(0)
    x, slope = torch.randn(2, 5, 9, 40, device=DEVICE)
    mask = torch.rand(5, 9, device=DEVICE) < 0.7
    found: list[list[Site]] = []
    for pieces in ([slice(0, 5)], [slice(0, 2), slice(2, 4), slice(4, 5)]):
        sites = sites_of(40, 4)
        sums = SUMS[kind](sites)
        for rows in pieces:
            if rows.start == 0:
                sums.begin(mask[rows], 2.0)
            else:
                sums.more(mask[rows])
            for number in range(len(sites)):
                sums.see(number, x[rows])
                sums.receive(number, x[rows], slope[rows])
        assert sums.unsound() is None
        sums.commit(sizes)
        found.append(sites)
    each = (x.double() * slope.double()).sum((1, 2)) / 2
    factors = torch.tensor([size for size in sizes for _ in range(size)], device=DEVICE)
    for whole, parts in zip(*found, strict=True):
        for name in ("total", "squares", "gate"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-5)
        assert [len(part) for part in parts.slopes] == list(sizes)
        torch.testing.assert_close(torch.cat(parts.slopes), each * factors, rtol=1e-4, atol=1e-3)
    bad = sites_of(40, 4)
    sums = SUMS[kind](bad)
    sums.begin(None, 1.0)
    sums.see(0, x * torch.nan)
    sums.more(None)
    sums.see(0, x)
    assert sums.unsound() == 0


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("where", ["activation", "slope"])
def test_a_bad_activation_is_found_and_leaves_no_trace(kind: str, where: str) -> None:
    sites = sites_of(40, 4)
    sums = SUMS[kind](sites)
    for bad in (True, False):
        sums.begin(None, 1.0)
        for number in range(len(sites)):
            x, slope = torch.ones(2, 9, 40, device=DEVICE), torch.ones(2, 9, 40, device=DEVICE)
            if bad and number == 1:
                (x if where == "activation" else slope)[1, 8, 39] = torch.nan
            sums.see(number, x)
            sums.receive(number, x, slope)
        assert sums.unsound() == (1 if bad else None)
    sums.commit([2])
    for site in sites:
        assert torch.equal(site.total, torch.full_like(site.total, 18.0))
        assert torch.equal(site.gate, torch.full_like(site.gate, 2 * 9 * 10.0))
        assert torch.equal(site.slopes[0], torch.full_like(site.slopes[0], 9 * 40 * 2.0))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Capture]:
    """Runs a whole pass through the kernels, wherever they run here."""

    def run(*args: Any, **options: Any) -> Capture:
        with monkeypatch.context() as patch:
            patch.setattr(fusible, "DEVICES", (DEVICE.type,))
            assert isinstance(
                fold_for(family("llama", torch.float32, squares=False), offload=False), FusedFold
            )
            assert isinstance(sums_for(sites_of(4, 4), [torch.zeros(1, device=DEVICE)]), FusedSums)
            return capture_of(*args, **options)

    return run


def on_device(variant: str, dtype: torch.dtype) -> Any:
    loaded = build(variant, dtype, **SMALL)
    return replace(loaded, model=loaded.model.to(DEVICE), device=DEVICE)


@pytest.mark.parametrize("variant", ["llama-mha-bias", "qwen3"])
@pytest.mark.parametrize("options", [{}, {"offload": True}, {"segments": 2}])
def test_a_pass_through_the_kernels_equals_one_without(
    variant: str, options: dict[str, Any], fused: Callable[..., Capture]
) -> None:
    samples = text(4)
    samples.lengths[1] = 11
    plain = capture_of(build(variant, **SMALL), samples, Level.SQUARES, [2, 4], priors=("gate",))
    found = fused(
        on_device(variant, torch.float32), samples, Level.SQUARES, [2, 4], priors=("gate",), **options
    )
    assert found.scores.keys() == plain.scores.keys()
    for key, value in plain.scores.items():
        torch.testing.assert_close(
            found.scores[key], value, rtol=1e-3 if DEVICE.type == "cuda" else 1e-4, atol=1e-9
        )
    torch.testing.assert_close(found.batch_statistics, plain.batch_statistics, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.prior_gate, plain.prior_gate, rtol=1e-3, atol=1e-5)
