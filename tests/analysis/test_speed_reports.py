"""Both speed reports from a benchmark folder of known content: every format, two languages, none of the old faults."""

import csv
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import secateur.analysis.speed
from secateur.analysis.cli import analyze
from secateur.analysis.formats import about
from secateur.analysis.speed.folders import load_bench
from secateur.analysis.speed.pays import pairs, speed_table
from secateur.analysis.speed.report import write_models_report, write_setting_report
from secateur.eval.speed.journal import (
    Facts,
    Failed,
    Journal,
    Load,
    Roof,
    Sample,
    Sweep,
    Variant,
    write_sweep,
)

PROMPTS, OUTPUTS, ROUNDS = (64, 128, 256, 512, 1024), (32, 64, 96, 128), 5
SUBJECTS = ("alpha", "alpha-random-0.5", "beta")
PARAMETERS = {"alpha": 1000, "alpha-random-0.5": 500, "beta": 2000}


def facts(place: int, subject: str) -> Facts:
    dense = subject.split("-")[0]
    size = PARAMETERS[subject]
    return Facts(
        variant=place, fingerprint=dense, parameters=size, dense_parameters=PARAMETERS[dense], dtype="float32",
        weight_bytes=4 * size, element_bytes=4, linear=size, head=0, layers=({"q": 0, "kv": 0, "window": None},),
        widths=(size,), load_s=0.1, max_batch=8, max_batch_why="limit",
    )  # fmt: skip


