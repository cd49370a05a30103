"""A folder of run records, measurements and foreign files: right counts, and what was planted is found."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from secateur.analysis.insight.config import InsightConfig
from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.report import write_report
from secateur.eval.record import write_record
from tests.analysis.conftest import build_record, failed_record

MODELS = ("tiny_llama", "tiny_qwen2", "tiny_mistral")
METHODS = ("taylor", "layerwise", "blockwise", "random")
OUTLIER = ("tiny_qwen2", "layerwise")
MISSING = ("tiny_mistral", "blockwise")


def accuracy(model: str, method: str) -> float:
    return (
        0.40
        + 0.05 * MODELS.index(model)
        + {"taylor": 0.10, "layerwise": 0.11, "blockwise": 0.13, "random": 0.0}[method]
    )


def write_runs(folder: Path) -> None:
    """What the demo leaves: three models x four methods and dense runs, one cell missing, one perplexity far off."""
    rng = np.random.default_rng(0)
    for model in MODELS:
        write_record(folder / f"{model}-dense", build_record(model=model, kind="dense", acc=0.7, ppl=6.0))
        for method in METHODS:
            if (model, method) == MISSING:
                continue
            ppl = (
                900.0
                if (model, method) == OUTLIER
                else 12.0 + METHODS.index(method) + float(rng.normal(0, 0.1))
            )
            record = build_record(model=model, method=method, acc=accuracy(model, method), ppl=ppl)
            write_record(folder / record.run_id, record)
            (folder / record.run_id / "plan.json").write_text("{}")
    model = folder / "tiny_llama-taylor-64x128-s0" / "model"
    model.mkdir()
    (model / "config.json").write_text('{"hidden_size": 64, "layers": [1, 2, 90]}')
    for name in ("captures/abc/capture.json", "stages/abc/plan.json"):
        (folder / "cache" / name).parent.mkdir(parents=True)
        (folder / "cache" / name).write_text('{"seconds": [1, 2, 90]}')


def write_foreign(folder: Path) -> None:
    """Speed measurements of two days, evaluation results, a database, and a table that contradicts a run."""
    for day, factor in (("20251001", 1.0), ("20251008", 0.8)):
        rows = [
            {"model": m, "n_prompt": n, "tokens_per_second": round((90 - n / 32) * speed * factor, 2)}
            for m, speed in (("a", 1), ("b", 2))
            for n in (64, 128, 256)
        ]
        pd.DataFrame(rows).to_csv(folder / f"speed_{day}.csv", index=False)
    (folder / "ttft.json").write_text(json.dumps({
        "model": "gemma3_1b", "timestamp": "2025-10-09T10:00:00",
        "cases": [{"prompt": "short", "ttft_ms": [100.0, 101.0, 99.0]},
                  {"prompt": "long", "ttft_ms": [100.0, 300.0, 50.0]}],
    }))  # fmt: skip
    results = {
        "boolq": {"acc,none": 0.61, "acc_stderr,none": 0.01},
        "piqa": {"acc,none": 0.70, "acc_stderr,none": 0.01},
    }
    (folder / "lm_eval.json").write_text(json.dumps({"model_name": "gemma3_1b", "results": results}))
    pd.DataFrame({"step": range(50), "loss": np.linspace(3, 1, 50)}).to_parquet(folder / "loss.parquet")
    with sqlite3.connect(folder / "bench.db") as db:
        db.execute("CREATE TABLE runs (model TEXT, threads INTEGER, latency_ms REAL)")
        db.executemany("INSERT INTO runs VALUES (?, ?, ?)", [("a", t, 100 / t) for t in (1, 2, 4)])
    (folder / "log.jsonl").write_text(
        '{"model": "a", "score": 0.5}\n{"model": "b", "score": 0.7}\nnot json\n'
    )
    claim = accuracy("tiny_llama", "taylor") + 0.08
    (folder / "notes.md").write_text(
        f"# Results\n\n| model | method | acc_mean |\n|--|--|--|\n| tiny_llama | taylor | {claim:.3f} |\n"
        f"| tiny_llama | layerwise | {accuracy('tiny_llama', 'layerwise'):.2f} |\n| odd | row |\n"
    )


def write_broken(folder: Path) -> None:
    (folder / "broken.json").write_text('{"a": [1, 2')
    (folder / "empty.csv").write_text("")
    (folder / "latin.csv").write_bytes("modèle,acc\nx,1\n".encode("latin-1"))
    (folder / "torn.parquet").write_bytes(b"PAR1 and no more")
    (folder / "not_a.db").write_bytes(b"hello" * 100)
    (folder / "prose.md").write_text("# Nothing\n\nOnly words.\n")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "torn_run").mkdir()
    (folder / "torn_run" / "record.json").write_text('{"run_id": "x", "kind":')
    write_record(folder / "failed_run", failed_record(model="tiny_llama", method="taylor", seed=7))
    (folder / "weights.pt").write_bytes(b"\x80\x04cposix\nsystem\n")
    (folder / "plot.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.json").write_text("{}")
    os.mkfifo(folder / "pipe.csv")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    (folder / "runs").mkdir()
    write_runs(folder / "runs")
    write_foreign(folder)
    write_broken(folder)
    return folder


@pytest.fixture(scope="module")
def report(results: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("insight")
    return write_report(InsightConfig(dir=str(results), out=str(out)), today="2026-01-01")[0], out


@pytest.fixture(scope="module")
def machine(report: tuple[Report, Path]) -> dict[str, Any]:
    return json.loads((report[1] / "insight.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def findings(machine: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in machine["findings"] if item["kind"] == kind]


def test_every_file_is_counted_once(results: Path, machine: dict[str, Any]) -> None:
    files = {item["name"]: item for item in machine["inventory"]["files"]}
    real = [p for p in results.rglob("*") if not p.is_dir() and not p.name.startswith(".")]
    counts = machine["inventory"]["counts"]
    assert len(files) == len(real) == counts["files"]
    assert counts["read"] + counts["unreadable"] + counts["excluded"] == counts["files"]
    types = sum(value for key, value in counts.items() if key.startswith("type "))
    assert types == counts["read"]
    assert counts["type secateur run"] == 15  # 3 dense, 11 pruned, 1 failed
    assert counts["type CSV"] == 2
    assert counts["type JSON"] == 2


def test_unreadable_and_excluded_files_are_named_with_the_reason(machine: dict[str, Any]) -> None:
    files = {item["name"]: (item["state"], item["reason"]) for item in machine["inventory"]["files"]}
    for name, reason in {
        "broken.json": "not JSON", "empty.csv": "empty", "latin.csv": "not UTF-8", "torn.parquet": "Parquet",
        "not_a.db": "not a database", "prose.md": "prose", "deep.json": "nested",
        "torn_run/record.json": "damaged record",
    }.items():  # fmt: skip
        assert files[name][0] == "unreadable", name
        assert reason in files[name][1], files[name]
    for name, reason in {
        "weights.pt": "never loaded", "plot.png": "not a format", "pipe.csv": "not a plain file",
        "runs/tiny_llama-taylor-64x128-s0/plan.json": "part of a secateur run",
        "runs/tiny_llama-taylor-64x128-s0/model/config.json": "part of a secateur run",
        "runs/cache/captures/abc/capture.json": "cache", "runs/cache/stages/abc/plan.json": "cache",
    }.items():  # fmt: skip
        assert files[name][0] == "excluded", name
        assert reason in files[name][1]
    assert files["failed_run/failed.json"] == (
        "read",
        "failed: evaluate: OutOfMemoryError: CUDA out of memory",
    )
    notes = {(item["file"], item["note"].split(": ")[-1]) for item in machine["inventory"]["notes"]}
    assert ("log.jsonl", "1 damaged line(s) left out") in notes
    assert ("notes.md", "1 row(s) with another number of cells than the header left out") in notes


def test_kinds_are_recognised(machine: dict[str, Any]) -> None:
    kinds = {file: data["kind"] for data in machine["datasets"] for file in data["files"]}
    assert kinds["runs/tiny_llama-dense/record.json"] == "pruning runs"
    assert kinds["speed_20251001.csv"] == kinds["ttft.json"] == kinds["bench.db"] == "speed measurements"
    assert kinds["lm_eval.json"] == kinds["log.jsonl"] == "evaluation results"


def test_the_planted_outlier_is_found(machine: dict[str, Any]) -> None:
    found = [item for item in findings(machine, "outlier") if item["measure"] == "ppl"]
    assert len(found) == 1
    assert found[0]["strength"] == "strong"
    assert all(word in found[0]["words"]["label"] for word in OUTLIER)
    assert found[0]["numbers"]["value"]["value"] == 900.0
    assert found[0]["evidence"][0]["file"] == "runs/tiny_qwen2-layerwise-64x128-s0/record.json"


def test_the_planted_gap_is_found(machine: dict[str, Any]) -> None:
    found = findings(machine, "missing")
    assert [item["missing"] for item in found] == [[" ".join(MISSING)]]
    assert found[0]["numbers"]["total"]["value"] == 12


def test_the_planted_contradiction_is_found_and_a_rounded_value_is_none(machine: dict[str, Any]) -> None:
    found = findings(machine, "contradiction")
    assert len(found) == 1
    assert found[0]["measure"] == "acc_mean"
    files = {spot["file"]: spot["value"] for spot in found[0]["evidence"]}
    assert files == pytest.approx({"runs/tiny_llama-taylor-64x128-s0/record.json": 0.50, "notes.md": 0.58})
    assert found[0]["strength"] == "strong"


def test_changes_unstable_measurements_best_and_factors(machine: dict[str, Any]) -> None:
    changes = findings(machine, "change")
    assert len(changes) == 6
    assert all(item["numbers"]["relative"]["value"] == pytest.approx(-20, abs=0.1) for item in changes)
    assert {(c["words"]["from"], c["words"]["to"], c["words"]["verdict"]) for c in changes} == {
        ("2025-10-01", "2025-10-08", "worse")
    }
    unstable = findings(machine, "unstable")
    assert [item["words"]["label"] for item in unstable] == ["long"]
    assert unstable[0]["numbers"]["cv"]["value"] == pytest.approx(np.std([100, 300, 50], ddof=1) / 150 * 100)
    best = [
        f
        for f in findings(machine, "best")
        if f["measure"] == "acc_mean" and f["dataset"].startswith("runs ")
    ]
    assert {f["words"]["where"] for f in best} == {
        f" ({model})" for model in MODELS
    }  # models are not choices
    highest = max(accuracy(m, k) for m in MODELS for k in METHODS if (m, k) != MISSING)
    assert max(f["numbers"]["best"]["value"] for f in best) == pytest.approx(highest)
    lost = [f for f in findings(machine, "distance") if f["measure"] == "acc_mean"]
    gaps = {f["words"]["subject"]: f["numbers"]["relative"]["value"] for f in lost}
    assert gaps["tiny_llama"] == pytest.approx((0.53 / 0.7 - 1) * 100)
    factors = {
        item["words"]["factor"] for item in findings(machine, "factor") if item["measure"] == "acc_mean"
    }
    assert "method" in factors


def test_every_fact_has_its_place(report: tuple[Report, Path]) -> None:
    facts = pq.read_table(report[1] / "facts.parquet").to_pandas()
    assert list(facts.columns) == ["file", "dataset", "row", "column", "time", "value", "unit"]
    row = facts[
        (facts["file"] == "speed_20251008.csv")
        & (facts["column"] == "tokens_per_second")
        & (facts["row"] == 1)
    ]
    assert row[["value", "unit", "time"]].to_numpy().tolist() == [[70.4, "tokens/s", "2025-10-08"]]
    ours = facts[facts["file"].str.startswith("runs/tiny_llama-taylor")]
    assert float(ours.loc[ours["column"] == "acc_mean", "value"].iloc[0]) == pytest.approx(0.5)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_template_narrative_passes_its_own_guard(results: Path, tmp_path: Path, lang: str) -> None:
    made, paths = write_report(InsightConfig(dir=str(results), out=str(tmp_path), lang=lang))
    assert made.checked > 30
    assert made.failed == 0, [v.sentence for text in made.narrative.values() for v in text.failed]
    text = paths[1].read_text(encoding="utf-8")
    links = text.count("[^F")
    assert links > made.checked  # every figure, and the footnotes themselves
    assert "~~" not in text
    page = paths[0].read_text(encoding="utf-8")
    assert page.count('class="fact"') == made.checked
    assert "<del" not in page


def test_a_report_inside_the_folder_is_not_read_again(results: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("pipe.csv"))
    first = write_report(InsightConfig(dir=str(folder), out=str(folder / "report")))[0]
    second = write_report(InsightConfig(dir=str(folder), out=str(tmp_path / "other")))[0]
    assert [s.excluded for s in second.given.sources if s.name.startswith("report/")] == [
        "part of an insight report"
    ] * 4
    assert len(second.findings) == len(first.findings)


def test_files_with_the_same_columns_about_different_models_do_not_contradict(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for place, model in enumerate(("llama", "qwen")):
        rows = [
            {"method": m, "seq_len": n, "acc": 0.3 + 0.1 * place + n / 1000}
            for m in ("a", "b")
            for n in (16, 32, 64)
        ]
        pd.DataFrame(rows).to_csv(folder / f"{model}.csv", index=False)
    made = write_report(InsightConfig(dir=str(folder), out=str(tmp_path / "out")))[0]
    assert not [item for item in made.findings if item.kind == "contradiction"]
    best = next(item for item in made.findings if item.kind == "best")
    assert best.words["where"] in (" (llama)", " (qwen)")
    assert best.words["best_label"] == "a seq_len=64"
