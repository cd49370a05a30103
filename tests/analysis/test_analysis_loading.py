"""Loading: states, duplicates, protocols, foreign tables, broken inputs."""

import json
from pathlib import Path
from typing import Any

import pytest

from secateur.analysis.factors import find_factors, setting_texts
from secateur.analysis.findings import analyse
from secateur.analysis.foreign import load_csv, read_mapping
from secateur.analysis.load import from_records, load_runs
from secateur.analysis.protocol import choose_perplexity, describe, separate
from secateur.analysis.runset import join
from secateur.eval.record import write_record
from secateur.pruning.errors import ConfigError, DataError
from tests.analysis.conftest import MakeRecord, base_card, base_config


def test_every_run_is_counted_with_its_reason(run_folder: Path, records: list[Any]) -> None:
    runs = load_runs(run_folder)
    assert len(runs.frame) == len(records) + 2
    problems = runs.problems().set_index("run_id")
    assert problems.loc["broken", ["state", "reason"]].tolist() == [
        "failed",
        "evaluate: OutOfMemoryError: CUDA out of memory",
    ]
    assert problems.loc["torn", "state"] == "invalid"
    assert problems.loc["torn", "reason"].startswith("damaged record: Expecting value")
    assert runs.models() == ["alpha", "beta"]
    assert len(runs.pruned("alpha")) == 19
    dense = runs.dense("alpha")
    assert dense is not None
    assert dense["acc_mean"] == pytest.approx(0.7)


def test_row_carries_what_the_record_says(make_record: MakeRecord) -> None:
    record = make_record(acc=0.6, shift={"boolq": 0.07})
    runs = choose_perplexity(from_records([record]))
    row = runs.frame.iloc[0]
    assert (row["seq_len"], row["num_samples"], row["ratio"], row["method"]) == (64, 128, 0.2, "taylor")
    assert row["acc_mean"] == pytest.approx(0.61)
    assert (row["acc_boolq"], row["acc_piqa"]) == (pytest.approx(0.67), pytest.approx(0.6))
    assert (row["ppl"], runs.ppl_protocol) == (12.0, "wikitext2@2048")
    assert (row["extreme_layers"], row["params_after"], row["elapsed_s"]) == (1, 800_000, 3.0)
    assert runs.layers["kept_mlp"].tolist() == pytest.approx([1.0, 52 / 64, 40 / 64, 28 / 64])
    assert runs.layers["kept_attention"].tolist() == [1.0, 0.75, 1.0, 0.75]
    assert "config.out" not in runs.frame
    assert "config.device" not in runs.frame


def test_the_same_run_twice_counts_once(make_record: MakeRecord, make_failed: MakeRecord) -> None:
    old = make_record(acc=0.5, provenance={"started": "2026-01-01"})
    new = make_record(acc=0.6, provenance={"started": "2026-02-01"})
    runs = join([from_records([make_failed(), old], "a"), from_records([new], "b")])
    assert runs.frame["state"].tolist() == ["duplicate", "duplicate", "valid"]
    assert runs.frame["reason"][0] == "= b/alpha-taylor-64x128-s0"
    assert len(runs.pruned()) == 1


def test_other_protocols_are_set_aside_and_the_fields_are_named(make_record: MakeRecord) -> None:
    other = base_card(harness={"lm_eval": "0.4.12", "backend": "fast"})
    other["tasks"]["piqa"]["limit"] = 50
    rows = [make_record(seq_len=n, acc=0.5) for n in (16, 32, 64)] + [
        make_record(seq_len=128, acc=0.9, card=other)
    ]
    runs = separate(from_records(rows))
    assert runs.frame["state"].tolist() == ["valid", "valid", "valid", "set_aside"]
    reason = runs.frame["reason"][3]
    assert "harness.lm_eval: '0.4.12' ≠ '0.4.13'" in reason
    assert "tasks.piqa.limit: 50 ≠ None" in reason
    best = analyse(from_records(rows)).models[0].best
    assert best is not None
    assert best["acc_mean"] == pytest.approx(0.5)
    mixed = analyse(from_records(rows), allow_mixed=True)
    assert mixed.runs.mixed
    assert mixed.models[0].best is not None
    assert mixed.models[0].best["acc_mean"] == pytest.approx(0.9)
    wanted = separate(from_records(rows), wanted=runs.frame["protocol"][3])
    assert wanted.frame["state"].tolist() == ["set_aside"] * 3 + ["valid"]


def test_calibration_seed_and_parameters_are_factors_not_protocol(make_record: MakeRecord) -> None:
    rows = [
        make_record(seed=seed, card=base_card(seed=seed, calibration=f"c{seed}", parameters_kept=seed))
        for seed in range(3)
    ]
    assert set(separate(from_records(rows)).frame["state"]) == {"valid"}
    assert describe({"a": [1]}, {"a": [2], "b": 3}) == "a: [1] ≠ [2]; b: None ≠ 3"


