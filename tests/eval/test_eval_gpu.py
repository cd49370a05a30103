"""On an accelerator (or where `SECATEUR_TEST_DEVICE` says): evaluation is HFLM's, and the speed clock is the host's."""

import copy
import time
from typing import Any

import numpy as np
import pytest
import torch

from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.hflm import StoredHFLM
from secateur.eval.referee import referee
from secateur.eval.speed.timing import make_cache, prompt, timed_pass
from secateur.pruning.memory import Meter
from tests.eval.conftest import cut, make_model, make_pairs
from tests.families import FAMILIES

pytestmark = pytest.mark.gpu
PAIRS = make_pairs(documents=3)


@pytest.mark.parametrize("shape", ["dense", "uneven", "no_attention_0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_dense_and_pruned_equals_hflm_on_the_cpu(
    family: str, shape: str, tokenizer: Any, device: torch.device
) -> None:
    model = cut(make_model(family), shape)
    expected = score_pairs(StoredHFLM(model, tokenizer, batch_size=4), PAIRS)
    fast = FastLM(model.to(device), tokenizer)
    found = score_pairs(fast, PAIRS)
    assert fast.used == "fast"
    values = np.array([[a, b] for (a, _), (b, _) in zip(found, expected, strict=True)])
    assert np.abs(values[:, 0] - values[:, 1]).max() <= 1e-3
    assert [flag for _, flag in found] == [flag for _, flag in expected]


def test_bfloat16_is_no_further_from_float32_than_hflm(tokenizer: Any, device: torch.device) -> None:
    model = make_model("llama").to(device)
    verdict = referee(copy.deepcopy(model).bfloat16(), model, tokenizer, PAIRS)
    assert verdict.used == "fast"
    assert verdict.no_further(slack=0.5)


def test_the_parts_add_up_to_what_the_host_waits_for(device: torch.device) -> None:
    """Events on a GPU, the host's clock elsewhere; peaks of the allocator are seen."""
    model = make_model("llama", hidden_size=512, intermediate_size=2048, num_attention_heads=8).to(device)
    ids = prompt(320, 4, 128, device)
    timed_pass(model, ids, 16, make_cache(model.config, "dynamic", 160), lambda: None)
    meter = Meter(device)
    start = time.perf_counter()
    timed = timed_pass(model, ids, 16, make_cache(model.config, "dynamic", 160), lambda: None)
    waited = time.perf_counter() - start
    assert timed.decode_s is not None
    assert 0.5 * waited < timed.prefill_s + timed.decode_s < 1.1 * waited
    if device.type == "cuda":
        assert meter.peak().growth() > 0
