"""Reading: large lists, odd values, hostile files; and the command line."""

import datetime
import decimal
import json
import math
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secateur.analysis.insight import read_json
from secateur.analysis.insight.cli import insight
from secateur.analysis.insight.config import InsightConfig, persona_names, read_persona
from secateur.analysis.insight.datasets import build
from secateur.analysis.insight.ingest import file_date, ingest
from secateur.analysis.insight.naming import describe
from secateur.analysis.insight.report import write_report
from secateur.analysis.insight.tables import Gather, Table


def read(folder: Path) -> dict[str, Table]:
    return {
        f"{table.file}:{table.name}".rstrip(":"): table for table in ingest(folder, folder / "out").tables
    }


def test_a_sampled_table_keeps_exact_counts_and_the_extremes() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(100, 5, 50_000)
    values[31_234] = 900.0
    values[7] = np.nan
    gather = Gather(cells=1000)
    for start in range(0, len(values), 777):
        gather.add(pd.DataFrame({"x": values[start : start + 777]}))
    table = gather.finish("a", "", "CSV")
    assert table is not None
    assert not table.complete
    assert len(table.frame) <= 1002
    profile = table.profiles["x"]
    assert (profile.rows, profile.present, profile.numbers) == (50_000, 49_999, 49_999)
    assert profile.mean == pytest.approx(np.nanmean(values), rel=1e-12)
    assert profile.sd == pytest.approx(np.nanstd(values, ddof=1), rel=1e-9)
    assert profile.maximum == 900.0
    assert table.frame.loc[31_235, "x"] == 900.0  # rows count from 1


def test_a_large_json_list_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_json, "WHOLE", 5000)
    monkeypatch.setattr(read_json, "PIECE", 700)
    rows = [{"model": f"m{i % 3}", "acc": i / 1000, "text": "x" * (i % 50)} for i in range(900)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "cut.json").write_text(json.dumps(rows)[:-30])
    (tmp_path / "one.json").write_text(json.dumps({"rows": rows}))
    given = ingest(tmp_path, tmp_path / "out")
    table = next(t for t in given.tables if t.file == "a.json")
    assert table.rows == 900
    assert table.frame["acc"].tolist() == [row["acc"] for row in rows]
    assert "damaged after element 89" in given.unreadable["cut.json"]
    assert "only lists are read in parts" in given.unreadable["one.json"]


def test_numbers_as_words_late_decimals_and_other_delimiters(tmp_path: Path) -> None:
    (tmp_path / "late.csv").write_text("n,x\n" + "1,2\n" * 30_000 + "1,2.5\n")
    (tmp_path / "word.csv").write_text("n,x\n" + "1,2\n" * 30_000 + "1,broken\n")
    (tmp_path / "semi.csv").write_text('model;"latency (ms)"\na;"1,5"\nb;12 ms\n')
    (tmp_path / "bom.csv").write_bytes("\ufeffmodel,acc\na,0.5\n".encode())
    (tmp_path / "twice.csv").write_text("a,a,\n1,2,3\n")
    (tmp_path / "ragged.csv").write_text("model,acc\na,0.5\nb\nc,0.7,9\n")
    (tmp_path / "nul.csv").write_bytes(b"a,b\0\n1,2\n")
    tables = read(tmp_path)
    assert tables["late.csv"].profiles["x"].maximum == 2.5
    assert tables["word.csv"].rows == 30_001
    assert list(tables["semi.csv"].frame.columns) == ["model", "latency (ms)"]
    assert list(tables["bom.csv"].frame.columns) == ["model", "acc"]
    assert list(tables["twice.csv"].frame.columns) == ["a", "a (2)", "column 3"]
    assert tables["ragged.csv"].rows == 1
    assert tables["ragged.csv"].notes == ("2 line(s) with another number of cells than the header left out",)


