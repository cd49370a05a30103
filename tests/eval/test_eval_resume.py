"""`measure`, killed and called again, and in two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.command import main
from secateur.eval.measure import content_identity, measure
from secateur.eval.record import read_record
from secateur.eval.store import Store
from tests.eval.conftest import make_model
from tests.eval.measuring import assert_same, config, values


def stored(folder: Path) -> dict[bytes, tuple[float, bool]]:
    """Every log-likelihood in a run's store."""
    import numpy as np

    result: dict[bytes, tuple[float, bool]] = {}
    for path in folder.rglob("segment-*.npz"):
        with np.load(path, allow_pickle=False) as data:
            pairs = zip(data["values"].tolist(), data["greedy"].tolist(), strict=True)
            result.update(zip(data["keys"].tolist(), pairs, strict=True))
    return result


CHILD = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from secateur.eval import store
from secateur.eval.measure import measure
from secateur.eval.scoring import TreeScorer
from tests.eval.conftest import make_model, make_tokenizer
from tests.eval.measuring import config
store.FLUSH_SECONDS = 0.0
plain = TreeScorer.hidden
def slow(self, pack, **inputs):
    time.sleep(0.1)
    return plain(self, pack, **inputs)
TreeScorer.hidden = slow
Store = store.Store
settings = config(Path(sys.argv[1]), token_budget=64)
import secateur.eval.measure
secateur.eval.measure.Store = lambda folder, identity: Store(folder, identity, flush_seconds=0.0)
measure(make_model("llama"), make_tokenizer(), settings, Path(sys.argv[2]), identity="m")
"""


def test_kill_and_again(data_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    """kill -9 in the middle: finished requests stay, only the missing are computed, the numbers are the same."""
    settings = config(data_dir, token_budget=64)
    whole = measure(make_model("llama"), tokenizer, settings, tmp_path / "whole", identity="m")
    folder = tmp_path / "killed"
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(data_dir), str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    deadline = time.monotonic() + 120
    while len(list(folder.rglob("segment-*.npz"))) < 5 and time.monotonic() < deadline:
        assert process.poll() is None, "the child ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = measure(make_model("llama"), tokenizer, settings, folder, identity="m")
    assert_same(resumed, whole)
    assert stored(folder) == stored(tmp_path / "whole")  # to the last bit
    assert 0 < resumed.counters["requests_reused"] < whole.counters["requests"]
    assert resumed.counters["forward_tokens"] < whole.counters["forward_tokens"]


WORKER = """
import os, sys
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist
torch.set_num_threads(1)
rank = int(sys.argv[1])
meet = f"file://{sys.argv[2]}"
dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timedelta(seconds=100))
from secateur.eval.measure import measure
from tests.eval.conftest import make_model, make_tokenizer
from tests.eval.measuring import config, values
import json
for backend in ("fast", "hflm"):
    settings = config(Path(sys.argv[3]), token_budget=64, backend=backend)
    result = measure(make_model("llama"), make_tokenizer(), settings, Path(sys.argv[4]) / backend, identity="m")
    Path(sys.argv[4], f"{backend}-{rank}.json").write_text(json.dumps([values(result), result.counters]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(data_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "out").mkdir()
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WORKER,
                str(rank),
                str(tmp_path / "meet"),
                str(data_dir),
                str(tmp_path / "out"),
            ],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=200) for worker in workers] == [0, 0]
    for backend in ("fast", "hflm"):
        settings = config(data_dir, token_budget=64, backend=backend)
        alone = measure(make_model("llama"), tokenizer, settings, tmp_path / "alone" / backend, identity="m")
        runs = [json.loads((tmp_path / "out" / f"{backend}-{rank}.json").read_text()) for rank in range(2)]
        assert runs[0][0] == runs[1][0]
        for name, value in values(alone).items():
            assert runs[0][0][name] == pytest.approx(value, rel=1e-6)
        if backend == "fast":
            assert max(run[1]["forward_tokens"] for run in runs) < alone.counters["forward_tokens"]


def test_identity_of_content() -> None:
    assert content_identity(make_model("llama")) == content_identity(make_model("llama"))
    changed = make_model("llama")
    with torch.no_grad():
        changed.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    assert content_identity(changed) != content_identity(make_model("llama"))


def test_merging_keeps_what_other_processes_wrote(tmp_path: Path) -> None:
    import numpy as np

    from secateur.eval.store import MERGE_ABOVE, request_keys

    mine, other = Store(tmp_path, {"model": "m"}), Store(tmp_path, {"model": "m"})
    keys = request_keys([("context", f" {i}") for i in range(MERGE_ABOVE + 4)])
    other.add(keys[-1:], np.array([-9.0]), np.array([True]))
    other.flush()
    for i in range(MERGE_ABOVE + 2):
        mine.add(keys[i : i + 1], np.array([-float(i)]), np.array([False]))
        mine.flush()
    mine.merge()
    assert len(list(tmp_path.rglob("segment-*.npz"))) == 2
    found, values, greedy = Store(tmp_path, {"model": "m"}).get(keys)
    assert found.tolist() == [True] * (MERGE_ABOVE + 2) + [False, True]
    assert values.tolist() == [*(-float(i) for i in range(MERGE_ABOVE + 2)), 0.0, -9.0]
    assert greedy.tolist() == [False] * (MERGE_ABOVE + 3) + [True]


def test_counters_tell_of_this_call_or_of_all(root: Path, tmp_path: Path) -> None:
    """As docs/evaluation.md says: a second call that finds everything has computed nothing, and its result is equal."""
    words = [
        "run",
        "model=tiny_llama",
        "taylor.num_samples=8",
        "eval.tasks=[boolq]",
        "eval.limit=4",
        "progress=false",
    ]
    words += ["eval.ppl.max_tokens=600", "eval.baseline=false", "device=cpu", f"out={tmp_path}"]
    records = []
    for _ in range(2):
        assert main(words) == 0
        (path,) = tmp_path.glob("*/record.json")
        records.append(read_record(path.parent))
        path.unlink()
    first, second = (record.counters for record in records)
    assert records[0].metrics == records[1].metrics
    assert first["requests"] == second["requests"] > 0
    assert (first["requests_computed"], first["requests_reused"]) == (first["requests"], 0)
    assert (second["requests_computed"], second["requests_reused"]) == (0, first["requests"])
    assert (first["capture"], second["capture"]) == ("computed", "reused")
    for name in ("forward_tokens", "backward_tokens", "eval_forward_tokens"):
        assert first[name] > 0, name
        assert second[name] == 0, name
    page = (root / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert not [name for name in first if f"{name}`" not in page], "every counter is explained"
