"""A model is its fingerprint: models with one folder name stay two, one model in two places stays one."""

import json
from pathlib import Path
from typing import Any

import pytest

from secateur.analysis.findings import analyse
from secateur.analysis.insight.ingest import ingest
from secateur.analysis.load import from_records, load_runs
from secateur.analysis.model_names import Origin, slug, unique_names
from secateur.analysis.report import write_reports
from secateur.analysis.runset import Runs, join
from secateur.analysis.speed.folders import load_bench
from secateur.analysis.speed.measurements import join as join_speeds
from secateur.eval.record import RunRecord, write_record
from secateur.eval.speed.journal import Facts, Journal, Sample, Sweep, Variant, write_sweep
from tests.analysis.conftest import base_config, build_record

DENSE = {"left": 0.70, "right": 0.26}


def record(
    path: str, fingerprint: str | None, name: str = "model", method: str = "taylor", **more: Any
) -> RunRecord:
    config = base_config(name, method, 64, 128, 0)
    config["model"]["path"] = path
    made = build_record(model=name, method=method, config=config, **more)
    known = {} if fingerprint is None else {"model_fingerprint": fingerprint}
    return made.model_copy(
        update={"run_id": f"{made.run_id}-{fingerprint}{path}", "provenance": {**made.provenance, **known}}
    )


def pair(path: str, fingerprint: str | None, dense: float, **more: Any) -> list[RunRecord]:
    """A model's baseline and two runs that keep 80 and 90 % of it."""
    return [
        record(path, fingerprint, kind="dense", acc=dense, **more),
        record(path, fingerprint, acc=0.9 * dense, **more),
        record(path, fingerprint, method="layerwise", acc=0.8 * dense, **more),
    ]


def kept(runs: Runs) -> dict[str, float]:
    """Model -> share of the dense accuracy that its best run keeps."""
    return {
        found.model: float(found.best["acc_mean"] / found.dense["acc_mean"])
        for found in analyse(runs).models
        if found.best is not None and found.dense is not None
    }


TWO = pair("/data/llama/v1", "aa11", DENSE["left"], name="v1") + pair(
    "/data/qwen/v1", "bb22", DENSE["right"], name="v1"
)


@pytest.mark.parametrize(
    ("paths", "name", "names"),
    [
        (("/data/llama/v1", "/data/qwen/v1"), "v1", {"llama/v1", "qwen/v1"}),
        (("/data/llama/model", "/data/qwen/model"), "model", {"llama-model", "qwen-model"}),
        (("/a/x/y/v1", "/b/x/y/v1"), "v1", {"a/x/y/v1", "b/x/y/v1"}),
        (("/数据/羊驼/模型", "/数据/千问/模型"), "模型", {"羊驼/模型", "千问/模型"}),
        (("Qwen/v1", "/data/qwen2/v1"), "v1", {"Qwen/v1", "qwen2/v1"}),
        (("/data/one", "/data/two"), "mine", {"mine (one)", "mine (two)"}),
        (("/data/v1", "/data/v1"), "v1", {"data/v1 (aa11)", "data/v1 (bb22)"}),
    ],
)  # fmt: skip
def test_two_models_with_one_name_are_two(paths: tuple[str, str], name: str, names: set[str]) -> None:
    runs = from_records(pair(paths[0], "aa11", 0.70, name=name) + pair(paths[1], "bb22", 0.26, name=name))
    if paths[0] == paths[1]:
        assert len(set(runs.models())) == 2  # one folder whose content changed: the digests tell them apart
    else:
        assert set(runs.models()) == names
    assert len({slug(model) for model in runs.models()}) == 2
    assert list(kept(runs).values()) == pytest.approx([0.9, 0.9])


def test_one_model_in_two_places_is_one() -> None:
    first = pair("/data/llama", "aa11", 0.70, name="llama")
    copy = [record("/copy/renamed", "aa11", name="renamed", method="blockwise", acc=0.63)]
    runs = from_records(first + copy)
    assert runs.models() == ["llama"]
    assert kept(runs) == pytest.approx({"llama": 0.9})
    assert len(runs.valid("llama")) == 3


def test_a_saved_model_is_called_by_its_run() -> None:
    one, two = "runs/tiny-taylor-0.2-16x8-0123456789", "runs/tiny-wanda-0.2-16x8-abcdef0123"
    runs = from_records(pair(f"{one}/model", "aa11", 0.70) + pair(f"{two}/model", "bb22", 0.26))
    assert runs.models() == [f"{one}-model".removeprefix("runs/"), f"{two}-model".removeprefix("runs/")]
    assert list(kept(runs).values()) == pytest.approx([0.9, 0.9])