def test_values_of_every_kind(tmp_path: Path) -> None:
    table = pa.table({
        "when": [datetime.datetime(2025, 1, 1), None], "day": [datetime.date(2025, 1, 1)] * 2,
        "price": [decimal.Decimal("1.50"), None], "flag": [True, False], "blob": [b"\xff\x00", b""],
        "acc": pa.array([0.5, math.inf], pa.float32()), "huge": pa.array([2**63 - 1, 0], pa.int64()),
        "nested": [[1, 2], []], "empty": pa.nulls(2),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute('CREATE TABLE "odd ""name" (x, blob BLOB, t TEXT)')
        database.executemany(
            'INSERT INTO "odd ""name" VALUES (?, ?, ?)', [(1, b"\xff", "a"), ("two", None, "\u00e9")]
        )
        database.execute("CREATE TABLE none (x)")
    odd = {
        "a": 10**400,
        "b": float("inf"),
        "c": True,
        "d": None,
        "e": [[1, 2], [3]],
        "f": "x" * 10_000,
        "": {"": 1},
        "acc": 0.5,
    }
    (tmp_path / "a.json").write_text(json.dumps(odd))
    (tmp_path / "scalar.json").write_text("3.5")
    (tmp_path / "list.json").write_text("[1, 2, 3]")
    made, _ = write_report(InsightConfig(dir=str(tmp_path), out=str(tmp_path / "out")))
    assert made.failed == 0
    assert "1 nested column(s) left out" in {note for t in made.given.tables for note in t.notes}
    assert made.given.unreadable.keys() == {"scalar.json", "list.json"}
    assert {t.name for t in made.given.tables if t.file == "a.db"} == {'odd "name'}


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_never_end_in_a_traceback(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    rows = [
        {"model": m, "acc": source.random(), "ttft_ms": source.random() * 100}
        for m in "abc"
        for _ in range(20)
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps({"results": rows}))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.md").write_text(
        "# A\n\n|model|acc|\n|--|--|\n" + "\n".join(f"|{r['model']}|{r['acc']}|" for r in rows)
    )
    with sqlite3.connect(tmp_path / "a.db") as database:
        frame.to_sql("t", database, index=False)
    for path in sorted(tmp_path.iterdir()):
        data = bytearray(path.read_bytes())
        for _ in range(source.randint(1, 30)):
            data[source.randrange(len(data))] = source.randrange(256)
        path.write_bytes(bytes(data[: source.randint(len(data) // 2, len(data))]))
    made, paths = write_report(InsightConfig(dir=str(tmp_path), out=str(tmp_path / "out")))
    assert len(made.given.sources) == 6
    assert made.failed == 0
    assert all(path.stat().st_size for path in paths)
    json.loads((tmp_path / "out" / "insight.json").read_text(), parse_constant=pytest.fail)


def test_names_that_attack_the_page_are_only_names(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|x](javascript:y) **44**"
    pd.DataFrame({"model": [evil, "b"], f"acc{evil}": [0.1, 0.9]}).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "<img src=x onerror=y>.json").write_text("{")
    made, paths = write_report(InsightConfig(dir=str(tmp_path), out=str(tmp_path / "out")))
    page = paths[0].read_text()
    assert page.count("<script>") == 1  # our own
    assert "<img" not in page
    markdown = paths[1].read_text()
    assert "<script>" not in markdown.replace("`", "")
    assert made.failed == 0


@pytest.mark.parametrize(
    ("name", "date"),
    [("a_20251002-170837.json", "2025-10-02T17:08:37"), ("2025-11-14/x.csv", "2025-11-14"), ("a_20251302.csv", None),
     ("x1202510021.csv", None), ("plain.csv", None)],
)  # fmt: skip
def test_dates_in_file_names(name: str, date: str | None) -> None:
    assert file_date(name) == date


@pytest.mark.parametrize(
    ("name", "role", "metric", "better"),
    [("acc,none", "measure", "acc", "higher"), ("acc_stderr,none", "spread", "acc", "higher"),
     ("model_name", "subject", "", "none"),
     ("num_samples", "setting", "", "none"), ("seed", "replicate", "", "none"),
     ("平均性能(tokens/sec)", "measure", "throughput", "higher"),
     ("ttft_ms", "measure", "ttft", "lower"), ("平均CV(%)", "spread", "平均cv", "none"),
     ("wikitext2_ppl", "measure", "ppl", "lower")],
)  # fmt: skip
def test_columns_are_understood_by_their_names(name: str, role: str, metric: str, better: str) -> None:
    column = describe(name)
    assert (column.role, column.metric, column.better) == (role, metric, better)


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    pd.DataFrame({"model": list("abc") * 20, "acc": np.linspace(0, 1, 60)}).to_csv(
        tmp_path / "a.csv", index=False
    )
    texts: list[Any] = []
    for _ in range(2):
        _, paths = write_report(
            InsightConfig(dir=str(tmp_path), out=str(tmp_path / "out")), today="2026-01-01"
        )
        machine = json.loads(paths[2].read_text())
        texts.append({key: machine[key] for key in ("datasets", "findings", "facts", "narrative", "guard")})
        assert len(build(ingest(tmp_path, tmp_path / "out").tables)) == 1
        shutil.rmtree(tmp_path / "out")
    assert texts[0] == texts[1]


def test_help_is_quick_and_shows_examples() -> None:
    began = time.process_time()
    done = subprocess.run(
        [sys.executable, "-m", "secateur", "insight", "--help"], capture_output=True, text=True, check=True
    )
    assert time.process_time() - began < 1
    assert "examples:" in done.stdout
    assert all(name in done.stdout for name in persona_names())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, ""), (["out=x"], 2, "give dir=DIR"), (["dir=/no/such"], 1, "no such directory"),
        (["dir=.", "lang=fr"], 2, "lang"), (["dir=.", "persona=nobody"], 2, "personas are analyst"),
        (["dir=.", "writer=openai"], 2, "writer.base_url"), (["dir=.", "writer=local"], 2, "writer.path"),
        (["dir=.", "writer.model=x"], 2, "without writer="), (["dir=.", "colour=red"], 2, "unknown key colour"),
        (["dir=.", "out=."], 2, "is the folder that is read"),
        (["dir=.", "writer=local", "writer.path=x", "writer.stall_s=-1"], 2, "stall_s"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("model,acc\na,1\n")
    assert insight(words) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "insight").exists()


def test_every_persona_is_whole(tmp_path: Path) -> None:
    assert set(persona_names()) == {"analyst", "operator", "reviewer", "brief"}
    for name in persona_names():
        persona = read_persona(name)
        assert persona.title.keys() == {"en", "zh"}
        assert len(persona.task) > 30
    own = tmp_path / "own.yaml"
    own.write_text("title: {en: me, zh: 我}\nsystem: You are me.\ntask: Write.\n")
    assert read_persona(str(own)).words == 350


def test_insight_never_imports_the_model_stack(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("model,acc\na,1\nb,2\n")
    code = (
        "import sys; from secateur.analysis.insight.cli import insight; "
        f"insight(['dir={tmp_path}', 'out={tmp_path / 'out'}']); "
        "print([m for m in ('torch', 'transformers', 'openai', 'httpx2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