def settings(subject: str, threads: int) -> dict[str, Any]:
    return {
        "model.name": subject.split("-")[0], "model.dtype": "float32", "bench.threads": threads,
        "budget.ratio": 0.5 if "-" in subject else 0.0, "method.name": "random", "guard.round_to": 1, "seed": 0,
        "bench.plan": None, "bench.mmap": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a pruned one under threads=1,2; two threads are 10 % faster in prefill and no faster in decode."""
    folder = tmp_path_factory.mktemp("runs") / "bench" / "known"
    folder.mkdir(parents=True)
    grid = [(p, g, b) for p in PROMPTS for g in OUTPUTS for b in (1, 8)]
    cells = tuple(f"{p}x{g}x{'max' if b == 8 else 1}" for p, g, b in grid)
    chosen = [(subject, threads) for subject in SUBJECTS for threads in (1, 2)]
    variants = tuple(
        Variant(subject=s, model=s.split("-")[0], settings=settings(s, t), cells=cells,
                left_out=("2048x32x1",) if s == "beta" else (), context=2048)
        for s, t in chosen
    )  # fmt: skip
    write_sweep(folder, Sweep(name="known", started="2026-01-01", repetitions=ROUNDS, swept=("bench.threads",),
                              variants=variants, provenance={"processor": "an example", "cpus": 2}))  # fmt: skip
    journal, dice = Journal(folder), np.random.default_rng(0)
    for place, (subject, threads) in enumerate(chosen):
        journal.append(facts(place, subject))
        journal.append(Load(variant=place, round=0, load_s=0.1 * threads, first_pass_s=0.01, rss_before=10**8,
                            rss_loaded=2 * 10**8, rss_after_pass=2 * 10**8, rss_peak=3 * 10**8))  # fmt: skip
    journal.append(Roof(dtype="float32", threads=1, flops=1e9, bandwidth=1e9))
    lines = []
    for number in range(ROUNDS):
        for place, (subject, threads) in enumerate(chosen):
            slow = PARAMETERS[subject] / 1000
            for p, g, b in grid:
                noise = 1 + 0.001 * dice.standard_normal(2)
                prefill = (
                    b * slow * (0.002 + 1e-5 * p + 4e-9 * p * p) / (1.1 if threads == 2 else 1.0) * noise[0]
                )
                lines.append(Sample(
                    variant=place, n_prompt=p, n_gen=g, batch=b, largest=b == 8, round=number, position=0, session="s",
                    at="t", prefill_s=prefill, first_token_s=prefill * 1.01, decode_s=slow * g * 0.003 * noise[1],
                    host_before=10**8, host_peak=10**8 + 4096 * b,
                ))  # fmt: skip
    text = "".join(line.model_dump_json() + "\n" for line in lines)
    with journal.path.open("a", encoding="utf-8") as handle:
        handle.write(text)
    return folder


@pytest.fixture(scope="module", params=["en", "zh"])
def models(request: pytest.FixtureRequest, bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(f"models_{request.param}")
    write_models_report(load_bench(bench), out, request.param, today="2026-01-01")
    return out


@pytest.fixture(scope="module", params=["en", "zh"])
def setting(request: pytest.FixtureRequest, bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(f"setting_{request.param}")
    write_setting_report(load_bench(bench), "bench.threads", out, request.param, today="2026-01-01")
    return out


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    found = json.loads((out / "speed_findings.json").read_text(encoding="utf-8"))
    return {
        t["name"]: [dict(zip([c["name"] for c in t["columns"]], row, strict=True)) for row in t["rows"]]
        for t in found["tables"]
    }


def sound(out: Path) -> None:
    """What was wrong with the reference reports is not wrong here."""
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "\\n" not in text
    assert "np." not in text
    assert not re.search(r"\bnan\b|\+ -|None", text)
    width = 0
    for line in text.splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert width in (0, cells), line
            width = cells
        else:
            width = 0
    links = re.findall(r"!?\[[^\]]*\]\(([^)]+)\)", text)
    assert len(links) > 5
    assert all((out / link).is_file() for link in links)
    pictures = {p.name for p in (out / "plots").glob("*.png")}
    assert {link.split("/")[1] for link in links if link.startswith("plots/")} == pictures
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == len(pictures)
    assert "http://" not in re.sub(r'src="data:[^"]+"', "", page)
    for name in tables(out):
        with (out / "tables" / f"{name}.csv").open(encoding="utf-8-sig") as handle:
            rows = list(csv.reader(handle))
        assert {len(row) for row in rows} == {len(rows[0])}


def test_the_models_report_is_sound(models: Path) -> None:
    sound(models)


def test_the_setting_report_is_sound(setting: Path) -> None:
    sound(setting)


def test_every_model_is_in_every_table_under_one_name(models: Path) -> None:
    found = tables(models)
    names = {f"{s} threads={t}" for s in SUBJECTS for t in (1, 2)}
    assert {row["subject"] for row in found["summary"]} == names
    assert len(found["summary"]) == 2 * len(names)
    assert {row["subject"] for row in found["cells"]} == names


def test_curves_are_against_the_size_that_they_name(models: Path) -> None:
    rows = tables(models)["alpha_threads_1_fits"]
    chosen = [(r["phase"], r["axis"], r["form"]) for r in rows if r["chosen"]]
    english = "prefill" in {r["phase"] for r in rows}
    assert (
        len(chosen) == 4
    )  # two phases x prompt length and decode steps; two batches are too few for a curve
    wanted = [
        ("prefill", "prompt length", "time quadratic"), ("prefill", "decode steps", "no dependence"),
        ("decode", "prompt length", "no dependence"), ("decode", "decode steps", "no dependence"),
    ]  # fmt: skip
    if english:
        assert chosen == wanted
    curve = next(r for r in rows if r["chosen"] and r["c"] is not None)
    assert curve["c_low"] <= curve["c"] <= curve["c_high"]
    # cells of both batches: time of the geometric mean batch, sqrt(8), over sqrt(8) sequences
    assert curve["b"] / curve["c"] == pytest.approx(1e-5 / 4e-9, rel=0.05)


def test_pruning_pays_as_it_was_made_to(bench: Path) -> None:
    speeds = load_bench(bench)
    assert len(pairs(speeds)) == 2
    table = speed_table(speeds)
    assert len(table) == 2 * 2 * 2
    assert table["speedup"].to_numpy() == pytest.approx(2.0, rel=1e-3)
    assert (table["speedup_low"] < table["speedup"]).all()
    assert table["flop_bound"].to_numpy() == pytest.approx(2.0)
    assert table["byte_bound"].to_numpy() == pytest.approx(2.0)
    assert set(table["batch"]) == {1, 8}


def test_the_setting_report_says_what_is_so(setting: Path) -> None:
    rows = tables(setting)["differences"]
    assert len(rows) == 3 * 2
    for row in rows:
        fast = row["change_low"] > 0.05
        if fast:
            assert row["change"] == pytest.approx(0.10, abs=0.001)
            assert row["cells"] == 40
        else:
            assert row["change_low"] <= 0 <= row["change_high"]
    assert sum(row["change_low"] > 0.05 for row in rows) == 3
    text = (setting / "report.md").read_text(encoding="utf-8")
    assert "faster: threads=2 beats threads=1 by 10.0" in text or "threads=2 比 threads=1 快 10.0" in text
    assert "no difference within" in text or "以内没有差异" in text
    assert {"raw.csv", "summary.csv", "difference.csv"} <= {p.name for p in setting.glob("*.csv")}
    with (setting / "raw.csv").open(encoding="utf-8-sig") as handle:
        assert sum(1 for _ in csv.DictReader(handle)) == 6 * 40 * ROUNDS * 2
    assert {r["value"] for r in tables(setting)["loads"]} == {"1", "2"}


def test_the_database_holds_everything_and_explains_itself(models: Path) -> None:
    with sqlite3.connect(models / "benchmark_results.db") as connection:
        count = lambda table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: E731
        assert count("measurements") == 6 * 40 * 2
        assert count("samples") == 6 * 40 * 2 * ROUNDS
        assert count("models") == 6
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        for table in ("measurements", "samples", "settings", "sources", "models", "loads"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            explained = connection.execute(
                'SELECT "column" FROM columns WHERE "table" = ?', (table,)
            ).fetchall()
            assert {c for c in columns if c != "id"} == {row[0] for row in explained}
        value = connection.execute(
            "SELECT DISTINCT value FROM settings WHERE name = 'bench.threads' ORDER BY value"
        ).fetchall()
        assert value == [("1",), ("2",)]
        speed = connection.execute(
            "SELECT avg(tokens_per_s) FROM measurements WHERE phase = 'decode' AND batch = 1 AND place = 0"
        ).fetchone()[0]
    connection.close()
    assert speed == pytest.approx(1 / 0.003, rel=0.001)
    assert not list(models.glob("*-wal"))


def test_both_languages_say_the_same_things() -> None:
    folder = Path(secateur.analysis.speed.__file__).parent
    one, other = (
        yaml.safe_load((folder / f"{lang}.yaml").read_text(encoding="utf-8")) for lang in ("en", "zh")
    )

    def keys(node: Any, prefix: str = "") -> dict[str, set[str]]:
        if not isinstance(node, dict):
            return {prefix: set(re.findall(r"{(\w+)", str(node)))}
        return {k: v for name, inner in node.items() for k, v in keys(inner, f"{prefix}.{name}").items()}

    assert keys(one) == keys(other)
    assert all(about(name)["meaning"] for name in one["columns"])


def test_an_unfinished_sweep_is_said(bench: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bench"
    copy.mkdir()
    for path in bench.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    lines = (copy / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "journal.jsonl").write_bytes(b"".join(lines[:-100]) + lines[-1][:20])
    assert any(key == "incomplete" for key, _ in load_bench(copy).notes)
    (copy / "journal.jsonl").write_bytes(b"".join(lines[:-100]))
    Journal(copy).append(Failed(variant=0, cell="64x32x1", reason="out of memory"))
    assert any(key == "failed" for key, _ in load_bench(copy).notes)
    assert any(key == "left_out" and v["n"] == 1 for key, v in load_bench(copy).notes)


def test_the_speed_reports_need_no_model_stack(bench: Path, tmp_path: Path, root: Path) -> None:
    code = (
        "import sys; from secateur.analysis.cli import analyze\n"
        f"assert analyze(['report=setting', 'setting=threads', 'runs={bench}', 'out=o']) == 0\n"
        "print([name for name in ('torch', 'transformers', 'lm_eval') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_llama_bench_makes_both_reports(tmp_path: Path) -> None:
    sample = Path(__file__).parent / "speed_samples" / "llama_bench.json"
    assert analyze(["report=models", f"llama_bench={sample}", f"out={tmp_path / 'models'}"]) == 0
    names = [row["subject"] for row in tables(tmp_path / "models")["summary"]]
    assert names == [f"example-1b-q4_k_m n_threads={n}" for n in (4, 4, 8, 8)]
    assert (
        analyze(["report=setting", "setting=threads", f"llama_bench={sample}", f"out={tmp_path / 'one'}"])
        == 0
    )
    rows = tables(tmp_path / "one")["differences"]
    assert [(row["cells"], row["n"]) for row in rows] == [(2, 3), (1, 3)]
    assert all(row["change"] == pytest.approx(0.9, abs=0.001) for row in rows)
    sound(tmp_path / "one")
