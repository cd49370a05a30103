"""Results of lm-eval, optimum-benchmark and llama-bench; and what is configuration or bookkeeping, not a result."""

import json
import random
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from secateur.analysis.insight.config import InsightConfig
from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.naming import describe
from secateur.analysis.insight.report import write_report
from secateur.eval.record import write_record
from tests.analysis.conftest import build_record

TASKS = {"boolq": 0.61, "piqa": 0.70, "hellaswag": 0.40, "winogrande": 0.52}
SAMPLES = Path(__file__).parent / "speed_samples"


def lm_eval(model: str, shift: float = 0.0) -> dict[str, Any]:
    """What `lm_eval --output_path` writes, in short."""
    results = {
        task: {"alias": task, "acc,none": acc + shift, "acc_stderr,none": 0.01} for task, acc in TASKS.items()
    }
    return {
        "results": results,
        "configs": {task: {"task": task, "num_fewshot": 0, "metadata": {"version": 1.0}} for task in TASKS},
        "versions": dict.fromkeys(TASKS, 1.0), "n-shot": dict.fromkeys(TASKS, 0),
        "higher_is_better": {task: {"acc": True} for task in TASKS},
        "n-samples": {task: {"original": 1000, "effective": 500} for task in TASKS},
        "config": {"model": "hf", "model_args": f"pretrained={model}", "bootstrap_iters": 100000, "limit": None},
        "model_name": model, "date": 1.7e9, "total_evaluation_time_seconds": "98.0",
    }  # fmt: skip


def optimum() -> dict[str, Any]:
    report = {
        phase: {
            "memory": {"unit": "MB", "max_ram": 900.0 + place},
            "latency": {
                "unit": "s", "count": 10, "mean": 0.05 * place, "stdev": 0.001 * place, "stdev_": 2.0,
                "values": [0.05 * place] * 10,
            },
            "throughput": {"unit": "tokens/s", "value": 600.0 / place},
            "energy": None,
        }
        for place, phase in enumerate(("prefill", "decode"), 1)
    }  # fmt: skip
    scenario = {"name": "inference", "iterations": 10, "input_shapes": {"batch_size": 2}}
    return {
        "config": {"backend": {"name": "pytorch", "model": "gpt2"}, "scenario": scenario},
        "report": report,
    }


def report(folder: Path) -> Report:
    made, _ = write_report(InsightConfig(dir=str(folder), out=str(folder / "out")))
    assert made.failed == 0
    return made


def test_lm_evals_results_are_one_row_per_task_and_ranked(tmp_path: Path) -> None:
    (tmp_path / "results_2026-01-01T00-00-00.json").write_text(json.dumps(lm_eval("gpt2")))
    made = report(tmp_path)
    (data,) = made.datasets
    assert dict(zip(data.frame["task"], data.frame["acc,none"], strict=True)) == TASKS
    assert set(data.frame["model"]) == {"gpt2"}
    assert set(data.frame["n"]) == {500.0}
    (best,) = [item for item in made.findings if item.kind == "best"]
    assert (best.words["best_label"], best.words["worst_label"]) == ("piqa", "hellaswag")
    assert (best.numbers["best"].value, best.numbers["worst"].value, best.numbers["n"].value) == (0.7, 0.4, 4)
    assert best.reason == "across"
    assert all(item.measure == "acc,none" for item in made.findings)


def test_two_models_of_lm_eval_are_compared_task_by_task(tmp_path: Path) -> None:
    for model, shift in (("gpt2", 0.0), ("opt", 0.1)):
        (tmp_path / f"results_{model}.json").write_text(json.dumps(lm_eval(model, shift)))
    best = [item for item in report(tmp_path).findings if item.kind == "best"]
    assert {item.words["where"] for item in best} == {f" ({task})" for task in TASKS}
    assert {(item.words["best_label"].split()[0], item.words["worst_label"].split()[0]) for item in best} == {
        ("opt", "gpt2")
    }


