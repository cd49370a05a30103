"""What a few runs of the shipped models decided and measured, kept in `records.json`.

Plans are compared unit by unit. Numbers are compared to a relative 1e-5: processors differ in the last bits of a
float32 sum; a change of the code that is meant to change no number changes none of them.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from secateur.eval.config import RunConfig
from secateur.eval.experiment import experiment
from secateur.pruning.compose import compose, register
from secateur.pruning.config import validate
from secateur.pruning.plan import PruningPlan

PATH = Path(__file__).with_name("records.json")
MODELS = ("tiny_llama", "tiny_mistral", "tiny_qwen2")
METHODS = ("taylor", "blockwise", "secateur", "flap", "shortgpt", "taylor_second")
CASES = tuple(f"{model} {method}" for model in MODELS for method in METHODS)
SIZE = (
    "device=cpu", "model.dtype=float32", "taylor.num_samples=16", "taylor.seq_len=48", "budget.ratio=0.25",
    "eval.tasks=[piqa,boolq]", "eval.limit=8", "eval.ppl.max_tokens=1500", "progress=false",
)  # fmt: skip


def measure(case: str) -> dict[str, Any]:
    """Run one case and keep what must not change."""
    model, method = case.split()
    with tempfile.TemporaryDirectory() as folder:
        register(RunConfig)
        words = [f"model={model}", f"method={method}", *SIZE, f"out={folder}"]
        record = experiment(validate(RunConfig, compose("run", words)))
        plan = PruningPlan.load(Path(folder) / record.run_id / "plan.json")
    kept = [[list(layer.kept_kv_groups), list(layer.kept_channels)] for layer in plan.layers]
    statistics = {k: v for k, v in record.statistics.items() if isinstance(v, int | float)}
    return {
        "run_id": record.run_id,
        "kept": [[len(groups), len(channels)] for groups, channels in kept],
        "plan": hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16],
        "removed": plan.removed,
        "metrics": {name: metric.value for name, metric in sorted(record.metrics.items())},
        "statistics": dict(sorted(statistics.items())),
    }


def write(path: Path, records: dict[str, Any]) -> None:
    """One line a case, so that a change reads as what it is."""
    lines = [f"{json.dumps(case)}: {json.dumps(record)}" for case, record in records.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
