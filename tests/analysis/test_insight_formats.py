"""One table written in many ways is one table: the same best and worst, the same findings."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ways
from ways import WAYS, report, rows, told, write


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    found = told(report(write(tmp_path_factory.mktemp("plain") / "in", "comma")))
    assert {"best acc", "best latency_ms", "factor acc method", "factor latency_ms method"} <= found.keys()
    best = pd.DataFrame(rows()).groupby(["method", "seq_len"])["latency_ms"].mean().min()
    assert found["best latency_ms"]["best"] == pytest.approx(best)  # seeds of one setting are taken together
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
    monkeypatch.setattr(ways, "rows", lambda: table)
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
