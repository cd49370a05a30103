"""A folder with two models that are only files, a grid over them, and the stand-in worker."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import secateur
from slurm.launch import choose
from slurm.plan import Plan

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
        return secateur.main([command, f"out={self.out}", *words])

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
