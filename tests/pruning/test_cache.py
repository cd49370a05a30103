"""The capture cache: keyed by contents, computed once, reused by every run that it serves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secateur.pruning.capture.cache import CaptureCache
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.views import Level
from secateur.pruning.files import new_directory
from tests.pruning.commands import (
    Place,
    call,
    documents,
    leftovers,
    only_record,
    records,
    save_model,
    write_jsonl,
)
from tests.pruning.conftest import build, capture_of, text


def capture(here: Place, *overrides: str) -> str:
    """Compute or reuse a capture; which of the two it was."""
    outcome = call("capture", *here.arguments(*overrides))
    assert outcome.code == 0, outcome.err
    return outcome.err.rsplit(" capture ", 1)[1].split(":")[0]


def keys(here: Place) -> set[str]:
    """Names of the cache's entries."""
    return {path.name for path in (here.out / "cache" / "captures").iterdir()}


# --- what an entry is called


def test_what_gives_another_key_and_what_does_not(here: Place, tmp_path: Path) -> None:
    assert capture(here) == "computed"
    (first,) = keys(here)
    same = (
        ("taylor.num_samples=4",),  # a prefix of the same text, found as a snapshot
        ("method=blockwise",),
        ("method=wanda", "budget.ratio=0.5"),
        ("seed=3", "guard.min_channels=4"),
        (f"calibration.path={shutil.copy(here.text, tmp_path / 'moved.jsonl')}",),
        (f"model.path={shutil.copytree(here.model, tmp_path / 'moved')}", "model.name=net"),
    )
    for overrides in same:
        assert capture(here, *overrides) == "reused", overrides
    assert keys(here) == {first}
    other = (
        ("taylor.seq_len=8",),
        ("taylor.batch_size=4",),
        ("calibration.seed=1",),
        ("calibration.packing=study",),
        ("model.dtype=bfloat16",),
        ("capture.prior_share=0.5",),
        (f"calibration.path={write_jsonl(tmp_path / 'other.jsonl', documents(60, seed=5))}",),
        (f"model.path={save_model(tmp_path / 'net2', seed=1)}",),
    )
    for number, overrides in enumerate(other):
        assert capture(here, *overrides) == "computed", overrides
        assert len(keys(here)) == number + 2, overrides


def test_text_that_differs_only_after_the_first_sample_is_another_text(here: Place, tmp_path: Path) -> None:
    """A file edited in place must never be served the capture of what it was."""
    texts = documents(60)
    path = write_jsonl(tmp_path / "edited.jsonl", texts)
    assert capture(here, f"calibration.path={path}") == "computed"
    # the shuffle depends on the number of documents alone: the first sample stays the same unless its document is hit
    for at in range(0, 60, 2):
        texts[at] = documents(1, seed=1000 + at)[0]
    write_jsonl(path, texts)
    assert capture(here, f"calibration.path={path}") == "computed"
    texts[-1] += " w4"
    write_jsonl(path, texts)
    assert capture(here, f"calibration.path={path}") == "computed"
    assert len(keys(here)) == 3


def test_evaluation_text_left_out_is_part_of_the_key(here: Place, tmp_path: Path) -> None:
    assert capture(here) == "computed"
    held_out = write_jsonl(tmp_path / "held.jsonl", documents(60)[:3] + documents(10, seed=7))
    own = ("eval=ppl", f"eval.ppl.text={held_out}", "eval.ppl.window=16")
    assert capture(here, *own) == "computed"
    assert capture(here, *here.perplexity()) == "reused"  # shares no document with the calibration text


def test_a_snapshot_within_a_batch_gets_a_pass_of_its_own(here: Place) -> None:
    """Otherwise the batches behind it would change, and with them every later score."""
    outcome = call("capture", *here.arguments("taylor.num_samples=8", "capture.snapshots=[3,6]"))
    assert "not a multiple of taylor.batch_size=2" in outcome.err
    assert "snapshots [2, 4, 6, 8]" in outcome.err
    assert capture(here, "taylor.num_samples=3") == "computed"


def test_what_an_entry_lacks_is_computed(here: Place) -> None:
    assert capture(here, "method=wanda", "capture.priors=[]") == "computed"  # forward passes only
    assert capture(here, "method=wanda", "capture.priors=[]") == "reused"
    assert capture(here, "method=taylor_gate", "capture.priors=[]") == "computed"
    assert capture(here, "method=taylor", "capture.priors=[]") == "computed"
    assert capture(here, "method=blockwise", "capture.priors=[]") == "computed"  # needs the loss prior
    for method in ("wanda", "taylor_gate", "taylor", "blockwise"):
        assert capture(here, f"method={method}", "capture.priors=[]") == "reused"
    assert len(keys(here)) == 1


# --- one pass, every answer


