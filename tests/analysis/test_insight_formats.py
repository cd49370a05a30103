"""One table written in many ways is one table: the same best and worst, the same findings."""

import csv
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest

from analysis.insight.cells import decimal_sign, parse_cell
from analysis.insight.config import InsightConfig
from analysis.insight.contents import Report
from analysis.insight.report import write_report
from analysis.insight.tables import Gather
from analysis.insight.units import UNITS

Row = dict[str, Any]
METHODS, LENGTHS, SEEDS = ("blockwise", "layerwise", "taylor"), (16, 64, 256), (0, 1, 2, 3, 4)


def rows() -> list[Row]:
    """45 runs with an effect of the method; latencies above a thousand."""
    return [
        {
            "method": method, "seq_len": length, "seed": seed,
            "acc": round(0.5 + 0.05 * m + 0.01 * n + 0.001 * ((7 * seed + 3 * m + n) % 5), 4),
            "latency_ms": round(1000 + 300 * m + 7.25 * n + 1.5 * ((3 * seed + m) % 5), 2),
        }
        for m, method in enumerate(METHODS) for n, length in enumerate(LENGTHS) for seed in SEEDS
    ]  # fmt: skip


def lines(delimiter: str, number: Callable[[str, Any], str] = lambda name, value: str(value)) -> str:
    table = rows()
    text = [delimiter.join(table[0])]
    for row in table:
        cells = [number(name, value) for name, value in row.items()]
        text.append(delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in cells))
    return "\n".join(text) + "\n"


def comma(name: str, value: Any) -> str:
    return str(value).replace(".", ",")


def german(name: str, value: Any) -> str:
    return (
        f"{value:,.2f}".translate(str.maketrans(",.", ".,")) if name == "latency_ms" else comma(name, value)
    )


def thousands(name: str, value: Any) -> str:
    return f"{value:,.2f}" if name == "latency_ms" else str(value)


def spaced(name: str, value: Any) -> str:
    return f"{value:,.2f}".replace(",", "\u202f") if name == "latency_ms" else str(value)


def with_units(name: str, value: Any) -> str:
    return (
        {"acc": f"{100 * value:.2f} %", "latency_ms": f"{value / 1000:.5f} s"}.get(name, str(value))
        if isinstance(value, float)
        else str(value)
    )


def short(name: str, value: Any) -> str:
    return f"{value / 1000:.5f}k" if name == "latency_ms" else str(value)


def excel(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(list(rows()[0]))
    for row in rows():
        sheet.append(list(row.values()))
    book.save(path)


def columns() -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows()] for name in rows()[0]}


WAYS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "comma": ("a.csv", lambda p: p.write_text(lines(","))),
    "semicolon": ("a.csv", lambda p: p.write_text(lines(";"))),
    "tab": ("a.tsv", lambda p: p.write_text(lines("\t"))),
    "pipe": ("a.csv", lambda p: p.write_text(lines("|"))),
    "decimal comma": ("a.csv", lambda p: p.write_text(lines(";", comma))),
    "decimal comma, quoted": ("a.csv", lambda p: p.write_text(lines(",", comma))),
    "german thousands": ("a.csv", lambda p: p.write_text(lines(";", german))),
    "thousands": ("a.csv", lambda p: p.write_text(lines(",", thousands))),
    "thin spaces": ("a.csv", lambda p: p.write_text(lines(",", spaced))),
    "units": ("a.csv", lambda p: p.write_text(lines(",", with_units))),
    "k": ("a.csv", lambda p: p.write_text(lines(",", short))),
    "BOM": ("a.csv", lambda p: p.write_text(lines(","), encoding="utf-8-sig")),
    "CRLF": ("a.csv", lambda p: p.write_bytes(lines(",").replace("\n", "\r\n").encode())),
    "UTF-16": ("a.csv", lambda p: p.write_text(lines("\t"), encoding="utf-16")),
    "UTF-16, decimal comma": ("a.csv", lambda p: p.write_text(lines(";", comma), encoding="utf-16")),
    "gz": ("a.csv.gz", lambda p: p.write_bytes(gzip.compress(lines(",").encode()))),
    "gz, UTF-16": ("a.csv.gz", lambda p: p.write_bytes(gzip.compress(lines(",").encode("utf-16")))),
    "Excel": ("a.xlsx", excel),
    "JSON lines": ("a.jsonl", lambda p: p.write_text("\n".join(map(json.dumps, rows())))),
    "JSON lines, gz": (
        "a.jsonl.gz", lambda p: p.write_bytes(gzip.compress("\n".join(map(json.dumps, rows())).encode()))),
    "JSON records": ("a.json", lambda p: p.write_text(json.dumps(rows()))),
    "JSON words": ("a.json", lambda p: p.write_text(json.dumps([{k: str(v) for k, v in r.items()} for r in rows()]))),
    "JSON gz": ("a.json.gz", lambda p: p.write_bytes(gzip.compress(json.dumps(rows()).encode()))),
    "JSON columns": ("a.json", lambda p: p.write_text(json.dumps(columns()))),
    "JSON of pandas": ("a.json", lambda p: p.write_text(pd.DataFrame(rows()).to_json())),
    "JSON split": ("a.json", lambda p: p.write_text(pd.DataFrame(rows()).to_json(orient="split"))),
    "parquet": ("a.parquet", lambda p: pd.DataFrame(rows()).to_parquet(p)),
    "Markdown": ("a.md", lambda p: p.write_text(
        "# A\n\n|" + "|".join(rows()[0]) + "|\n|--|--|--|--|--|\n"
        + "".join("|" + "|".join(map(str, r.values())) + "|\n" for r in rows()))),
}  # fmt: skip


