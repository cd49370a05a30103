"""Cells and columns: units, decimal signs, labels among numbers, damaged packages."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ways import lines, report, rows, told

from secateur.analysis.insight.cells import decimal_sign, parse_cell
from secateur.analysis.insight.tables import Gather
from secateur.analysis.insight.units import UNITS


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
