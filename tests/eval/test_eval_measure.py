"""`measure`: the whole of it on small data, with too little memory, with a damaged store."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.eval.config import METRIC, TASKS, PerplexityConfig
from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.measure import measure
from secateur.eval.scoring import TreeScorer
from secateur.eval.store import Store
from secateur.pruning.errors import NumericsError
from tests.eval.conftest import cut, make_model, make_pairs
from tests.eval.measuring import PPL, assert_same, config


@pytest.mark.parametrize("shape", ["dense", "uneven"])
def test_both_backends_agree_to_the_last_digit(
    shape: str, data_dir: Path, tokenizer: Any, tmp_path: Path
) -> None:
    model = cut(make_model("qwen3"), shape)
    fast = measure(model, tokenizer, config(data_dir), tmp_path / "fast")
    slow = measure(model, tokenizer, config(data_dir, backend="hflm"), tmp_path / "hflm")
    assert_same(fast, slow)
    assert fast.card["harness"]["backend"] == "fast"
    assert slow.card["harness"]["backend"] == "hflm"
    assert fast.counters["forward_tokens"] < slow.counters["forward_tokens"]


def test_content_of_the_measurements(data_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    result = measure(make_model("llama"), tokenizer, config(data_dir), tmp_path / "run", identity="m")
    assert list(dict.fromkeys(result.answers["task"])) == list(TASKS)
    for task in TASKS:
        rows = result.answers[result.answers["task"] == task]
        assert len(rows) == 8
        assert rows["acc"].mean() == result.metrics[f"{task}/acc"].value
        if f"{task}/acc_norm" in result.metrics:
            assert rows["acc_norm"].mean() == result.metrics[f"{task}/acc_norm"].value
        else:
            assert rows["acc_norm"].isna().all()
        assert result.metrics[f"{task}/acc"].n == 8
    leading = [result.metrics[f"{task}/{METRIC[task]}"] for task in TASKS]
    mean = result.metrics["acc_mean"]
    assert mean.value == pytest.approx(sum(m.value or 0 for m in leading) / 7)
    assert mean.stderr == pytest.approx(sum((m.stderr or 0) ** 2 for m in leading) ** 0.5 / 7)
    assert result.card["tasks"]["arc_easy"] | {"data": ""} == {
        "metric": "acc_norm",
        "version": 1.0,
        "num_fewshot": 0,
        "limit": None,
        "screen": None,
        "data": "",
    }
    assert [item["name"] for item in result.card["perplexity"]] == list(PPL.protocols)
    assert result.counters["requests"] == result.counters["requests_computed"] == 2 * 8 * 3 + 4 * 8 * 4
    json.dumps(result.card, allow_nan=False)


def test_a_repeated_measurement_is_free(data_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    model, settings = make_model("llama"), config(data_dir)
    first = measure(model, tokenizer, settings, tmp_path / "run", identity="m")
    again = measure(model, tokenizer, settings, tmp_path / "run", identity="m")
    assert_same(first, again)
    assert again.counters["requests_computed"] == again.counters["forward_tokens"] == 0
    other = measure(make_model("llama", seed=5), tokenizer, settings, tmp_path / "run", identity="other")
    assert other.counters["requests_reused"] == 0
    part = measure(
        model, tokenizer, config(data_dir, limit=3, tasks=("piqa",)), tmp_path / "run", identity="m"
    )
    assert part.counters["requests_computed"] == 0


def test_screening_is_stratified_paired_and_labelled(data_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    from secateur.eval.screen import paired_difference

    settings = config(data_dir, screen=4, ppl=PerplexityConfig(protocols=()))
    dense = measure(make_model("llama"), tokenizer, settings, tmp_path / "a", identity="a")
    other = measure(make_model("llama", seed=3), tokenizer, settings, tmp_path / "b", identity="b")
    assert dense.answers["question"].tolist() == other.answers["question"].tolist()
    for _, rows in dense.answers.groupby("task"):
        assert [question // 2 for question in rows["question"]] == [0, 1, 2, 3]  # one of each stretch of two
    assert dense.card["screening"] == {"questions_per_task": 4}
    assert dense.card["tasks"]["piqa"]["screen"] == 4
    differences = paired_difference(other.answers, dense.answers)
    for task in TASKS:
        name = f"{task}/{METRIC[task]}"
        delta = (other.metrics[name].value or 0) - (dense.metrics[name].value or 0)
        assert differences[task].value == pytest.approx(delta)
        assert differences[task].low <= delta <= differences[task].high
    assert differences["acc_mean"].n == 28


def test_out_of_memory_halves_the_budget(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import secateur.eval.scoring

    model, pairs = make_model("llama"), make_pairs()
    expected = score_pairs(FastLM(model, tokenizer, budget=512), pairs)
    monkeypatch.setattr(secateur.eval.scoring, "_budgets", {})
    plain = TreeScorer.hidden
    failures: list[int] = []

    def greedy_for_memory(self: TreeScorer, pack: Any, **inputs: Any) -> torch.Tensor:
        if pack.tokens > 300:
            failures.append(pack.tokens)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return plain(self, pack, **inputs)

    monkeypatch.setattr(TreeScorer, "hidden", greedy_for_memory)
    fast = FastLM(model, tokenizer, budget=512)
    ours = score_pairs(fast, pairs)
    assert len(failures) == 1
    assert fast.scorer is not None
    assert fast.scorer.budget <= 256
    assert max(abs(a - b) for (a, _), (b, _) in zip(ours, expected, strict=True)) <= 1e-4
    assert [flag for _, flag in ours] == [flag for _, flag in expected]
    assert TreeScorer(model).budget == fast.scorer.budget  # the next model starts with it


def test_another_error_is_not_swallowed(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = FastLM(make_model("llama"), tokenizer)

    def broken(self: TreeScorer, pack: Any, **inputs: Any) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(TreeScorer, "hidden", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        score_pairs(fast, make_pairs())


def test_store_survives_damage(tmp_path: Path, tokenizer: Any) -> None:
    model, pairs = make_model("llama"), make_pairs()
    first = FastLM(model, tokenizer, store=Store(tmp_path, {"model": "m"}))
    expected = score_pairs(first, pairs)
    (segment,) = tmp_path.rglob("segment-*.npz")
    segment.write_bytes(segment.read_bytes()[:100])
    second = FastLM(model, tokenizer, store=Store(tmp_path, {"model": "m"}))
    assert score_pairs(second, pairs) == expected
    assert second.counters["requests_reused"] == 0
    third = FastLM(model, tokenizer, store=Store(tmp_path, {"model": "m"}))
    assert score_pairs(third, pairs) == expected
    assert third.counters["requests_computed"] == 0


def test_plan_on_disk_is_shared_by_models(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import secateur.eval.fast_lm
    from secateur.eval.plans import forget_plans

    pairs = make_pairs()
    forget_plans()
    score_pairs(FastLM(make_model("llama"), tokenizer, cache=tmp_path), pairs)
    assert len(list((tmp_path / "plans").glob("*.npz"))) == 1
    forget_plans()

    def never(*_: Any) -> None:
        raise AssertionError("the plan is on disk; nothing is tokenised")

    other = cut(make_model("llama", seed=4), "uneven")
    expected = score_pairs(FastLM(other, tokenizer), pairs)
    forget_plans()
    monkeypatch.setattr(secateur.eval.fast_lm, "encode_pairs", never)
    assert score_pairs(FastLM(other, tokenizer, cache=tmp_path), pairs) == expected


@pytest.mark.parametrize("backend", ["fast", "hflm"])
def test_log_likelihoods_that_are_nan_choose_no_answer(
    backend: Any, tokenizer: Any, data_dir: Path, tmp_path: Path
) -> None:
    """An accuracy of NaN would be the share of questions whose first choice is right."""
    model = make_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(
        NumericsError, match=r"log-likelihoods are NaN.*layers\.1\.mlp\.up_proj\.weight holds 1 NaN"
    ):
        measure(model, tokenizer, config(data_dir, tasks=("piqa",), backend=backend), tmp_path / "run")
