"""`secateur bench`: what is asked becomes settings and cells, in random order, and an interrupted sweep goes on."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from secateur.command import main
from secateur.eval.speed.config import BenchConfig, SpeedConfig, load_key, settings, subject
from secateur.eval.speed.journal import JOURNAL, Facts, Journal, Load, Roof, Sample, read_journal, read_sweep
from secateur.eval.speed.order import Cell, cells, schedule
from secateur.eval.speed.subjects import variants
from secateur.pruning.errors import StorageError
from secateur.pruning.files import write_json

QUICK = ("bench=quick", "bench.n_prompt=[8,16]", "bench.n_gen=[4]", "bench.repetitions=2", "bench.threads=1")


def test_every_cell_is_visited_once_a_round_in_another_order() -> None:
    work = [(v, Cell(p, 8, 1)) for v in range(6) for p in (16, 32, 64)]
    visits = schedule(work, [str(v % 3) for v in range(6)], 5, 0, 8)
    assert len(visits) == len({v.key for v in visits}) == 5 * len(work)
    rounds = [[(v.variant, v.cell) for v in visits if v.round == number] for number in range(5)]
    assert all(Counter(order) == Counter(work) for order in rounds)
    assert len({tuple(order) for order in rounds}) == 5
    assert visits == schedule(work, [str(v % 3) for v in range(6)], 5, 0, 8)
    assert visits != schedule(work, [str(v % 3) for v in range(6)], 5, 1, 8)


def test_settings_alternate_and_drift_cancels() -> None:
    """A drift over the session meets both settings alike: their mean positions differ little."""
    work = [(v, Cell(p, 8, 1)) for v in range(2) for p in range(32)]
    visits = schedule(work, ["a", "b"], 10, 0, 8)
    places = {v: [i for i, visit in enumerate(visits) if visit.variant == v] for v in range(2)}
    means = [sum(p) / len(p) for p in places.values()]
    assert abs(means[0] - means[1]) < 0.1 * len(visits)


def test_no_more_models_than_memory_holds_are_used_at_once() -> None:
    work = [(v, Cell(p, 8, 1)) for v in range(6) for p in (16, 32)]
    visits = schedule(work, [str(v) for v in range(6)], 3, 0, 2)
    changes = 0
    held: list[int] = []
    for visit in visits:
        if visit.variant not in held:
            held = [*held, visit.variant][-2:]
            changes += 1
    assert changes <= 3 * 6
    assert len(visits) == 3 * len(work)


def test_cells_beyond_the_context_are_left_out_or_asked_for() -> None:
    bench = BenchConfig(n_prompt=(64, 256), n_gen=(32, 128), batch=(1, "max"))
    grid, left = cells(bench, 288)
    assert {c.key for c in left} == {"256x128x1", "256x128xmax"}
    assert len(grid) == 6
    assert len(cells(bench.model_copy(update={"beyond_context": True}), 288)[0]) == 8


def test_several_values_are_every_combination() -> None:
    found, swept = variants(
        ["model=tiny_llama,tiny_qwen2", "bench.threads=1,2", "model.dtype=float32,bfloat16", *QUICK[:1]]
    )
    assert swept == ("bench.threads", "model.dtype")
    told = {(c.model.name, c.bench.threads, c.model.dtype) for c in found}
    assert len(found) == len(told) == 8
    assert len({load_key(c) for c in found}) == 4  # threads need no load of their own


def test_a_pruned_model_brings_its_dense_one() -> None:
    found, _ = variants(
        ["model=tiny_llama", "budget.ratio=0.2,0.5", "guard.round_to=1,8", "bench.cache=static"]
    )
    assert [subject(c) for c in found] == [
        "tiny_llama", "tiny_llama-random-0.2", "tiny_llama-random-0.2-r8", "tiny_llama-random-0.5",
        "tiny_llama-random-0.5-r8",
    ]  # fmt: skip
    assert {c.bench.cache for c in found} == {"static"}
    alone, _ = variants(["model=tiny_llama", "budget.ratio=0.2", "bench.baseline=false"])
    assert len(alone) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=nope"], "tiny_llama"),
        (["bench.thread=1"], "did you mean bench.threads"),
        (["bench.n_prompt=[0]"], "bench.n_prompt.0=0"),
        (["bench.threads=1", "bench.threads=2"], "given twice"),
        (["run=absent"], "run=absent: no such run"),
        (["checkpoint=absent"], "checkpoint=absent: no model folder"),
        (["model="], "model"),
        (["bench.batch=[some]"], "bench.batch"),
        (["--fast"], "unknown option --fast"),
    ],
)
def test_bad_words_are_refused_before_anything_is_loaded(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_grid_that_no_context_holds_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "model=tiny_llama", "bench.n_prompt=[4096]", f"out={tmp_path}"]) == 1
    assert "bench.beyond_context=true" in capsys.readouterr().err


def measure(folder: Path, *words: str) -> Path:
    assert main(["bench", *QUICK, f"out={folder}", *words]) == 0
    (found,) = folder.glob("bench/*/")
    return found


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    words = ("model=tiny_llama,tiny_mistral",)
    place = measure(tmp_path, *words)
    path = place / JOURNAL
    before = path.read_bytes()
    whole = list(read_journal(path))
    assert sum(isinstance(e, Sample) for e in whole) == 2 * 2 * 2
    lines = before.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:30])  # killed in the middle of a line
    assert measure(tmp_path, *words) == place
    again = list(read_journal(path))
    assert path.read_bytes().startswith(b"".join(lines[:5]))
    keys = Counter((e.variant, e.n_prompt, e.n_gen, e.round) for e in again if isinstance(e, Sample))
    assert len(keys) == 8
    assert set(keys.values()) == {1}
    finished = path.read_bytes()
    measure(tmp_path, *words)
    assert path.read_bytes() == finished  # nothing is measured twice


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(Roof(dtype="float32", threads=1, flops=1e9, bandwidth=1e9))
    with journal.path.open("a", encoding="utf-8") as handle:
        handle.write('{"kind": "roof"}\n')
    with pytest.raises(StorageError, match="line 2: not a benchmark entry"):
        journal.read()


def test_pruned_models_run_and_checkpoints_beside_dense_ones(tmp_path: Path) -> None:
    run = [
        "model=tiny_llama",
        "method=random",
        "budget.ratio=0.4",
        "eval=none",
        f"out={tmp_path}",
        "save_model=true",
    ]
    assert main(["run", *run]) == 0
    (name,) = [p.parent.name for p in tmp_path.glob("*random*/record.json")]
    checkpoint = tmp_path / name / "model"
    place = measure(
        tmp_path, "model=tiny_llama", f"run={name}", f"checkpoint={checkpoint}", "bench.roofline=true",
        "bench.batch=[1,max]", "bench.fit_limit=4",
    )  # fmt: skip
    sweep = read_sweep(place)
    assert [v.subject for v in sweep.variants] == ["tiny_llama", f"{name}-model", name]
    facts = [e for e in read_journal(place / JOURNAL) if isinstance(e, Facts)]
    dense, folder, planned = sorted(facts, key=lambda f: f.variant)
    assert dense.fingerprint == folder.fingerprint == planned.fingerprint
    assert folder.parameters == planned.parameters < 0.65 * dense.parameters
    assert folder.dense_parameters == planned.dense_parameters == dense.parameters
    assert all(f.max_batch == 4 and f.max_batch_why == "limit" for f in facts)
    samples = [e for e in read_journal(place / JOURNAL) if isinstance(e, Sample)]
    assert {s.batch for s in samples if s.largest} == {4}
    roofs = [e for e in read_journal(place / JOURNAL) if isinstance(e, Roof)]
    assert len(roofs) == 1
    assert roofs[0].flops > 1e8
    out = tmp_path / "report"
    assert main(["analyze", "report=models", f"runs={tmp_path}", f"out={out}", "plots=no"]) == 0
    table = next(t for t in json.loads((out / "speed_findings.json").read_text(encoding="utf-8"))["tables"]
                 if t["name"] == "pays")  # fmt: skip
    place_of = {column["name"]: i for i, column in enumerate(table["columns"])}
    assert len(table["rows"]) == 2 * 2 * 2  # pruned models x phases x batches
    assert all(row[place_of["flop_bound"]] > 1.3 for row in table["rows"])


def test_loads_are_timed_in_processes_of_their_own(tmp_path: Path) -> None:
    place = measure(
        tmp_path,
        "model=tiny_llama",
        "bench.mmap=true,false",
        "bench.load_repetitions=1",
    )
    loads = [e for e in read_journal(place / JOURNAL) if isinstance(e, Load)]
    assert [load.variant for load in loads] == [0, 1]
    for load in loads:
        assert load.load_s > 0
        assert load.rss_peak >= load.rss_loaded > load.rss_before > 50 * 2**20
    assert [v.settings["bench.mmap"] for v in read_sweep(place).variants] == [True, False]


def test_threads_are_what_was_asked_for_and_are_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    measure(tmp_path)
    assert torch.get_num_threads() == before


def test_identity_and_labels() -> None:
    found, swept = variants(["model=tiny_llama", "bench.label=a,b", "bench=quick"])
    assert swept == ("bench.label",)
    assert load_key(found[0]) != load_key(found[1])  # an A/A check loads twice
    assert settings(found[0])["bench.label"] == "a"
    assert "bench.n_prompt" not in settings(found[0])


def test_the_plan_of_work_is_printed_without_measuring(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bench", *QUICK[:4], "bench.threads=1,2", f"out={tmp_path}", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "bench.threads=1: 2 cells x 2" in text
    assert not (tmp_path / "bench").exists()
    assert main(["bench", "--cfg", "bench=serving"]) == 0
    assert "fit_limit: 64" in capsys.readouterr().out


def test_a_plan_of_another_model_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", {"schema_version": 99})
    assert main(["bench", *QUICK, f"bench.plan={tmp_path / 'plan.json'}", f"out={tmp_path}"]) == 1
    assert "is not a pruning plan" in capsys.readouterr().err


def test_the_defaults_are_dense() -> None:
    (config,), _ = variants([])
    assert isinstance(config, SpeedConfig)
    assert (config.model.name, config.budget.ratio, config.bench.name) == ("tiny_llama", 0.0, "default")