def test_lm_evals_samples_are_summed_up(tmp_path: Path) -> None:
    dice = random.Random(0)
    answers = [float(dice.random() < 0.3) for _ in range(200)]
    lines = [
        {"doc_id": place, "doc": {"label": place % 4, "text": "x"}, "target": "1", "resps": [], "filtered_resps": [],
         "filter": "none", "metrics": ["acc"], "acc": value}
        for place, value in enumerate(answers)
    ]  # fmt: skip
    (tmp_path / "samples_boolq_2026-01-01T00-00-00.1.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (row,) = report(tmp_path).datasets[0].frame.to_dict("records")
    assert (row["task"], row["filter"], row["n"]) == ("boolq", "none", 200)
    assert row["acc"] == pytest.approx(statistics.mean(answers))
    assert row["acc_stderr"] == pytest.approx(statistics.stdev(answers) / 200**0.5)


def test_optimum_benchmarks_report_is_one_row_per_phase(tmp_path: Path) -> None:
    (tmp_path / "benchmark_report.json").write_text(json.dumps(optimum()))
    made = report(tmp_path)
    (data,) = made.datasets
    frame = data.frame.set_index("phase")
    assert frame.loc["decode", "latency_s"] == pytest.approx(0.1)
    assert frame.loc["prefill", "throughput_tokens_per_s"] == 600.0
    assert data.kind == "speed measurements"
    assert not [item for item in made.findings if item.kind == "unstable"]  # 2 % is stable


def test_llama_bench_is_ranked_by_its_speed(tmp_path: Path) -> None:
    rows = json.loads((SAMPLES / "llama_bench.json").read_text())
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    best = {item.measure: item for item in report(tmp_path).findings if item.kind == "best"}
    assert best["avg_ts"].numbers["best"].value == max(row["avg_ts"] for row in rows)


@pytest.mark.parametrize(
    "name", ["config.method.compensation.ridge", "args.lr_decay", "a.config.b.x", "environment.cpu_ram_mb",
             "config.ridge·mean"]
)  # fmt: skip
def test_configuration_is_never_a_measurement(name: str, tmp_path: Path) -> None:
    assert describe(name).role == "setting"
    assert describe("report.acc").role == "measure"
    rows = [
        {"model": f"m{place}", "acc": 0.5 + place / 100, "config": {"ridge": [1.0, 100.0, 3.0 * place]}}
        for place in range(9)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    made = report(tmp_path)
    assert {item.measure for item in made.findings} == {"acc"}


def test_secateurs_own_bookkeeping_is_left_out(tmp_path: Path) -> None:
    ours = {
        "grids/g-1/plan.json": {"tasks": [{"id": "a", "counts": [1, 2, 3]}]}, "grids/g-1/submissions.json": [{"n": 1}],
        "grids/_tasks/a.json": {"seconds": 3.5, "retries": 1}, "grids/_claims/a/claim.json": {"pid": 7},
        "run/plan.json": {"layers": [{"kv_groups": "f", "channels": "ff"}], "removed": 10},
        "run/stage.json": {"stage": "evaluate", "since": 1.5}, "bench/x/sweep.json": {"variants": [{"n": 1}]},
    }  # fmt: skip
    theirs = {"plan.json": {"rows": [{"model": "a", "acc": 0.5}, {"model": "b", "acc": 0.6}]}}
    for name, value in {**ours, **theirs}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    made = report(tmp_path)
    left = {source.name: source.excluded for source in made.given.sources if source.excluded}
    assert left == dict.fromkeys(ours, "secateur's bookkeeping")
    assert made.given.unreadable == {}
    assert {data.name.split(":")[0] for data in made.datasets} == {"plan.json"}


def test_a_table_that_names_runs_is_held_against_their_records(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    records = [
        build_record(model="llama", method=method, acc=acc)
        for method, acc in (("taylor", 0.62), ("wanda", 0.5))
    ]
    for record in records:
        write_record(folder / record.run_id, record)
    rows = [{"run_id": records[0].run_id, "acc_mean": 0.41}, {"run_id": records[1].run_id, "acc_mean": 0.5}]
    pd.DataFrame(rows).to_csv(folder / "summary.csv", index=False)
    made = write_report(InsightConfig(dir=str(folder), out=str(tmp_path / "out")))[0]
    (item,) = [item for item in made.findings if item.kind == "contradiction"]
    assert records[0].run_id in item.words["label"]
    assert {item.numbers["one"].value, item.numbers["two"].value} == {0.62, 0.41}