def test_old_records_go_by_name_and_find_their_model() -> None:
    runs = from_records(
        pair("/data/llama", None, 0.70, name="llama") + pair("/elsewhere/llama", None, 0.70, name="llama")
    )
    assert runs.models() == ["llama"]
    mixed = [*TWO, record("/data/qwen/v1", None, name="v1", method="random", acc=0.2)]
    assert from_records(mixed).valid("qwen/v1")["method"].tolist() == ["taylor", "layerwise", "random"]
    one = [
        *pair("/data/llama", "aa11", 0.70, name="llama"),
        record("/old/llama", None, "llama", "random", acc=0.2),
    ]
    assert from_records(one).models() == ["llama"]


def test_every_output_knows_both(tmp_path: Path) -> None:
    for place, made in enumerate(TWO):
        write_record(tmp_path / "runs" / str(place), made)
    write_reports(tmp_path / "runs", tmp_path / "out", plots=True, today="2026-01-01")
    found = json.loads((tmp_path / "out" / "cross_model_comparison.json").read_text())
    assert [entry["model"] for entry in found] == ["llama/v1", "qwen/v1"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "137.0 %" not in report
    assert "llama/v1" in report
    assert "qwen/v1" in report
    drawn = {path.name for path in (tmp_path / "out").rglob("*.svg")} | {
        p.name for p in (tmp_path / "out").rglob("*.png")
    }
    assert {word for word in ("llama_v1", "qwen_v1") if any(word in name for name in drawn)} == {
        "llama_v1",
        "qwen_v1",
    }
    tables = ingest(tmp_path / "runs", tmp_path / "insight").tables
    assert set(tables[0].frame["model"]) == {"llama/v1", "qwen/v1"}


def test_our_own_table_and_several_folders_say_the_same(tmp_path: Path) -> None:
    from secateur.analysis.foreign import load_csv

    for place, made in enumerate(TWO):
        write_record(tmp_path / ("one" if place < 3 else "two") / str(place), made)
    parts = [load_runs(tmp_path / name) for name in ("one", "two")]
    assert [part.models() for part in parts] == [["v1"], ["v1"]]
    runs = join(parts)
    assert runs.models() == ["llama/v1", "qwen/v1"]
    write_reports(runs, tmp_path / "out", plots=False)
    again = load_csv(tmp_path / "out" / "results.csv")
    assert join([again]).models() == runs.models()
    assert kept(join([again])) == pytest.approx(kept(runs))
    assert join([*parts, again]).models() == runs.models()
    assert not (join([*parts, again]).frame["state"] == "valid").sum() < 4


def test_names_are_unique_as_file_names_too() -> None:
    origins = [
        Origin("a/b"),
        Origin("a_b"),
        Origin("A b"),
        *(Origin("m", f"/x/{n}/m", str(n)) for n in range(20)),
    ]
    names = unique_names({origin.key: origin for origin in origins})
    assert len({slug(name) for name in names.values()}) == len(origins)


def test_speed_measurements_of_two_models_with_one_name_are_not_mixed(tmp_path: Path) -> None:
    sources = []
    for word, seconds in (("llama", 1.0), ("qwen", 4.0)):
        folder = tmp_path / word
        folder.mkdir()
        settings = {"model.name": "v1", "model.path": f"/data/{word}/v1", "bench.run": None}
        variant = Variant(subject="v1", model="v1", settings=settings, cells=("8x8x1",))
        write_sweep(folder, Sweep(name=word, started="2026-01-01", repetitions=1, swept=(), variants=(variant,),
                                  provenance={}))  # fmt: skip
        journal = Journal(folder)
        journal.append(Facts(
            variant=0, fingerprint=word, parameters=1, dense_parameters=1, dtype="float32", weight_bytes=4,
            element_bytes=4, linear=1, head=0, layers=(), load_s=0.1,
        ))  # fmt: skip
        journal.append(Sample(
            variant=0, n_prompt=8, n_gen=8, batch=1, round=0, position=0, session="s", at="t", prefill_s=seconds,
            first_token_s=seconds, decode_s=seconds,
        ))  # fmt: skip
        sources.append(load_bench(folder))
    speeds = join_speeds(sources)
    assert speeds.cells.groupby("subject")["tokens_per_s"].first().to_dict() == {
        "llama/v1": 8.0,
        "qwen/v1": 2.0,
    }
    assert set(speeds.cells["model"]) == {"llama/v1", "qwen/v1"}
    assert set(join_speeds([speeds]).cells["subject"]) == {"llama/v1", "qwen/v1"}
