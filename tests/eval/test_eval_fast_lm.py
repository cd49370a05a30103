"""The fast LM gives HFLM's numbers, for every family and every way a pruned model can look."""

from typing import Any

import numpy as np
import pytest
import torch

from secateur.eval.attention import UnsupportedAttention
from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.hflm import StoredHFLM
from secateur.eval.scoring import TreeScorer
from tests.eval.conftest import CONTEXT, SHAPES, cut, make_model, make_pairs, make_tokenizer
from tests.families import FAMILIES

TOLERANCE = 1e-4
PAIRS = make_pairs()


def oracle(
    model: Any, tokenizer: Any, pairs: list[tuple[str, str]], **options: Any
) -> list[tuple[float, bool]]:
    return score_pairs(StoredHFLM(model, tokenizer, batch_size=4, **options), pairs)


def assert_equal(ours: list[tuple[float, bool]], theirs: list[tuple[float, bool]]) -> None:
    values = np.array([[a, b] for (a, _), (b, _) in zip(ours, theirs, strict=True)])
    assert np.isfinite(values).all()
    assert np.abs(values[:, 0] - values[:, 1]).max() <= TOLERANCE
    assert [flag for _, flag in ours] == [flag for _, flag in theirs]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_hflm(family: str, shape: str, tokenizer: Any) -> None:
    model = cut(make_model(family), shape)
    fast = FastLM(model, tokenizer)
    assert fast.used == "fast"
    expected = oracle(model, tokenizer, PAIRS)
    assert_equal(score_pairs(fast, PAIRS), expected)
    assert fast.counters["forward_tokens"] < 0.75 * sum(len(tokenizer(a + b)["input_ids"]) for a, b in PAIRS)


def test_greedy_flags_of_both_kinds_occur(tokenizer: Any) -> None:
    """Continuations that the model itself would write are greedy, and only those."""
    model = make_model("llama")
    pairs: list[tuple[str, str]] = []
    for text in ("the cat sat", "rain fell over green", "seven boats"):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        best = int(model(ids).logits[0, -1].argmax())
        word = tokenizer.decode([best])
        if tokenizer(text + word)["input_ids"] == [*ids[0].tolist(), best]:
            pairs.append((text, word))
    assert pairs
    assert [flag for _, flag in score_pairs(FastLM(model, tokenizer), pairs)] == [True] * len(pairs)
    assert [flag for _, flag in oracle(model, tokenizer, pairs)] == [True] * len(pairs)


def test_without_bos_token() -> None:
    tokenizer = make_tokenizer(bos=False)
    model = make_model("qwen2")
    assert_equal(score_pairs(FastLM(model, tokenizer), PAIRS), oracle(model, tokenizer, PAIRS))


def test_text_that_begins_with_bos(tokenizer: Any) -> None:
    model = make_model("llama")
    pairs = [("<s>the cat", " sat"), ("the cat", " sat"), ("", "<s>the cat")]
    assert_equal(score_pairs(FastLM(model, tokenizer), pairs), oracle(model, tokenizer, pairs))


def test_layers_dropped_with_stale_numbers(tokenizer: Any) -> None:
    """Layers taken out by hand keep their old layer_idx; without a KV cache that does not matter."""
    model = make_model("llama", layers=4)
    del model.model.layers[1]
    model.config.num_hidden_layers = 3
    ours = score_pairs(FastLM(model, tokenizer), PAIRS)
    model.config.use_cache = False  # HFLM itself would fail otherwise
    assert_equal(ours, oracle(model, tokenizer, PAIRS))


@pytest.mark.parametrize("kind", ["gather", "eager"])
@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_every_kernel_and_budget(kind: Any, budget: int, tokenizer: Any) -> None:
    model = cut(make_model("mistral"), "uneven")
    fast = FastLM(model, tokenizer, kind=kind, budget=budget)
    assert_equal(score_pairs(fast, PAIRS), oracle(model, tokenizer, PAIRS))


def test_bfloat16_is_within_hflm_batch_noise(tokenizer: Any) -> None:
    model = make_model("llama").bfloat16()
    reference = make_model("llama")
    exact = np.array([value for value, _ in oracle(reference, tokenizer, PAIRS)])
    theirs = [score_pairs(StoredHFLM(model, tokenizer, batch_size=size), PAIRS) for size in (1, 8)]
    noise = max(np.abs(np.array([value for value, _ in run]) - exact).max() for run in theirs)
    ours = np.array([value for value, _ in score_pairs(FastLM(model, tokenizer), PAIRS)])
    assert np.abs(ours - exact).max() <= 1.5 * noise