def test_factors_are_what_differs_within_a_method(make_record: MakeRecord) -> None:
    rows = []
    for method in ("taylor", "blockwise"):
        for limit in (0.5, 1.0):
            config = base_config("alpha", method, 64, 128, 0)
            config["guard"]["max_layer_ratio"] = limit
            config["out"] = f"somewhere/{limit}"
            rows.append(make_record(method=method, config=config, run_id=f"{method}-{limit}"))
    runs = from_records(rows)
    # method.prior follows the method's name and is no factor of its own
    assert find_factors(runs.frame) == ["method", "config.guard.max_layer_ratio"]
    assert setting_texts(runs.frame, find_factors(runs.frame))[0] == "taylor 64x128 guard.max_layer_ratio=0.5"


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


HEAD = "taylor_seq_len,taylor_num_samples,ppl,acc_mean,success,pruning_method\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (HEAD, "has a header and no rows"),
        (
            "taylor_seq_len,taylor_num_samples,ppl,pruning_method\n16,128,3,taylor\n",
            "column missing: acc_mean",
        ),
        ("x,y\n1,2\n", "not a table that is known here. It has: x, y"),
        (HEAD + "16,128,3\n", "line 2 has 3 cells, the header has 6"),
        ("acc_mean," + HEAD + "1,16,128,3,0.5,True,taylor\n", "column acc_mean appears twice"),
    ],
)
def test_unreadable_tables_are_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        load_csv(table(tmp_path / "t.csv", text))


def test_text_in_a_number_column_makes_that_row_invalid(tmp_path: Path) -> None:
    runs = load_csv(
        table(
            tmp_path / "t.csv",
            HEAD + "16,128,oops,0.5,True,taylor\n32,128,inf,0.6,True,taylor\n16,256,nan,,True,taylor\n",
        )
    )
    assert runs.frame["state"].tolist() == ["invalid", "valid", "invalid"]
    assert runs.frame["reason"].tolist()[0] == "line 2: ppl='oops'"
    assert runs.frame["ppl"].tolist()[1] == float("inf")


def test_a_mapping_reads_any_table(tmp_path: Path) -> None:
    mapping = table(
        tmp_path / "m.yaml",
        "name: mine\nmodel: My-7B\ncolumns: {method: algo, acc_mean: score, seq_len: len}\n"
        "constants: {ratio: 0.3}\nprotocol: {by: hand}\n",
    )
    data = table(tmp_path / "d.csv", "algo,score,len\na,0.4,8\nb,0.5,8\nb,0.5,8\n")
    runs = join([load_csv(data, read_mapping(mapping))])
    assert runs.frame["model"].unique().tolist() == ["My-7B"]
    assert runs.frame["ratio"].tolist() == [0.3] * 3
    assert runs.frame["state"].tolist() == ["valid", "valid", "duplicate"]
    with pytest.raises(ConfigError, match="unknown column speeed"):
        read_mapping(table(tmp_path / "bad.yaml", "name: x\ncolumns: {speeed: a}\n"))
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_mapping(table(tmp_path / "bad.yaml", "a: [\n"))
    with pytest.raises(ConfigError, match="colums"):
        read_mapping(table(tmp_path / "bad.yaml", "name: x\ncolums: {}\ncolumns: {}\n"))


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no record\.json"):
        load_runs(tmp_path)
    with pytest.raises(DataError, match="no such directory"):
        load_runs(tmp_path / "absent")


def test_records_below_several_levels_are_found(tmp_path: Path, make_record: MakeRecord) -> None:
    write_record(tmp_path / "grid" / "one", make_record())
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "record.json").write_text("{}")
    assert len(load_runs(tmp_path).frame) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "cut"}, "kind: 'cut' is not one of dense, pruned"),
        ({"schema_version": 7}, "schema_version: 7 is not one of 1"),
        ({"metrics": [1]}, "metrics: is not of type dict"),
        ({"metrics": {"acc_mean": {"value": "0.5"}}}, "metrics.acc_mean.value: is not a number"),
        ({"run_id": None}, "run_id: is not of type str"),
        ({"layers": [{"layer": "first"}]}, "could not convert string to float: 'first'"),
        ({"future_field": {"a": 1}}, None),
    ],
)
def test_damaged_records_are_named_and_newer_ones_are_read(
    tmp_path: Path, make_record: MakeRecord, change: dict[str, Any], reason: str | None
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "record.json").write_text(json.dumps(make_record().model_dump(mode="json") | change))
    runs = load_runs(tmp_path)
    assert runs.frame["state"].tolist() == ["valid" if reason is None else "invalid"]
    if reason is not None:
        assert runs.frame["reason"][0] == f"damaged record: {reason}"
        assert len(runs.layers) == 0
