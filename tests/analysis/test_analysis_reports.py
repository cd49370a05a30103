"""The written reports: complete, strict, documented, the same in both languages, and robust."""

import json
import re
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from secateur.analysis.cross_model import compare_models
from secateur.analysis.export import column_docs, results_table
from secateur.analysis.findings import analyse
from secateur.analysis.folder import LISTING
from secateur.analysis.formats import about, columns, show
from secateur.analysis.load import load_runs
from secateur.analysis.machine import plain, schema
from secateur.analysis.report import write_reports
from secateur.analysis.texts import read_texts
from secateur.eval.config import TASKS
from secateur.eval.record import RunRecord
from tests.analysis.conftest import MakeRecord


def strict_json(path: Path) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{path}: {token} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_everything_is_written_and_valid(reports: dict[str, Path], lang: str) -> None:
    out = reports[lang]
    names = {path.name for path in out.iterdir()}
    assert names - {LISTING} == {
        "report.html", "report.md", "cross_model_comparison.json", "findings.json", "results.parquet",
        "results.sqlite", "results.csv", "layers.parquet", "plots", "tables",
    }  # fmt: skip
    for name in ("cross_model_comparison", "findings"):
        jsonschema.Draft202012Validator.check_schema(schema(name))
        jsonschema.Draft202012Validator(schema(name)).validate(strict_json(out / f"{name}.json"))
    plots = {path.stem for path in (out / "plots").glob("*.png")}
    assert plots == {path.stem for path in (out / "plots").glob("*.svg")}
    per_model = ("intervals", "tasks", "pareto", "grid", "effects", "scatter", "layers")
    assert plots == {
        "methods_by_model",
        "transfer",
        *(f"{m}_{p}" for m in ("alpha", "beta") for p in per_model),
    }
    linked = re.findall(r"\((plots/[^)]+|tables/[^)]+)\)", (out / "report.md").read_text(encoding="utf-8"))
    assert len(linked) > 30
    assert all((out / name).is_file() for name in linked)


def test_the_schema_refuses_what_the_study_wrote() -> None:
    # a NaN token is no JSON at all; a wrong type must not pass either
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema("cross_model_comparison")).validate(
            [{"model": "x", "best_acc": "high"}]
        )


def test_plain_has_no_tokens_that_json_lacks() -> None:
    value = {"a": [float("nan"), float("inf"), np.float64(1.5), np.int64(2), np.bool_(True)], 1: pd.NA}
    assert plain(value) == {"a": [None, None, 1.5, 2, True], "1": None}


def test_comparison_says_the_right_things(reports: dict[str, Path], records: list[RunRecord]) -> None:
    entry = next(
        e for e in strict_json(reports["en"] / "cross_model_comparison.json") if e["model"] == "alpha"
    )
    mine = [r for r in records if r.kind == "pruned" and r.config["model"]["name"] == "alpha"]
    best = max(mine, key=lambda record: record.metrics["acc_mean"].value or 0)
    assert (entry["total_experiments"], entry["valid_experiments"]) == (19, 18)
    assert entry["invalid"] == {"failed": 1, "invalid": 0, "set_aside": 0}
    assert entry["best"]["run_id"] == best.run_id
    assert entry["best_acc"] == best.metrics["acc_mean"].value
    assert entry["best_method"] == "taylor"
    assert entry["correlations"]["grad_mean_ratio"] is not None
    detail = {(d["statistic"], d["scope"]): d for d in entry["correlation_details"]}
    assert detail["grad_norm_ratio", "pooled"]["excluded"] == 2
    assert detail["grad_mean_range", "pooled"]["why"] == "constant"
    assert entry["dense"]["acc"] == pytest.approx(0.7)
    assert entry["transfer"]["beta"]["spearman"] < -0.5
    assert entry["transfer"]["beta"]["regret"] > 0.05
    assert {item["basis"] for item in entry["held_out"]} == {"tasks", "questions"}