def test_tied_choices_do_not_arise_in_bfloat16(tokenizer: Any) -> None:
    """lm-eval's default bfloat16 softmax makes different requests exactly equal; a float32 one does not."""
    model = make_model("llama").bfloat16()
    pairs = [("the cat sat on", f" {a} {b}") for a in "abcdefgh" for b in "abcdefgh"]
    coarse = score_pairs(StoredHFLM(model, tokenizer, softmax_dtype=None), pairs)
    fine = score_pairs(FastLM(model, tokenizer), pairs)
    assert len({value for value, _ in coarse}) < len(pairs)
    assert len({value for value, _ in fine}) == len(pairs)


@pytest.mark.parametrize("changes", [{"logit_scale": 0.5}, {"logits_scaling": 4.0}])
def test_scaled_logits(changes: dict[str, float], tokenizer: Any) -> None:
    """Cohere and Granite scale their logits; the head does it as well or the model is refused."""
    from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,
        "pad_token_id": 1,
    }
    torch.manual_seed(0)
    if "logit_scale" in changes:
        model: Any = CohereForCausalLM(CohereConfig(**shape, **changes)).eval()
    else:
        model = GraniteForCausalLM(GraniteConfig(**shape, **changes)).eval()
    fast = FastLM(model, tokenizer)
    assert fast.used == "fast"
    assert_equal(score_pairs(fast, PAIRS), oracle(model, tokenizer, PAIRS))


def test_sdpa_without_the_cap_is_noticed(tokenizer: Any) -> None:
    """A kernel that cannot cap the scores leaves them to one that can."""
    model = make_model("gemma2")
    with pytest.raises(UnsupportedAttention, match="caps its scores"):
        TreeScorer(model, kind="flex").settle()
    assert TreeScorer(model).kind == "gather"


def test_a_wrong_mask_is_noticed(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe before each evaluation refuses a kernel whose numbers differ."""
    import secateur.eval.attention

    def causal(self: Any, window: int | None, dtype: torch.dtype) -> None:
        return None

    monkeypatch.setattr(secateur.eval.attention.TreeMask, "padded", causal)
    with pytest.raises(UnsupportedAttention, match="differ"):
        TreeScorer(make_model("llama"))


def test_packed_rows_need_the_cache_off(tokenizer: Any) -> None:
    """With `use_cache` at its default the layers would keep a cache; the decoder is always called without."""
    model = make_model("llama")
    seen: list[Any] = []
    model.model.layers[0].register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs.get("past_key_values")), with_kwargs=True
    )
    score_pairs(FastLM(model, tokenizer), PAIRS)
    assert model.config.use_cache is True
    assert seen
    assert all(cache is None for cache in seen)


def test_model_comes_back_as_it_was(tokenizer: Any) -> None:
    model = make_model("mistral").train()
    before = model.config._attn_implementation
    score_pairs(FastLM(model, tokenizer), PAIRS[:6])
    assert model.training
    assert model.config._attn_implementation == before
    assert model.config.use_cache is True


def test_rolling_and_generation(tokenizer: Any) -> None:
    from lm_eval.api.instance import Instance

    model = make_model("llama")
    text = " ".join(sentence for sentence, _ in make_pairs(5)[:30])
    assert len(tokenizer(text)["input_ids"]) > CONTEXT
    rolling = [Instance("loglikelihood_rolling", {}, (text,), 0)]
    ours = FastLM(model, tokenizer).loglikelihood_rolling(rolling, disable_tqdm=True)
    theirs = StoredHFLM(model, tokenizer).loglikelihood_rolling(rolling, disable_tqdm=True)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    request = [Instance("generate_until", {}, ("the cat", {"until": ["."], "max_gen_toks": 5}), 0)]
    assert FastLM(model, tokenizer).generate_until(request, disable_tqdm=True) == StoredHFLM(
        model, tokenizer
    ).generate_until(request, disable_tqdm=True)


@pytest.mark.parametrize("backend", [FastLM, StoredHFLM])
def test_continuation_longer_than_the_context(backend: Any, tokenizer: Any) -> None:
    """HFLM stops with an assertion; here the end of the continuation is scored, and counted as clipped."""
    model = make_model("llama")
    lm = backend(model, tokenizer, max_length=16)
    long = " cat" * 40
    ids = torch.tensor([tokenizer("the" + long)["input_ids"][-17:]])
    picked = model(ids[:, :-1]).logits.log_softmax(-1).gather(2, ids[:, 1:, None]).sum()
    assert score_pairs(lm, [("the", long)])[0][0] == pytest.approx(float(picked), abs=TOLERANCE)
    assert lm.counters["requests_clipped"] == 1
