"""Prefix reuse: bit-equal numbers, less work, and refusal where the prefix is not the same."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.prefix import PrefixReuse
from tests.eval.conftest import make_model, make_pairs
from tests.families import FAMILIES

PAIRS = make_pairs()


def pruned(family: str, first: int, seed: int = 1) -> Any:
    """A 6-layer model whose layers from `first` on differ from the base model's."""
    model = make_model(family, layers=6)
    torch.manual_seed(seed)
    with torch.no_grad():
        for layer in model.model.layers[first:]:
            for parameter in layer.parameters():
                parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
    return model


def count_calls(model: Any, layer: int) -> list[int]:
    calls: list[int] = []
    model.model.layers[layer].register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("family", FAMILIES)
def test_reuse_is_bit_equal_and_skips_layers(family: str, tokenizer: Any, tmp_path: Path) -> None:
    reuse = PrefixReuse(tmp_path, depth=4)
    first, second = pruned(family, 4, seed=1), pruned(family, 4, seed=2)
    plain = [score_pairs(FastLM(model, tokenizer, budget=128), PAIRS) for model in (first, second)]
    assert plain[0] != plain[1]
    assert score_pairs(FastLM(first, tokenizer, budget=128, reuse=reuse), PAIRS) == plain[0]
    assert len(list((tmp_path / "prefix").glob("*.bin"))) == 1
    fast = FastLM(second, tokenizer, budget=128, reuse=reuse)
    below, above = count_calls(second, 3), count_calls(second, 4)
    assert score_pairs(fast, PAIRS) == plain[1]
    assert len(below) == 1  # the proof on the smallest pack
    assert len(above) > 5
    assert len(second.model.layers) == 6


def test_another_prefix_is_not_reused(tokenizer: Any, tmp_path: Path) -> None:
    reuse = PrefixReuse(tmp_path, depth=4)
    score_pairs(FastLM(pruned("llama", 4), tokenizer, reuse=reuse), PAIRS)
    other = pruned("llama", 2)
    expected = score_pairs(FastLM(other, tokenizer), PAIRS)
    assert score_pairs(FastLM(other, tokenizer, reuse=reuse), PAIRS) == expected
    assert len(list((tmp_path / "prefix").glob("*.bin"))) == 2


def test_wrong_kept_states_are_noticed(
    tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reuse = PrefixReuse(tmp_path, depth=4)
    model = pruned("llama", 4)
    expected = score_pairs(FastLM(model, tokenizer, reuse=reuse), PAIRS)
    (kept,) = (tmp_path / "prefix").glob("*.bin")
    kept.write_bytes(bytes(kept.stat().st_size))
    with caplog.at_level(logging.WARNING):
        assert score_pairs(FastLM(model, tokenizer, reuse=reuse), PAIRS) == expected
    assert "not bit-equal" in caplog.text


def test_limit(tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = pruned("llama", 4)
    expected = score_pairs(FastLM(model, tokenizer), PAIRS)
    with caplog.at_level(logging.WARNING):
        limited = FastLM(model, tokenizer, reuse=PrefixReuse(tmp_path, depth=4, limit_bytes=1000))
        assert score_pairs(limited, PAIRS) == expected
    assert "more than its limit" in caplog.text
    assert list((tmp_path / "prefix").iterdir()) == []
