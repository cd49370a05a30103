"""The referee tells rounding from faults."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

import secateur.eval.attention
from secateur.eval.referee import Distance, referee
from secateur.eval.scoring import TreeScorer
from tests.eval.conftest import cut, make_model, make_pairs

PAIRS = make_pairs(documents=3)


def test_distance_is_of_absolute_differences() -> None:
    found, exact = np.array([-1.0, -2.0, -3.0, -10.0]), np.array([-1.5, -2.0, -2.0, -14.0])
    distance = Distance.between(found, exact)
    assert (distance.median, distance.max) == (0.75, 4.0)
    assert distance.p99 == pytest.approx(4.0 - 0.03 * 3.0)


@pytest.mark.parametrize("shape", ["dense", "uneven"])
def test_bfloat16_of_both_is_equally_far_from_float32(shape: str, tokenizer: Any) -> None:
    model = cut(make_model("llama"), shape).bfloat16()
    verdict = referee(model, copy.deepcopy(model).float(), tokenizer, PAIRS)
    assert verdict.used == "fast"
    assert verdict.requests == len(PAIRS)
    assert 0 < verdict.ours.median <= verdict.ours.p99 <= verdict.ours.max < 2
    assert verdict.theirs.median > 0
    assert verdict.no_further(slack=0.5)
    assert set(json.loads(json.dumps(verdict.as_dict()))["ours"]) == {"median", "p99", "max"}


def test_in_float32_nobody_is_off(tokenizer: Any) -> None:
    model = make_model("qwen2")
    verdict = referee(model, copy.deepcopy(model), tokenizer, PAIRS)
    assert max(verdict.ours.max, verdict.theirs.max) < 1e-4


def test_a_fault_of_ours_is_seen(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees whose branches see each other, with the proof switched off that would refuse them."""
    monkeypatch.setattr(secateur.eval.attention.TreeMask, "padded", lambda *_: None)
    monkeypatch.setattr(TreeScorer, "_prove", lambda self, kind: setattr(self, "_kind", kind))
    model = make_model("llama").bfloat16()
    verdict = referee(model, copy.deepcopy(model).float(), tokenizer, PAIRS)
    assert not verdict.no_further(slack=0.5)
    assert verdict.apart.max > 10 * verdict.theirs.median


def test_what_cannot_be_judged_is_refused(tokenizer: Any) -> None:
    model = make_model("llama").bfloat16()
    with pytest.raises(ValueError, match="float32 model"):
        referee(model, model, tokenizer, PAIRS)
    with pytest.raises(ValueError, match="needs requests"):
        referee(model, model.to(torch.float32), tokenizer, [])