def report(folder: Path) -> Report:
    return write_report(InsightConfig(dir=str(folder), out=str(folder.parent / "out")))[0]


def told(made: Report) -> dict[str, dict[str, Any]]:
    """Every finding by what it is about; numbers as they are."""
    found: dict[str, dict[str, Any]] = {}
    for item in made.findings:
        key = (
            f"{item.kind} {item.measure} {item.words.get('factor', '')} {item.words.get('word', '')}".strip()
        )
        words = {name: text for name, text in item.words.items() if name.endswith("label")}
        found[key] = {**words, **{name: number.value for name, number in item.numbers.items()}}
    return found


def write(folder: Path, way: str) -> Path:
    name, put = WAYS[way]
    folder.mkdir()
    put(folder / name)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    found = told(report(write(tmp_path_factory.mktemp("plain") / "in", "comma")))
    assert {"best acc", "best latency_ms", "factor acc method", "factor latency_ms method"} <= found.keys()
    best = min(rows(), key=lambda row: row["latency_ms"])
    assert found["best latency_ms"]["best"] == best["latency_ms"]
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_table_says_the_same_however_it_is_written(
    tmp_path: Path, way: str, plain: dict[str, dict[str, Any]]
) -> None:
    made = report(write(tmp_path / "in", way))
    assert made.given.unreadable == {}
    found = told(made)
    if way == "Markdown":  # tables of prose are not searched for outliers
        found = {key: value for key, value in found.items() if not key.startswith("outlier")}
    assert found.keys() == plain.keys()
    for key, numbers in plain.items():
        for name, value in numbers.items():
            same = pytest.approx(value, rel=1e-6) if isinstance(value, float | int) else value
            assert found[key][name] == same, (key, name)
    assert made.failed == 0


@pytest.mark.parametrize("way", ["comma", "decimal comma", "units", "UTF-16", "gz", "Excel", "JSON records"])
@pytest.mark.parametrize("word", ["OOM", "CUDA out of memory", "failed"])
def test_one_odd_word_loses_no_metric_and_is_said(tmp_path: Path, way: str, word: str, monkeypatch: pytest.MonkeyPatch,
                                                  plain: dict[str, dict[str, Any]]) -> None:  # fmt: skip
    table = rows()
    table[20]["acc"] = word
    monkeypatch.setattr(sys.modules[__name__], "rows", lambda: table)
    made = report(write(tmp_path / "in", way))
    found = told(made)
    assert plain.keys() <= found.keys()
    assert found[f"odd acc  {word}"] == {"odd": 1.0, "n": 45.0}
    assert found["best acc"]["n"] == 44.0
    assert found["best acc"]["best"] == pytest.approx(plain["best acc"]["best"])
    assert word in (tmp_path / "out" / "insight.md").read_text()
    odd = next(item for item in made.findings if item.kind == "odd")
    assert odd.evidence[0].row in (21, 22)  # a sheet counts its header


def test_words_for_nothing_are_no_findings(tmp_path: Path) -> None:
    for way, absent in enumerate(("", "NA", "n/a", "NaN", "null", "-", "None")):
        table = [
            {**row, "acc": absent if place in (3, 9) else row["acc"]} for place, row in enumerate(rows())
        ]
        folder = tmp_path / f"in{way}"
        folder.mkdir()
        with (folder / "a.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        (folder / "b.json").write_text(json.dumps(table))
        made = report(folder)
        assert [item for item in made.findings if item.kind == "odd"] == []
        assert {data.frame["acc"].notna().sum() for data in made.datasets} == {86}


def test_labels_stay_labels_and_mixed_units_are_said(tmp_path: Path) -> None:
    table = [{**row, "run_id": place, "model": "7" if place % 2 else "13", "tag": "1.0" if place % 3 else "main",
              "size": "3 GB" if place else "4 ms", "ppl": "12" if place % 2 else "diverged"}
             for place, row in enumerate(rows())]  # fmt: skip
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(table))
    made = report(folder)
    data = made.datasets[0]
    roles = {name: column.role for name, column in data.columns.items()}
    assert roles["tag"] == "setting"
    assert roles["model"] == "subject"
    assert not pd.api.types.is_numeric_dtype(data.frame["tag"].dtype)
    notes = " ".join(note for item in made.given.tables for note in item.notes)
    assert "size: GB and ms in one column; read as words" in notes
    assert "ppl: 22 numbers beside 23 words; read as words" in notes
    assert "size: GB and ms in one column" in (tmp_path / "out" / "insight.md").read_text()


