"""Time and memory of the calibration pass against a plain backward pass that keeps all gradients.

`python -m secateur.pruning.bench_capture [shape=llama100m] [device=cpu] [rounds=3] [samples=64] [length=128]`
runs every side
in processes of its own, in turn, and prints ratios. Random weights: speed does not depend on them. Memory is measured
in runs of its own, where the C library returns freed blocks at once, so that the peak shows what is alive: activations,
logits, gradients, accumulators. What waits at the borders of segments lies in a file.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from secateur.pruning.calibration import Samples
from secateur.pruning.capture.run import run_capture
from secateur.pruning.capture.views import Level
from secateur.pruning.config import CaptureConfig, TaylorConfig
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.memory import Meter
from secateur.pruning.models.adapter import adapter_for, linear
from secateur.pruning.models.layout import read_layout
from secateur.pruning.models.loading import LoadedModel

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": False,
    },
    "llama100m": {
        "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_key_value_heads": 4, "vocab_size": 32000, "tie_word_embeddings": True,
    },
    "llama3_8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False, "rope_theta": 500000.0,
    },
}  # fmt: skip
ONE_WALK = "taylor, capture.segments=1"
SIDES = ("plain", "taylor_gate", "taylor", ONE_WALK)
BATCH = 4
RETURN_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def build(shape: str, device: str) -> LoadedModel:
    """A Llama of a shape with random weights, bfloat16 on a GPU, float32 on a CPU."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device != "cpu" else torch.float32)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape], max_position_embeddings=2048)).eval()
    torch.set_default_dtype(torch.float32)
    adapter = adapter_for("llama")
    return LoadedModel(model, None, adapter, read_layout(model, adapter), "bench", torch.device(device), None)


def plain(loaded: LoadedModel, samples: Samples, batch: int = BATCH) -> None:
    """The textbook way: the model's own loss, backward, every gradient kept and accumulated."""
    model: Any = loaded.model
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for ids in samples.ids.split(batch):
        ids = ids.to(loaded.device)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()


def captured(loaded: LoadedModel, samples: Samples, side: str) -> None:
    """Our pass, its final scores included."""
    level = Level.GATE if side == "taylor_gate" else Level.GRADIENTS
    config = CaptureConfig(priors=(), segments=1 if side == ONE_WALK else None)
    taylor = TaylorConfig(num_samples=len(samples.ids), batch_size=BATCH)
    run_capture(
        loaded, samples, config, taylor, level, [len(samples.ids)], list(ESTIMATORS.values()), progress=False
    )


def measure_side(side: str, shape: str, device: str, count: int, length: int) -> dict[str, Any]:
    """Time (after one warm-up batch) and peak memory above the loaded model, in this process."""
    loaded = build(shape, device)
    vocabulary = int(SHAPES[shape]["vocab_size"])
    ids = torch.randint(0, vocabulary, (count, length), generator=torch.Generator().manual_seed(1))
    lengths = torch.full((count,), length)

    def work(rows: int) -> None:
        samples = Samples(ids[:rows], lengths[:rows], "random")
        if side == "plain":
            plain(loaded, samples)
        else:
            captured(loaded, samples, side)

    meter = Meter(loaded.device)
    work(BATCH)
    if device != "cpu":  # the warm-up's own memory is not the pass's
        loaded.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        meter = Meter(loaded.device)
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    work(count)
    if device != "cpu":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = meter.peak()
    projections = [
        linear(x, p) for x in loaded.adapter.decoder_layers(loaded.model) for p in loaded.adapter.projections
    ]
    prunable = sum(m.weight.numel() for m in projections if isinstance(m, nn.Linear))
    return {
        "side": side, "seconds": wall if device != "cpu" else cpu, "wall": wall,
        "above": peak.growth(), "peak": peak.where()[1],
        "parameters": loaded.layout.total_parameters, "prunable_float32": 4 * prunable,
    }  # fmt: skip


def main(argv: list[str]) -> int:
    """Run all sides in turn and print the table."""
    options = {
        "shape": "llama100m",
        "device": "cpu",
        "rounds": "3",
        "samples": "64",
        "length": "128",
        **dict(a.split("=", 1) for a in argv),
    }
    if "side" in options:
        count, length = int(options["samples"]), int(options["length"])
        found = measure_side(options["side"], options["shape"], options["device"], count, length)
        print(json.dumps(found))
        return 0
    rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(int(options["rounds"])):
        for side in SIDES:
            arguments = [f"{k}={v}" for k, v in {**options, "side": side}.items()]
            rounds[side].append(_child(arguments, {}))
    memory = {
        side: _child([f"{k}={v}" for k, v in {**options, "side": side}.items()], RETURN_AT_ONCE)
        for side in SIDES
    }
    _print(rounds, memory, options)
    return 0


def _child(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """One side in a process of its own."""
    command = [sys.executable, "-m", "secateur.pruning.bench_capture", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _print(
    rounds: dict[str, list[dict[str, Any]]], memory: dict[str, dict[str, Any]], options: dict[str, str]
) -> None:
    first = rounds["plain"][0]
    kind = "CPU seconds" if options["device"] == "cpu" else "seconds"
    table = Table(
        title=f"calibration pass, {options['shape']} ({first['parameters'] / 1e6:.0f} M parameters), "
        f"{options['device']}, {options['samples']} samples of {options['length']} tokens, batches of {BATCH}; "
        f"medians of {options['rounds']} rounds"
    )
    for column in (
        "side",
        kind,
        "time / plain",
        "peak above the model, MB",
        "peak in all, MB",
        "the same / float32 copy of the prunable weights",
    ):
        table.add_column(column, justify="left" if column == "side" else "right")
    base = [row["seconds"] for row in rounds["plain"]]
    for side, rows in rounds.items():
        seconds = [row["seconds"] for row in rows]
        ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=True))
        above = memory[side]["above"]
        table.add_row(
            side,
            f"{statistics.median(seconds):.2f}",
            f"{ratio:.3f}",
            f"{above / 1e6:,.0f}",
            f"{memory[side]['peak'] / 1e6:,.0f}",
            f"{above / first['prunable_float32']:.2f}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