def test_results_are_the_same_in_every_format(reports: dict[str, Path], run_folder: Path) -> None:
    out = reports["en"]
    expected = results_table(analyse(load_runs(run_folder)).runs)
    parquet = pd.read_parquet(out / "results.parquet")
    with sqlite3.connect(out / "results.sqlite") as connection:
        sql = pd.read_sql("SELECT * FROM results", connection)
        layers = pd.read_sql("SELECT * FROM layers", connection)
        documented = pd.read_sql('SELECT * FROM "columns"', connection)
    connection.close()
    csv = pd.read_csv(out / "results.csv")
    assert list(parquet.columns) == list(sql.columns) == list(csv.columns) == list(expected.columns)
    for frame in (parquet, sql, csv):
        assert frame["run_id"].tolist() == expected["run_id"].tolist()
        np.testing.assert_array_equal(frame["acc_mean"].to_numpy(float), expected["acc_mean"].to_numpy(float))
    assert len(layers) == 36 * 4 + 4
    pd.testing.assert_frame_equal(pd.read_parquet(out / "layers.parquet"), layers, check_dtype=False)
    assert set(layers["run_id"]) <= set(sql["run_id"])
    assert set(documented["column"]) == {*sql.columns, *layers.columns}
    assert documented["meaning"].str.len().min() > 3
    field = pq.read_schema(out / "results.parquet").field("acc_mean")
    assert field.metadata[b"unit"] == b"share"
    assert column_docs(expected)["meaning"].notna().all()


def test_every_column_of_every_table_is_named_and_explained(reports: dict[str, Path]) -> None:
    tables = strict_json(reports["en"] / "findings.json")["tables"]
    names = {column["name"] for table in tables for column in table["columns"]}
    open_families = {name for name in names if name.startswith(("acc · ", "config.", "metric."))}
    for lang in ("en", "zh"):
        labels = read_texts(lang)["columns"]
        assert names - open_families <= set(labels)
        assert set(labels) <= set(columns())
    assert len({table["name"] for table in tables}) == len(tables)
    assert about("acc · alpha")["kind"] == "acc"


def keys(node: Any, prefix: str = "") -> dict[str, set[str]]:
    if not isinstance(node, dict):
        return {prefix: set(re.findall(r"{(\w+)", str(node)))}
    found: dict[str, set[str]] = {}
    for key, value in node.items():
        found |= keys(value, f"{prefix}.{key}")
    return found


def test_both_languages_have_the_same_texts_and_fields() -> None:
    en, zh = keys(read_texts("en")), keys(read_texts("zh"))
    assert en == zh
    study = read_texts("study")
    assert keys(study["en"]) == keys(study["zh"])


def test_chinese_report_is_chinese(reports: dict[str, Path]) -> None:
    text = (reports["zh"] / "report.md").read_text(encoding="utf-8")
    headings = [
        line for line in text.splitlines() if line.startswith("#") and not re.search(r"# (alpha|beta)$", line)
    ]
    assert len(headings) > 12
    assert all(re.search(r"[\u4e00-\u9fff]", line) for line in headings)
    english = (reports["en"] / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"[\u4e00-\u9fff]", english)


def test_page_needs_nothing_from_outside(reports: dict[str, Path]) -> None:
    for lang in ("en", "zh"):
        page = (reports[lang] / "report.html").read_text(encoding="utf-8")
        sources = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
        assert len(sources) > 20
        assert all(source.startswith(("#", "data:")) for source in sources)
        assert "http://" not in page.split("<body>")[0]
        assert "@import" not in page


def test_same_input_same_bytes(tmp_path: Path, records: list[RunRecord]) -> None:
    first, second = (
        write_reports(records, tmp_path / name, today="2026-01-01", plots=False) for name in ("a", "b")
    )
    for one, two in zip(first, second, strict=True):
        if one.suffix != ".sqlite":
            assert one.read_bytes() == two.read_bytes(), one.name


