"""FlexAttention over trees: numbers of a dense softmax, and few graphs however the layers were cut."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import flex_attention

import secateur.eval.attention_flex as flex
from secateur.eval.attention import TreeMask, UnsupportedAttention
from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.hflm import StoredHFLM
from secateur.eval.packs import Pack, make_pack
from secateur.eval.scoring import TreeScorer
from secateur.eval.trie import MergeRule, build_trees
from secateur.pruning.models.adapter import adapter_for
from secateur.pruning.plan import LayerPlan, PruningPlan
from secateur.pruning.surgery import prune
from tests.eval.conftest import make_model, make_pairs
from tests.families import FAMILIES

GROUPS = (3, 1, 4, 2)
"""KV groups that the layers keep, of four."""

COMPILED = [
    name
    for name in FAMILIES
    if not adapter_for(name).attention.whole and adapter_for(name).implementation is None
]
"""Families whose heads can be cut, and whose attention the kernel computes."""


@pytest.fixture(autouse=True)
def _no_graphs() -> Generator[None]:
    """Graphs of earlier tests are forgotten, those of this one too."""
    torch._dynamo.reset()
    counters.clear()
    flex.compiled.cache_clear()
    yield
    torch._dynamo.reset()
    flex.compiled.cache_clear()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and guarded as ever, but run by PyTorch instead of being lowered: seconds, not minutes."""
    kernel = torch.compile(flex_attention, dynamic=True, fullgraph=True, backend="eager")
    monkeypatch.setattr(flex, "compiled", lambda: kernel)


def graphs() -> int:
    """Graphs that were compiled in this test."""
    return int(counters["stats"]["unique_graphs"])


def cut_model(family: str, groups: tuple[int, ...] = GROUPS, heads: int = 8) -> Any:
    """A model whose layers keep different numbers of KV groups."""
    model = make_model(family, layers=len(groups), num_attention_heads=heads, num_key_value_heads=4)
    channels = tuple(range(48))
    layers = tuple(LayerPlan(4, 48, tuple(range(kept)), channels) for kept in groups)
    return prune(model, adapter_for(model.config.model_type), PruningPlan(layers, "test", 0, 0, 1, 1))


def pack_of(lengths: tuple[int, ...]) -> Pack:
    """Branching trees of about these lengths."""
    rng = np.random.default_rng(len(lengths))
    encoded = []
    for length in lengths:
        base = rng.integers(0, 300, length).tolist()
        encoded += [(base[:n], rng.integers(0, 300, 5).tolist()) for n in (length, length, length // 2)]
    trees = build_trees(encoded, 4096, MergeRule(1e9, min_share=1))
    return make_pack(trees, np.arange(len(trees.sizes)))


@pytest.mark.parametrize("lengths", [(20,), (90, 30, 200)])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize(("heads", "groups"), [(6, 3), (4, 1), (2, 2)])
def test_equals_a_dense_softmax(
    lengths: tuple[int, ...], window: int | None, heads: int, groups: int, traced: None
) -> None:
    pack = pack_of(lengths)
    mask = TreeMask(pack, torch.device("cpu"), "flex")
    query, key, value = (torch.randn(1, n, pack.tokens, 16) for n in (heads, groups, groups))
    with torch.inference_mode():
        found = flex.attend(query, key, value, mask.block(window), 0.3)
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask.dense(window)[None, None], scale=0.3, enable_gqa=True
        )
    assert found.shape == (1, pack.tokens, heads, 16)
    torch.testing.assert_close(found.transpose(1, 2), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family", COMPILED)
def test_a_pruned_model_needs_two_graphs(family: str, traced: None, tokenizer: Any) -> None:
    """Four head counts, packs of every length, windows that act and that don't: HFLM's numbers from two graphs."""
    model, pairs = cut_model(family), make_pairs(documents=3)
    expected = score_pairs(StoredHFLM(model, tokenizer, batch_size=4), pairs)
    for budget in (40, 4000):
        fast = FastLM(model, tokenizer, kind="flex", budget=budget)
        found = score_pairs(fast, pairs)
        assert fast.used == "fast"
        assert [flag for _, flag in found] == [flag for _, flag in expected]
        assert np.abs([a - b for (a, _), (b, _) in zip(found, expected, strict=True)]).max() < 1e-4
    assert graphs() == 2


def test_models_of_any_cut_share_their_graphs(traced: None, tokenizer: Any) -> None:
    pairs = make_pairs(documents=1)
    for groups in ((4, 4), (3, 2), (2, 4, 3)):
        score_pairs(FastLM(cut_model("llama", groups), tokenizer, kind="flex"), pairs)
    assert graphs() == 1


def test_everything_is_compiled_before_the_first_pack(traced: None) -> None:
    """What the thread compiles is what scoring uses."""
    model = cut_model("llama")
    flex.warm_up(model, torch.device("cpu"), torch.float32).result()
    before = graphs()
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert TreeScorer(model, kind="flex").kind == "flex"
    assert before == graphs() == 2


def test_kernels_of_a_model() -> None:
    found = flex.kernels(cut_model("qwen3"))
    one = flex.Kernel(heads=2, width=16, scaling=0.25, single=True)
    assert found == {one, replace(one, single=False)}
    assert {kernel.single for kernel in flex.kernels(cut_model("llama", (2, 3)))} == {False}


@pytest.mark.parametrize("kind", [RuntimeError, torch._dynamo.exc.FailOnRecompileLimitHit])
def test_a_kernel_that_does_not_compile_is_not_used(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    """On a device where FlexAttention is chosen first, its failure leaves the next way, or HFLM, with the reason."""

    def broken() -> Any:
        raise kind("no compiler here")

    monkeypatch.setattr(flex, "compiled", broken)
    monkeypatch.setattr("secateur.eval.scoring.available", lambda device: True)
    model, pairs = make_model("llama"), make_pairs(documents=1)
    fast = FastLM(model, tokenizer)
    expected = score_pairs(StoredHFLM(model, tokenizer), pairs)
    found = score_pairs(fast, pairs)
    assert fast.scorer is not None
    assert fast.scorer.kind == "gather"
    assert np.abs([a - b for (a, _), (b, _) in zip(found, expected, strict=True)]).max() < 1e-4
    left = FastLM(model, tokenizer, kind="flex")
    assert score_pairs(left, pairs) == expected
    assert left.used == "hflm (flex: no compiler here)"
    with pytest.raises(UnsupportedAttention, match="no compiler here"):
        TreeScorer(model, kind="flex").settle()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lowered_kernels_do_not_know_the_head_count(tokenizer: Any) -> None:
    """The same through the real compiler, whose own guards count too."""
    model, pairs = cut_model("llama"), make_pairs(documents=1)
    expected = score_pairs(StoredHFLM(model, tokenizer, batch_size=4), pairs)
    flex.warm_up(model, torch.device("cpu"), torch.float32).result()
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = score_pairs(FastLM(model, tokenizer, kind="flex"), pairs)
    assert np.abs([a - b for (a, _), (b, _) in zip(found, expected, strict=True)]).max() < 1e-4
    assert graphs() == 2
