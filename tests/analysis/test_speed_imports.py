"""Results of other tools come in without loss, and what is malformed is named by line and reason."""

import json
import re
import shutil
from pathlib import Path

import pytest

from secateur.analysis.speed.importers import load_llama_bench
from secateur.analysis.speed.mapping import load_speed_csv, read_speed_mapping
from secateur.analysis.speed.measurements import SETTING, join
from secateur.pruning.errors import ConfigError, DataError

SAMPLES = Path(__file__).parent / "speed_samples"
TEXT = (SAMPLES / "llama_bench.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_llama_bench_loses_nothing(kind: str) -> None:
    speeds = load_llama_bench(SAMPLES / f"llama_bench.{kind}")
    wanted = json.loads(TEXT)
    assert len(speeds.cells) == len(wanted)
    for raw, (_, row) in zip(wanted, speeds.cells.iterrows(), strict=True):
        kept = json.loads(row["raw"])
        for name, value in raw.items():
            if kind != "csv":
                assert kept[name] == value
            elif not name.startswith("samples"):  # llama-bench prints no samples into CSV
                assert kept[name] == str(int(value) if isinstance(value, bool) else value)
        assert row[f"{SETTING}a_field_of_tomorrow"] == "kept"
        assert float(row[f"{SETTING}n_threads"]) == raw["n_threads"]
        assert (row["n_prompt"], row["n_gen"]) == (raw["n_prompt"] or raw["n_depth"], raw["n_gen"])
        assert row["phase"] == ("prefill" if raw["n_prompt"] else "decode")
        assert row["cv"] == pytest.approx(raw["stddev_ts"] / raw["avg_ts"], rel=0.02)
        assert row["tokens_per_s"] == pytest.approx(raw["avg_ts"], rel=0.005)
    assert len(speeds.samples) == (0 if kind == "csv" else 3 * len(wanted))


def test_single_passes_are_those_of_the_file() -> None:
    speeds = load_llama_bench(SAMPLES / "llama_bench.json")
    wanted = [ns / 1e9 for raw in json.loads(TEXT) for ns in raw["samples_ns"]]
    assert speeds.samples["seconds"].tolist() == wanted


def broken(text: str, old: str, new: str) -> tuple[str, int]:
    """The text with one change, and the line of the change."""
    assert old in text
    return text.replace(old, new, 1), text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"n_gen": 128,', '"n_gen": 128', "Expecting ',' delimiter"),
        ('"build_commit": "0a1b2c3d"', '"build_commit": 0a1b', "Expecting"),
    ],
)
def test_malformed_json_gives_line_and_reason(old: str, new: str, reason: str, tmp_path: Path) -> None:
    text, line = broken(TEXT, old, new)
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=reason) as caught:
        load_llama_bench(path)
    found = re.search(r"line (\d+)", str(caught.value))
    assert found is not None
    assert abs(int(found.group(1)) - line) <= 1  # a missing comma is noticed at the next token


def test_a_truncated_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text(TEXT.rstrip().rstrip("]"), encoding="utf-8")
    with pytest.raises(DataError, match=r"line \d+: the array is cut off"):
        load_llama_bench(path)


@pytest.mark.parametrize(
    ("row", "name", "value", "reason"),
    [
        (1, "avg_ns", None, "line 2: no llama-bench result: avg_ns missing"),
        (2, "avg_ts", "fast", "line 3: avg_ts='fast' is not a number"),
        (0, "samples_ns", [1, 0], "line 1: samples_ns holds a time that is not above 0"),
        (3, "n_prompt", True, "line 4: n_prompt=True is not a number"),
    ],
)
def test_a_wrong_value_gives_line_and_reason(
    row: int, name: str, value: object, reason: str, tmp_path: Path
) -> None:
    rows = json.loads(TEXT)
    if value is None:
        del rows[row][name]
    else:
        rows[row][name] = value
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(reason)):
        load_llama_bench(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "line 1: the file is empty"), ("a,b\n", "has a header and no rows"), ("a,b\n1\n", "line 2: 1 cells"),
     ("[]", "holds no result"), ("a,b\n1,2\n", "line 2: no llama-bench result: model_filename")],
)  # fmt: skip
def test_files_that_are_no_llama_bench_output(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        load_llama_bench(path)


MAPPING = """
name: my tool
model: Model
phase: Test
n_prompt: pp
n_gen: tg
tokens_per_s: t/s
constants: {batch: 1}
ignore: [row]
"""
TABLE = """row,Model,Test,pp,tg,t/s,threads
1,m,pp,64,0,100,1
2,m,pp,64,0,110,1
3,m,tg,64,32,20,1
4,m,pp,64,0,180,2
"""


def test_any_table_with_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(MAPPING, encoding="utf-8")
    (tmp_path / "t.csv").write_text(TABLE, encoding="utf-8")
    speeds = load_speed_csv(tmp_path / "t.csv", read_speed_mapping(tmp_path / "map.yaml"))
    assert speeds.cells["n"].tolist() == [2, 1, 1]  # rows 1 and 2 are passes of one cell
    assert speeds.settings() == ["threads"]
    assert sorted(speeds.samples["tokens_per_s"].round(9)) == [20, 100, 110, 180]
    assert json.loads(speeds.cells["raw"].iloc[0])[0]["row"] == "1"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("3,m,tg,64,32,20,1", "3,m,tg,64,32,,1", "line 4: t/s='' is not a number"),
        ("3,m,tg", "3,m,warp", "line 4: phase 'warp' is not one of"),
        ("row,Model", "row,model", "column missing: Model"),
        ("4,m,pp,64,0,180,2", "4,m,pp,64,0,180", "line 5: 6 cells, the header has 7"),
        ("2,m,pp,64,0,110", "2,m,pp,64,0,-1", "line 3: t/s=-1 is not above 0"),
    ],
)
def test_a_malformed_table_gives_line_and_reason(old: str, new: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(MAPPING, encoding="utf-8")
    (tmp_path / "t.csv").write_text(broken(TABLE, old, new)[0], encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(reason)):
        load_speed_csv(tmp_path / "t.csv", read_speed_mapping(tmp_path / "map.yaml"))


@pytest.mark.parametrize(
    "change", [("tokens_per_s: t/s", ""), ("unit", "parsec"), ("name: my tool", "nam: x")]
)
def test_a_wrong_mapping_is_refused(change: tuple[str, str], tmp_path: Path) -> None:
    text = f"{MAPPING}unit: parsec\n" if change[0] == "unit" else MAPPING.replace(*change)
    (tmp_path / "map.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="mapping="):
        read_speed_mapping(tmp_path / "map.yaml")


def test_sources_stand_side_by_side(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "llama_bench.json", tmp_path / "a.json")
    both = join([load_llama_bench(tmp_path / "a.json"), load_llama_bench(SAMPLES / "llama_bench.csv")])
    assert len(both.cells) == 12
    assert both.cells.loc[both.samples["cell"].unique(), "source"].unique().tolist() == [
        str(tmp_path / "a.json")
    ]
