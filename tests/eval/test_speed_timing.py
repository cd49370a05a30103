"""The timed passes do what `generate` does, take the time that a loop by hand takes, and cost what is counted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from secateur.eval.speed.bench_loops import ratios
from secateur.eval.speed.bounds import decode_bytes, decode_flops, kv_bytes, prefill_flops
from secateur.eval.speed.config import BenchConfig
from secateur.eval.speed.fit import largest_batch
from secateur.eval.speed.models import Ready, facts_of
from secateur.eval.speed.timing import make_cache, prompt, timed_pass
from secateur.pruning.memory import Meter
from secateur.pruning.models.adapter import adapter_for
from secateur.pruning.models.layout import read_layout
from secateur.pruning.models.loading import LoadedModel
from tests.eval.conftest import SHAPES, cut, make_model
from tests.families import FAMILIES

CPU = torch.device("cpu")


def ready(model: Any) -> Ready:
    """A model of the tests as the benchmark holds it."""
    adapter = adapter_for(model.config.model_type)
    loaded = LoadedModel(model, None, adapter, read_layout(model, adapter), "test", CPU, None)
    return Ready(model, model, lambda: None, CPU, facts_of(loaded, None, 0.0))


def run(model: Any, ids: torch.Tensor, steps: int, kind: str = "dynamic") -> Any:
    cache = make_cache(model.config, kind, ids.shape[1] + steps + 1)
    return timed_pass(model, ids, steps, cache, lambda: None)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_generate(family: str, shape: str, kind: str) -> None:
    model = cut(make_model(family), shape)
    ids = prompt(320, 2, 11, CPU)
    model.generation_config.eos_token_id = None  # the clock does not stop at a token either
    wanted = model.generate(
        ids, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0,
        attention_mask=torch.ones_like(ids),
    )  # fmt: skip
    assert run(model, ids, 7, kind).tokens.tolist() == wanted[:, 11:].tolist()


def test_parts_are_positive_and_the_first_token_comes_after_the_prefill() -> None:
    timed = run(make_model("llama"), prompt(320, 1, 32, CPU), 4)
    assert 0 < timed.prefill_s <= timed.first_token_s
    assert timed.decode_s is not None
    assert timed.decode_s > 0
    assert run(make_model("llama"), prompt(320, 1, 32, CPU), 0).decode_s is None


def test_times_agree_with_a_loop_by_hand_and_with_generate() -> None:
    """Generous: machines that run tests are busy. `generate` does more per step, so ours may be faster."""
    model = make_model("llama", hidden_size=128, intermediate_size=512, num_attention_heads=8)
    prefill, decode, whole = ratios(model, prompt(320, 1, 96, CPU), 24)
    assert 0.5 < prefill < 2.0
    assert 0.5 < decode < 2.0
    assert 0.2 < whole < 1.5


def counted(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_flops_are_those_that_torch_counts(family: str, shape: str) -> None:
    """Torch counts attention over all pairs of positions, we over those that are seen: its share is half and a bit."""
    one = ready(cut(make_model(family), shape))
    length = 40
    ids = prompt(320, 2, length, CPU)
    model: Any = one.model
    model.set_attn_implementation("eager")  # the counter does not know the CPU's fused attention
    theirs = counted(lambda: one.model(input_ids=ids, logits_to_keep=1))
    attention = 2 * 4 * sum((layer["q"] or 0) * length * length for layer in one.facts.layers)
    seen = attention * (length + 1) / 2 / length
    assert prefill_flops(one.facts, 2, length) == pytest.approx(theirs - attention + seen, rel=1e-6)


def test_decoding_costs_every_weight_and_every_position_that_is_seen() -> None:
    facts = ready(make_model("llama")).facts
    heads, keys = 3 * 32, 3 * 2 * 16
    assert kv_bytes(facts) == 4 * keys
    seen = 11 + 12
    assert decode_flops(facts, 2, 10, 2) == 2 * (2 * 2 * (facts.linear + facts.head) + 4 * heads * seen)
    assert decode_bytes(facts, 2, 10, 2) == 4 * (2 * (facts.linear + facts.head) + 2 * keys * seen)
    window = ready(make_model("mistral")).facts
    assert {layer["window"] for layer in window.layers} == {8}
    assert decode_bytes(window, 1, 100, 1) == 4 * (window.linear + window.head + keys * 8)


def test_the_meter_sees_what_a_pass_takes() -> None:
    meter = Meter(CPU)
    block = torch.ones(64 * 2**20 // 4)
    block.add_(1)
    del block
    peak = meter.peak()
    assert peak.host_before is not None
    if peak.host_peak is None:
        pytest.skip("this system does not let a process reset its peak memory")
    assert 0.9 * 64 * 2**20 < peak.host_peak - peak.host_before < 1.5 * 64 * 2**20
    assert peak.device_peak is None


def test_the_largest_batch_stops_at_the_limit_or_where_memory_ends() -> None:
    one = ready(make_model("llama"))
    tried: list[int] = []
    assert largest_batch(one, BenchConfig(fit_limit=6), tried.append) == (4, "limit")
    assert tried == [1, 2, 4]

    def hungry(batch: int) -> None:
        if batch > 2:
            raise torch.OutOfMemoryError("no more")

    assert largest_batch(one, BenchConfig(fit_limit=64), hungry) == (2, "memory")


@pytest.mark.slow
def test_a_pruned_model_comes_within_15_percent_of_its_flop_ratio() -> None:
    """61 M parameters, whole blocks removed: measurably faster in prefill, as far as FLOPs allow."""
    from secateur.eval.speed.bench_pruned import build, compare

    assert build().num_parameters() >= 60_000_000
    for share, (removed, speedup, ratio) in compare().items():
        assert removed == pytest.approx(share, abs=0.001)
        assert speedup > 1.1
        assert speedup / ratio == pytest.approx(1.0, abs=0.15)