def broken(make_record: MakeRecord, make_failed: MakeRecord) -> dict[str, list[RunRecord]]:
    nothing = {"value": None, "note": "all options scored nan"}
    return {
        "one run": [make_record()],
        "all failed": [make_failed(), make_failed(seq_len=16)],
        "no accuracy": [make_record(metrics={"acc_mean": nothing}), make_record(seq_len=8, metrics={})],
        "constant": [make_record(seq_len=n, acc=0.5) for n in (8, 16, 32, 64)],
        "two equal": [make_record(seq_len=8), make_record(seq_len=16)],
        "dense alone": [make_record(kind="dense")],
        "no perplexity": [make_record(seq_len=n, acc=0.4 + n / 100, ppl=None) for n in (8, 16, 32)],
        "bare": [
            make_record(
                seq_len=n,
                acc=0.4 + n / 100,
                layers=[],
                statistics={},
                parameters=None,
                timings={},
                provenance={},
            )
            for n in (8, 16, 32)
        ],
        "accuracy alone": [
            make_record(seq_len=n, method=m, metrics={"acc_mean": {"value": 0.4 + n / 100}})
            for n in (8, 16)
            for m in "ab"
        ],
    }


@pytest.mark.parametrize(
    "case",
    [
        "one run",
        "all failed",
        "no accuracy",
        "constant",
        "two equal",
        "dense alone",
        "no perplexity",
        "bare",
        "accuracy alone",
    ],
)
def test_poor_inputs_give_a_report_without_a_warning(
    tmp_path: Path, make_record: MakeRecord, make_failed: MakeRecord, case: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = write_reports(broken(make_record, make_failed)[case], tmp_path)
        write_reports(broken(make_record, make_failed)[case], tmp_path / "study", style="study")
    assert all(path.is_file() for path in paths)
    strict_json(tmp_path / "cross_model_comparison.json")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert " nan" not in text.lower().replace("scored nan", "")
    if case in ("all failed", "no accuracy"):
        assert "No run has a usable ACC" in text
    if case == "no accuracy":
        assert "all options scored nan" in text


def test_transfer_and_wins_by_hand(make_record: MakeRecord) -> None:
    values = {("a", "taylor"): 0.5, ("a", "blockwise"): 0.6, ("b", "taylor"): 0.7, ("b", "blockwise"): 0.4}
    rows = [make_record(model=model, method=method, acc=acc) for (model, method), acc in values.items()]
    found = analyse_records(rows)
    transfer = found.transfer.set_index(["source", "target"])
    assert transfer.loc[("a", "b"), "regret"] == pytest.approx(0.3)
    assert transfer.loc[("a", "b"), "rho"] == pytest.approx(-1.0)
    assert transfer.loc[("a", "b"), "mean_regret"] == pytest.approx(0.15)
    wins = found.wins.set_index(["model", "method"])
    assert wins["cells_won"].to_dict() == {
        ("a", "blockwise"): 1, ("a", "taylor"): 0, ("b", "blockwise"): 0, ("b", "taylor"): 1,
    }  # fmt: skip
    assert found.table["model"].tolist() == ["b", "a"]
    assert found.settings["worst_regret"].tolist() == pytest.approx([0.1, 0.3])


def analyse_records(rows: list[RunRecord]) -> Any:
    from secateur.analysis.load import from_records

    findings = analyse(from_records(rows))
    return compare_models(findings.models, findings.factors)


def test_values_are_shown_as_readers_expect() -> None:
    cases = [
        ("acc_mean", 0.59804),
        ("p", 3e-7),
        ("params_after", 6.5e9),
        ("gap", 0.01),
        ("n", 45.0),
        ("ppl", np.inf),
    ]
    assert [show(name, value) for name, value in cases] == [
        "0.5980",
        "<0.0001",
        "6.500 B",
        "+0.0100",
        "45",
        "∞",
    ]
    assert show("memory_bytes", 3 * 2**30) == "3.00 GiB"
    assert show("reason", None) == show("acc", float("nan")) == "–"
    assert set(columns()) >= {f"acc_{task}" for task in TASKS}