def test_one_capture_at_512_samples_serves_nine_runs(here: Place) -> None:
    """3 methods x 128/256/512 samples: only the first does any forward or backward pass for scores."""
    sizes = ("taylor.seq_len=8", "taylor.batch_size=8", *here.perplexity(8))
    text_file = write_jsonl(here.folder / "long.jsonl", documents(200))
    for samples in (512, 256, 128):
        for method in ("taylor", "layerwise", "blockwise"):
            which = (f"method={method}", f"taylor.num_samples={samples}", f"calibration.path={text_file}")
            outcome = call("run", *here.arguments(*sizes, *which))
            assert outcome.code == 0, outcome.err
    found = [record for record in records(here.out) if record["kind"] == "pruned"]
    assert len(found) == 9
    counters = [record["counters"] for record in found]
    assert sorted(c["capture"] for c in counters) == ["computed"] + ["reused"] * 8
    for counter in counters:
        worked = counter["capture"] == "computed"
        assert (counter["forward_tokens"] >= 512 * 8) == worked
        assert counter["backward_tokens"] == (512 * 8 if worked else 0)
    assert len(keys(here)) == 1
    # bypassing a block of a random model may lower the loss, so that layerwise and blockwise coincide
    assert len({json.dumps(record["layers"]) for record in found}) >= 6


def test_a_snapshot_gives_the_plan_of_a_pass_of_its_own(here: Place, tmp_path: Path) -> None:
    alone = replace(here, folder=tmp_path / "alone")
    assert capture(here, "taylor.num_samples=8") == "computed"
    overrides = ("method=layerwise", "taylor.num_samples=4", "capture.prior_share=1.0")
    assert capture(here, "taylor.num_samples=8", "capture.prior_share=1.0") == "computed"
    for where in (here, alone):
        assert call("run", *where.arguments(*overrides, *where.perplexity())).code == 0
    shared_run, own_run = only_record(here.out), only_record(alone.out)
    assert shared_run["counters"]["capture"] == "reused"
    assert own_run["counters"]["capture"] == "computed"
    plans = [(p.out / only_record(p.out)["run_id"] / "plan.json").read_bytes() for p in (here, alone)]
    assert plans[0] == plans[1]
    assert shared_run["metrics"] == own_run["metrics"]


def test_a_finished_run_is_not_repeated(here: Place) -> None:
    assert call("run", *here.arguments()).code == 0
    path = here.out / only_record(here.out)["run_id"] / "record.json"
    before = path.stat().st_mtime_ns
    shutil.rmtree(here.out / "cache" / "captures")
    outcome = call("run", *here.arguments("device=cpu", "capture.offload=true"))
    assert outcome.code == 0
    assert "done already" in outcome.err
    assert path.stat().st_mtime_ns == before
    assert not (here.out / "cache" / "captures").exists()


def test_a_checkpoint_asked_for_later_is_written(here: Place) -> None:
    """Exit code 0 only when all that was asked for is done."""
    once = replace(here, folder=here.folder / "once")
    assert call("run", *once.arguments("save_model=true")).code == 0
    assert call("run", *here.arguments()).code == 0
    name = only_record(here.out)["run_id"]
    record = (here.out / name / "record.json").read_bytes()
    assert not (here.out / name / "model").exists()
    assert call("run", *here.arguments("save_model=true")).code == 0
    assert (here.out / name / "record.json").read_bytes() == record
    files = [p.out / name / "model" / "model.safetensors" for p in (here, once)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_second_run_is_bit_equal_to_the_first(here: Place, tmp_path: Path) -> None:
    again = replace(here, folder=tmp_path / "again")
    for where in (here, again):
        assert call("run", *where.arguments("method=blockwise", *where.perplexity())).code == 0
    (first,) = here.out.glob("cache/captures/*/*/capture.safetensors")
    (second,) = again.out.glob("cache/captures/*/*/capture.safetensors")
    assert first.read_bytes() == second.read_bytes()
    assert only_record(here.out)["metrics"] == only_record(again.out)["metrics"]


# --- the files


def small() -> Capture:
    return capture_of(build("llama"), text(4), Level.SQUARES, [2, 4], priors=("loss", "cosine", "gate"))


def test_a_capture_survives_its_file(tmp_path: Path) -> None:
    found = small()
    found.save(tmp_path / "entry")
    back = Capture.load(tmp_path / "entry")
    assert (back.level, back.snapshots, back.tensors) == (found.level, found.snapshots, found.tensors)
    assert back.facts == found.facts
    assert back.scores.keys() == found.scores.keys()
    for name, value in found.scores.items():
        assert torch.equal(back.scores[name], value)
    for kind in ("loss", "cosine", "gate"):
        np.testing.assert_array_equal(back.prior(kind, 4, 1.0), found.prior(kind, 4, 1.0))
    assert back.layer_gradients(2) == found.layer_gradients(2)


def test_what_a_killed_writer_leaves_is_neither_read_nor_kept(tmp_path: Path) -> None:
    cache = CaptureCache(tmp_path / "key")
    torn = tmp_path / "key" / ".level4-2-4-lcg.abcdef.tmp"
    torn.mkdir(parents=True)
    (torn / "capture.json").write_text('{"level": 4')

    def find() -> Capture | None:
        return cache.find(Level.GATE, 4, "loss", 0.2)

    assert find() is None
    _, reused = cache.get(find, small)
    assert not reused
    assert find() is not None
    assert leftovers(tmp_path) == []


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(value: Any) -> None:
        with new_directory(tmp_path / "final") as folder:
            (folder / "a").write_text("1")
            if value is None:
                raise KeyboardInterrupt
            (folder / "b").write_text(value)

    with pytest.raises(KeyboardInterrupt):
        write(None)
    assert list(tmp_path.iterdir()) == []
    write("first")
    write("second")  # another process was faster: its version stays
    assert (tmp_path / "final" / "b").read_text() == "first"
    assert leftovers(tmp_path) == []