def test_two_files_in_two_units_are_brought_to_one(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("engine,cost\n" + "".join(f"x{i},{i + 1}00 ms\n" for i in range(5)))
    (folder / "b.csv").write_text("engine,cost\n" + "".join(f"y{i},{i + 1} s\n" for i in range(5)))
    data = report(folder).datasets[0]
    assert sorted(data.frame["cost"]) == pytest.approx(
        [100, 200, 300, 400, 500, 1000, 2000, 3000, 4000, 5000]
    )
    assert data.columns["cost"].unit == UNITS["ms"]


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [
        ("1,234.5", ".", (1234.5, None)), ("1.234,5", ",", (1234.5, None)), ("0,25", ",", (0.25, None)),
        ("1'234'567", ".", (1234567.0, None)), ("-3.5e-2 s", ".", (-0.035, UNITS["s"])), (".5", ".", (0.5, None)),
        ("1.2k", ".", (1200.0, None)), ("3 GB", ".", (3.0, UNITS["gb"])), ("85 %", ".", (85.0, UNITS["%"])),
        ("1.2k tokens/s", ".", (1200.0, UNITS["tps"])), ("7B", ".", (7e9, None)),
        ("5 ± 0.1 ms", ".", (5.0, UNITS["ms"])),
        ("-inf", ".", (float("-inf"), None)), ("1.2.3", ".", None), ("12 apples", ".", None), ("", ".", None),
        ("1,2,3", ".", None), ("2026-01-01", ".", None), ("16x128", ".", None), ("e5", ".", None), ("OOM", ".", None),
    ],
)  # fmt: skip
def test_cells(text: str, decimal: str, value: Any) -> None:
    assert parse_cell(text, decimal) == value


@pytest.mark.parametrize(
    ("words", "sign"),
    [(["1,5"], ","), (["1,234"], ""), (["1,234", "0,5"], ","), (["1,234.5"], "."), (["1.234,5"], ","),
     (["1.5", "1,5"], "."),
     (["1,234,567"], "."), (["1.234.567"], ","), (["12", "x"], "")],
)  # fmt: skip
def test_the_decimal_sign_is_proved_or_left_open(words: list[str], sign: str) -> None:
    assert decimal_sign(words) == sign


@pytest.mark.parametrize(("first", "later"), [("1,234", "0,5"), ("1.234", "0,5")])
def test_a_decimal_sign_that_is_proved_too_late_is_no_guess(first: str, later: str) -> None:
    gather = Gather(1000)
    for word in (first, later):
        gather.add(pd.DataFrame({"acc": [word] * 20}))
    table = gather.finish("a", "", "CSV")
    assert table is not None
    assert table.notes == (
        "acc: commas between thousands or before decimals, which is not clear; read as words",
    )


def test_damaged_packages_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = gzip.compress(lines(",").encode())
    (folder / "cut.csv.gz").write_bytes(good[: len(good) // 2])
    (folder / "no.json.gz").write_bytes(b"{}")
    (folder / "no.xlsx").write_bytes(b"PK\x03\x04 nothing")
    (folder / "odd.csv").write_bytes(b"\xff\xfea\x00\x00\xd8")
    (folder / "model.bin.gz").write_bytes(good)
    made = report(folder)
    assert made.given.unreadable.keys() == {"cut.csv.gz", "no.json.gz", "no.xlsx", "odd.csv"}
    assert "damaged gzip" in made.given.unreadable["cut.csv.gz"]
    assert "not an Excel workbook" in made.given.unreadable["no.xlsx"]
    assert [source.name for source in made.given.sources if source.excluded] == ["model.bin.gz"]


def test_a_file_of_nothing_but_words_does_not_take_the_numbers_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    dead = [{**row, "acc": "OOM"} for row in rows()[:11]]
    for name, table in (("a.json", rows()), ("b.json", dead)):
        (folder / name).write_text(json.dumps(table))
    found = told(report(folder))
    assert found["odd acc  OOM"] == {"odd": 11.0, "n": 56.0}
    assert found["best acc"]["n"] == 45.0
