"""A folder with two models that are only files, a grid over them, the stand-in worker; disturbances of real jobs."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from secateur.command import main
from secateur.slurm import queue
from secateur.slurm.launch import choose
from secateur.slurm.plan import Plan, Task
from secateur.slurm.state import Attempt

STAND_IN = Path(__file__).with_name("stand_in.py")


@dataclass
class Bench:
    """A folder with two models that are only files, a grid over them, and the stand-in worker."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def out(self) -> Path:
        return self.folder / "runs"

    @property
    def grid_file(self) -> Path:
        return self.folder / "small.yaml"

    def write_grid(self, **changes: Any) -> None:
        models = [
            {
                "model": "local", "model.path": str(self.folder / name), "model.name": name, "calibration": "text_file",
                "calibration.path": str(self.folder / "text.txt"), "eval": "none",
            }
            for name in ("m1", "m2")
        ]  # fmt: skip
        grid = {
            "models": models,
            "overrides": {"budget.ratio": 0.2},
            "axes": {
                "taylor.seq_len": [16, 32],
                "method": ["taylor", "layerwise", "blockwise"],
                "taylor.num_samples": [16],
            },
            "threads": 1,
            "worker": [sys.executable, str(STAND_IN)],
        }
        self.grid_file.write_text(yaml.safe_dump(grid | changes))

    def order(self, **what: Any) -> None:
        """Tell the stand-in how to behave from now on."""
        (self.folder / "orders.json").write_text(json.dumps(what))

    def call(self, command: str, *words: str) -> int:
        return main([command, f"out={self.out}", *words])

    def grid(self, *words: str) -> int:
        # tests of other code say so themselves; an edit while the tests run must not stop these
        foreign = () if any(word.startswith("foreign=") for word in words) else ("foreign=reuse",)
        return self.call("grid", f"grid={self.grid_file}", *foreign, *words)

    def plan(self) -> Plan:
        return choose(self.out, None)

    def ledger(self) -> list[dict[str, Any]]:
        path = self.out / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def records(self) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in self.out.glob("*/record.json")}

    def table(self) -> bytes:
        return (self.plan().folder / "report" / "table.json").read_bytes()


def make_bench(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in ("m1", "m2"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps({"model_type": "llama", "name": name}))
        (folder / name / "model.safetensors").write_bytes(name.encode())
    (folder / "text.txt").write_text("a text\n" * 20)
    monkeypatch.setenv("STAND_IN", str(folder / "orders.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    bench = Bench(folder, monkeypatch)
    bench.write_grid()
    bench.order()
    return bench


def until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


def workers(task: Task) -> list[psutil.Process]:
    """The processes that do a task's work right now."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[-len(task.argv) :] == list(task.argv) and "secateur.slurm.leash" not in words:
            found.append(process)
    return found


def most_at_once(attempts: list[Attempt]) -> int:
    """The largest number of attempts that ran at the same time."""
    return max(
        sum(other.started <= each.started < (other.ended or each.started) for other in attempts)
        for each in attempts
    )


def hasten(job: str) -> None:
    """Leave a running job one to two minutes, so that Slurm soon tells it that its time is nearly up.

    Slurm's limits are whole minutes, and it looks at them twice a minute: it may send the signal half a minute early.
    """
    told = re.search(r"RunTime=(\d+):(\d+):(\d+)", queue.call("scontrol", "show", "job", "-o", job))
    assert told is not None
    hours, minutes, seconds = map(int, told.groups())
    limit(job, (hours * 3600 + minutes * 60 + seconds + 60) // 60 + 1)


def limit(job: str, minutes: int) -> None:
    """Set a job's time limit."""
    subprocess.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"], check=True, timeout=30)
