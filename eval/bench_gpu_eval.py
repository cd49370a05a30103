"""The steps of `eval/bench_gpu.py` that measure: log-likelihoods against HFLM and a referee, prefill and decode."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from secateur.eval.bench_gpu_row import Bench, Row
from secateur.eval.bench_setup import prompts, train_tokenizer
from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.hflm import StoredHFLM
from secateur.eval.plans import forget_plans
from secateur.eval.referee import referee
from secateur.eval.speed.bounds import decode_bytes, decode_flops, prefill_bytes, prefill_flops
from secateur.eval.speed.models import facts_of
from secateur.eval.speed.timing import make_cache, prompt, timed_pass
from secateur.eval.tokens import encode_pairs
from secateur.eval.trie import MergeRule, build_trees
from secateur.pruning.allocation import make_plan
from secateur.pruning.bench_capture import SHAPES, build
from secateur.pruning.config import BudgetConfig, GuardConfig, MethodConfig
from secateur.pruning.importance.scores import Scores
from secateur.pruning.memory import give_back
from secateur.pruning.models.adapter import STRUCTURES
from secateur.pruning.models.layout import read_layout
from secateur.pruning.plan import PruningPlan
from secateur.pruning.surgery import prune

REPEATS = 3
MAX_LENGTH = 2048


def dense_evaluation(bench: Bench) -> Iterator[Row]:
    """The dense model's requests, and a referee in float32."""
    yield from evaluation(bench, "dense")
    tokenizer, pairs = _requests(bench, few=True)
    model: Any = bench.loaded.model
    seconds, peak, verdict = bench.timed(
        lambda: referee(model, copy.deepcopy(model).float(), tokenizer, pairs)
    )
    give_back()
    facts = {**verdict.as_dict(), "no_further": verdict.no_further()}
    yield Row("referee: distances from float32, in nats", seconds, None, "", peak, facts)


def pruned_evaluation(bench: Bench) -> Iterator[Row]:
    """The requests of a pruned model, its first call included."""
    _cut(bench)
    yield from evaluation(bench, "pruned")


def evaluation(bench: Bench, kind: str) -> Iterator[Row]:
    """Ours, everything included, and HFLM's at several batch sizes."""
    model, facts = bench.loaded.model, facts_of(bench.loaded, bench.plan, 0.0)
    tokenizer, pairs = _requests(bench)
    forget_plans()
    seconds, peak, fast = bench.timed(lambda: _fast(model, tokenizer, pairs))
    encoded = encode_pairs(fast, pairs)
    told = "products of the plan's tokens, the head where it is scored"
    floor: float | None = None
    if fast.scorer is not None:
        trees = build_trees(encoded, MAX_LENGTH, MergeRule(fast.scorer.rho))
        scored = len(np.unique(trees.entry_nodes))
        floor = 2.0 * (trees.tokens * facts.linear + scored * facts.head) / bench.roof.flops
    yield Row(f"{kind}: {len(pairs)} requests, ours", seconds, floor, told, peak, {"by": fast.used})
    rows = {tuple(a + b[:-1]) for a, b in encoded}
    floor = 2.0 * sum(map(len, rows)) * (facts.linear + facts.head) / bench.roof.flops
    for size in (4,) if bench.tiny else (16, 32, 64, 128):
        hflm: Any = StoredHFLM(model, tokenizer, batch_size=size)
        seconds, peak, _ = bench.timed(lambda lm=hflm: score_pairs(lm, pairs))
        told = "products of every distinct row, the head everywhere"
        yield Row(f"{kind}: {len(pairs)} requests, HFLM, batch {size}", seconds, floor, told, peak)


def _fast(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> FastLM:
    fast = FastLM(model, tokenizer, max_length=MAX_LENGTH)
    score_pairs(fast, pairs)
    return fast


def _requests(bench: Bench, *, few: bool = False) -> tuple[Any, list[tuple[str, str]]]:
    """A tokenizer whose ids the model knows, and requests of all tasks."""
    tokenizer = train_tokenizer(min(32_000, int(SHAPES[bench.shape]["vocab_size"])))
    fraction = 0.0005 if bench.tiny else 0.003 if few else 0.013
    pairs = [pair for part in prompts(fraction).values() for pair in part]
    return tokenizer, pairs[:: max(1, len(pairs) // 12)] if bench.tiny else pairs


def dense_speed(bench: Bench) -> Iterator[Row]:
    """Prefill and decode of the dense model."""
    yield from _speed(bench, "dense")


def pruned_speed(bench: Bench) -> Iterator[Row]:
    """Prefill and decode at 20 % less."""
    _cut(bench)
    yield from _speed(bench, "pruned 20 %")


def rounded_speed(bench: Bench) -> Iterator[Row]:
    """Prefill and decode at 20 % less, MLP widths in multiples of 128."""
    bench.plan = None
    bench.loaded = replace(bench.loaded, model=bench.loaded.model.to("meta"))
    give_back()
    bench.loaded = build(bench.shape, bench.loaded.device.type)
    _cut(bench, GuardConfig(round_to=128))
    yield from _speed(bench, "pruned 20 %, round_to=128")


def _cut(bench: Bench, guard: GuardConfig | None = None) -> None:
    """Cut the model by 20 %, at random but evenly, unless it is cut already."""
    if bench.plan is not None:
        return
    loaded, dice = bench.loaded, np.random.default_rng(0)
    scores = Scores({s: tuple(dice.random(x.units(s)) for x in loaded.layout.layers) for s in STRUCTURES})
    method = MethodConfig(estimator="random", allocation="uniform")
    bench.plan = make_plan(
        scores, loaded.layout, method, BudgetConfig(ratio=0.2), guard or GuardConfig(), loaded.fingerprint
    )
    prune(loaded.model, loaded.adapter, bench.plan)
    bench.loaded = replace(loaded, layout=read_layout(loaded.model, loaded.adapter))


def _speed(bench: Bench, kind: str) -> Iterator[Row]:
    """By the clock of `secateur bench`; medians of some passes after one that warms up."""
    model: Any = bench.loaded.model
    facts, roof = facts_of(bench.loaded, bench.plan, 0.0), bench.roof
    length, steps = (32, 4) if bench.tiny else (512, 32)
    removed = {} if bench.plan is None else {"removed": _share(bench.plan)}
    for batch in (1,) if bench.tiny else (1, 16):
        ids = prompt(int(SHAPES[bench.shape]["vocab_size"]), batch, length, bench.loaded.device)
        passes = [
            timed_pass(
                model, ids, steps, make_cache(model.config, "dynamic", length + steps + 1), lambda: None
            )
            for _ in range(REPEATS + 1)
        ][1:]
        reading = max(
            prefill_flops(facts, batch, length) / roof.flops,
            prefill_bytes(facts, batch, length) / roof.bandwidth,
        )
        writing = max(
            decode_flops(facts, batch, length, steps) / roof.flops,
            decode_bytes(facts, batch, length, steps) / roof.bandwidth,
        )
        told = "FLOPs or bytes, whichever takes longer"
        where = f"{kind}, batch {batch}"
        yield Row(
            f"{where}: prefill of {length}", median(p.prefill_s for p in passes), reading, told, None, removed
        )
        seconds = median(p.decode_s or 0.0 for p in passes)
        yield Row(f"{where}: {steps} tokens written", seconds, writing, told, None, removed)


def _share(plan: PruningPlan) -> float:
    """What a plan removes, of all parameters."""
    return round(plan.removed / plan.total_parameters, 4)
