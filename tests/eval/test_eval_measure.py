"""`measure`: the whole of it on small data, resumed after a kill, with too little memory, in two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from eval.config import METRIC, TASKS, EvalConfig, PerplexityConfig
from eval.fast_lm import FastLM, score_pairs
from eval.measure import Measurements, content_identity, measure
from eval.scoring import TreeScorer
from eval.store import Store
from tests.eval.conftest import cut, make_model, make_pairs

PPL = PerplexityConfig(protocols=("wikitext2@64", "stories@32", "wikitext2@64/16-recount"))


def config(data_dir: Path, **changes: Any) -> EvalConfig:
    return EvalConfig(**{"data_dir": str(data_dir), "backend": "fast", "ppl": PPL, **changes})


def values(result: Measurements) -> dict[str, float | None]:
    return {name: metric.value for name, metric in result.metrics.items()}


def assert_same(first: Measurements, second: Measurements) -> None:
    assert values(first) == values(second)
    pd.testing.assert_frame_equal(first.answers, second.answers)


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
    from eval.screen import paired_difference

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
    import eval.scoring

    model, pairs = make_model("llama"), make_pairs()
    expected = score_pairs(FastLM(model, tokenizer, budget=512), pairs)
    monkeypatch.setattr(eval.scoring, "_budgets", {})
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
    import eval.fast_lm
    from eval.plans import forget_plans

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
    monkeypatch.setattr(eval.fast_lm, "encode_pairs", never)
    assert score_pairs(FastLM(other, tokenizer, cache=tmp_path), pairs) == expected


def stored(folder: Path) -> dict[bytes, tuple[float, bool]]:
    """Every log-likelihood in a run's store."""
    import numpy as np

    result: dict[bytes, tuple[float, bool]] = {}
    for path in folder.rglob("segment-*.npz"):
        with np.load(path, allow_pickle=False) as data:
            pairs = zip(data["values"].tolist(), data["greedy"].tolist(), strict=True)
            result.update(zip(data["keys"].tolist(), pairs, strict=True))
    return result


CHILD = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from eval import store
from eval.measure import measure
from eval.scoring import TreeScorer
from tests.eval.conftest import make_model, make_tokenizer
from tests.eval.test_eval_measure import config
store.FLUSH_SECONDS = 0.0
plain = TreeScorer.hidden
def slow(self, pack, **inputs):
    time.sleep(0.1)
    return plain(self, pack, **inputs)
TreeScorer.hidden = slow
Store = store.Store
settings = config(Path(sys.argv[1]), token_budget=64)
import eval.measure
eval.measure.Store = lambda folder, identity: Store(folder, identity, flush_seconds=0.0)
measure(make_model("llama"), make_tokenizer(), settings, Path(sys.argv[2]), identity="m")
"""


def test_kill_and_again(data_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    """kill -9 in the middle: finished requests stay, only the missing are computed, the numbers are the same."""
    settings = config(data_dir, token_budget=64)
    whole = measure(make_model("llama"), tokenizer, settings, tmp_path / "whole", identity="m")
    folder = tmp_path / "killed"
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(data_dir), str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    deadline = time.monotonic() + 120
    while len(list(folder.rglob("segment-*.npz"))) < 5 and time.monotonic() < deadline:
        assert process.poll() is None, "the child ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = measure(make_model("llama"), tokenizer, settings, folder, identity="m")
    assert_same(resumed, whole)
    assert stored(folder) == stored(tmp_path / "whole")  # to the last bit
    assert 0 < resumed.counters["requests_reused"] < whole.counters["requests"]
    assert resumed.counters["forward_tokens"] < whole.counters["forward_tokens"]


WORKER = """
import os, sys
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist
torch.set_num_threads(1)
rank = int(sys.argv[1])
meet = f"file://{sys.argv[2]}"
dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timedelta(seconds=100))
from eval.measure import measure
from tests.eval.conftest import make_model, make_tokenizer
from tests.eval.test_eval_measure import config, values
import json
for backend in ("fast", "hflm"):
    settings = config(Path(sys.argv[3]), token_budget=64, backend=backend)
    result = measure(make_model("llama"), make_tokenizer(), settings, Path(sys.argv[4]) / backend, identity="m")
    Path(sys.argv[4], f"{backend}-{rank}.json").write_text(json.dumps([values(result), result.counters]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(data_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "out").mkdir()
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WORKER,
                str(rank),
                str(tmp_path / "meet"),
                str(data_dir),
                str(tmp_path / "out"),
            ],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=200) for worker in workers] == [0, 0]
    for backend in ("fast", "hflm"):
        settings = config(data_dir, token_budget=64, backend=backend)
        alone = measure(make_model("llama"), tokenizer, settings, tmp_path / "alone" / backend, identity="m")
        runs = [json.loads((tmp_path / "out" / f"{backend}-{rank}.json").read_text()) for rank in range(2)]
        assert runs[0][0] == runs[1][0]
        for name, value in values(alone).items():
            assert runs[0][0][name] == pytest.approx(value, rel=1e-6)
        if backend == "fast":
            assert max(run[1]["forward_tokens"] for run in runs) < alone.counters["forward_tokens"]


def test_identity_of_content() -> None:
    assert content_identity(make_model("llama")) == content_identity(make_model("llama"))
    changed = make_model("llama")
    with torch.no_grad():
        changed.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    assert content_identity(changed) != content_identity(make_model("llama"))


def test_merging_keeps_what_other_processes_wrote(tmp_path: Path) -> None:
    import numpy as np

    from eval.store import MERGE_ABOVE, request_keys

    mine, other = Store(tmp_path, {"model": "m"}), Store(tmp_path, {"model": "m"})
    keys = request_keys([("context", f" {i}") for i in range(MERGE_ABOVE + 4)])
    other.add(keys[-1:], np.array([-9.0]), np.array([True]))
    other.flush()
    for i in range(MERGE_ABOVE + 2):
        mine.add(keys[i : i + 1], np.array([-float(i)]), np.array([False]))
        mine.flush()
    mine.merge()
    assert len(list(tmp_path.rglob("segment-*.npz"))) == 2
    found, values, greedy = Store(tmp_path, {"model": "m"}).get(keys)
    assert found.tolist() == [True] * (MERGE_ABOVE + 2) + [False, True]
    assert values.tolist() == [*(-float(i) for i in range(MERGE_ABOVE + 2)), 0.0, -9.0]
    assert greedy.tolist() == [False] * (MERGE_ABOVE + 3) + [True]
