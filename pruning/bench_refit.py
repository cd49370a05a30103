"""Time and memory of refit and second-order scores on one decoder layer as wide as Llama-3-8B's, random weights.

`python -m secateur.pruning.bench_refit [parts=gram,solve,greedy] [tokens=1000] [seconds=FILE.json]`
measures every step in a
process of its own, one after another, and prints what a whole model (32 layers) would take. What is measured at full
width and what is extrapolated stands in the table. Needs up to 9 GB.

Shapes: D = 4096 hidden, F features at the input of an output projection (4096 attention, 14336 MLP), n units kept.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from secateur.pruning import least_squares
from secateur.pruning.compensation.walk import activations, advance, start
from secateur.pruning.config_method import CompensationConfig
from secateur.pruning.greedy_removal import greedy_costs
from secateur.pruning.memory import Meter
from secateur.pruning.models.adapter import Structure, adapter_for

HIDDEN, CHANNELS, HEADS, KV_HEADS, LAYERS = 4096, 14336, 32, 8, 32
FEATURES: dict[Structure, int] = {"attention": HIDDEN, "mlp": CHANNELS}
KEPT = {"attention": 6 / 8, "mlp": 0.8}
NARROW = (3584, 7168)
"""Channels at which the MLP's greedy costs are measured; those of 14336 follow by F^3."""
CALIBRATION = 256 * 128
STEPS = (
    "gram/attention/float32", "gram/mlp/float32", "gram/attention/float64", "gram/mlp/float64",
    "solve/attention", "solve/mlp", "greedy/attention",
    *(f"greedy/mlp/{width}" for width in NARROW),
)  # fmt: skip
Found = dict[str, float]


def layer_inputs(tokens: int, structure: Structure) -> torch.Tensor:
    """What `o_proj` or `down_proj` of a random layer is given, float32 [tokens, F]."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=CHANNELS, num_hidden_layers=1, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, vocab_size=256, tie_word_embeddings=True,
    )  # fmt: skip
    model, adapter, device = LlamaForCausalLM(config).eval(), adapter_for("llama"), torch.device("cpu")
    length = 125
    ids = torch.randint(0, 256, (-(-tokens // length), length))
    layer = adapter.decoder_layers(model)[0]
    stream = start(model, adapter, [ids], device)
    if structure == "mlp":
        advance(stream, layer, adapter, "attention", 0, device)
    _, _, units = next(activations(stream, layer, adapter, structure, 0, device))
    return units.flatten(0, 1)[:tokens].clone()


def gram_step(structure: Structure, dtype: str, tokens: int) -> Found:
    """One batch of `tokens` rows added to G, as capture (float32) and refit (float64) do."""
    with torch.no_grad():
        rows = layer_inputs(tokens, structure)
    wide = torch.float64 if dtype == "float64" else torch.float32
    total = torch.zeros(FEATURES[structure], FEATURES[structure], dtype=wide)

    def work() -> None:
        flat = rows.to(wide)
        total.add_(flat.T @ flat)

    return measured(work, total.nbytes)


def random_gram(features: int) -> torch.Tensor:
    """A Gram matrix of random activations with a diagonal that makes it regular, float64 [F, F]."""
    rows = torch.randn(512, features, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gram = rows.T @ rows
    gram.diagonal().add_(features)
    return gram


def solve_step(structure: Structure) -> Found:
    """One refit of one output projection, float64, one ridge."""
    features = FEATURES[structure]
    gram, weight = random_gram(features), torch.randn(HIDDEN, features, dtype=torch.float64)
    cross = gram @ weight.T
    kept = torch.arange(round(KEPT[structure] * features))
    return measured(
        lambda: least_squares.ridge_refit(weight, gram, cross, kept, 1e-4), gram.nbytes + cross.nbytes
    )


def greedy_step(structure: Structure, width: int) -> Found:
    """All greedy costs: of 8 units of attention, or of MLP channels."""
    gram, metric = random_gram(width), random_gram(HIDDEN)
    weight = torch.randn(HIDDEN, width, dtype=torch.float64)
    units = KV_HEADS if structure == "attention" else width
    return measured(lambda: greedy_costs(weight, gram, metric, units), gram.nbytes + metric.nbytes)


def measured(work: Callable[[], Any], given: int) -> Found:
    """CPU seconds, wall seconds and peak bytes of a step; `given` bytes were there before and belong to it."""
    meter = Meter(torch.device("cpu"))
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "bytes": float(meter.peak().growth() + given)}


def run_step(name: str, tokens: int) -> Found:
    """One step, in this process."""
    kind, structure, *rest = name.split("/")
    assert structure in ("attention", "mlp")
    if kind == "gram":
        return gram_step(structure, rest[0], tokens)
    if kind == "solve":
        return solve_step(structure)
    return greedy_step(structure, int(rest[0]) if rest else FEATURES[structure])


def whole_model(found: dict[str, Found], tokens: int) -> dict[str, float]:
    """CPU hours of 32 layers at 256 x 128 calibration tokens, from the seconds of the steps."""
    seconds = {name: value["cpu"] for name, value in found.items()}
    batches, hours = CALIBRATION / tokens, LAYERS / 3600
    solves = len(CompensationConfig().ridge) + 1  # every candidate on the fitting part, the best one on all
    return {
        "Gram matrices, float32": (seconds["gram/attention/float32"] + seconds["gram/mlp/float32"])
        * batches
        * hours,
        "slope matrices, float32 (two of 4096)": 2 * seconds["gram/attention/float32"] * batches * hours,
        "Gram matrices of the refit, float64": (
            seconds["gram/attention/float64"] + seconds["gram/mlp/float64"]
        )
        * batches
        * hours,
        f"refit, {solves} solves a block": solves
        * (seconds["solve/attention"] + seconds["solve/mlp"])
        * hours,
        "surgeon, attention": seconds["greedy/attention"] * hours,
        "surgeon, MLP (by F^3)": seconds[f"greedy/mlp/{NARROW[-1]}"] * (CHANNELS / NARROW[-1]) ** 3 * hours,
    }


def main(argv: list[str]) -> int:
    """Run all steps in turn and print the tables."""
    options = {"parts": "gram,solve,greedy", "tokens": "1000", **dict(a.split("=", 1) for a in argv)}
    tokens = int(options["tokens"])
    if "step" in options:
        print(json.dumps(run_step(options["step"], tokens)))
        return 0
    console, found = Console(width=120), dict[str, Found]()
    for name in STEPS:
        if name.split("/")[0] in options["parts"].split(","):
            command = [
                sys.executable,
                "-m",
                "secateur.pruning.bench_refit",
                f"step={name}",
                f"tokens={tokens}",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
            console.print(f"{name}: {found[name]['cpu']:.1f} CPU s, {found[name]['bytes'] / 1e9:.2f} GB")
    threads = torch.get_num_threads()
    table = Table(
        title=f"one layer, D={HIDDEN}, F={CHANNELS}, {tokens} tokens, {threads} thread(s), measured"
    )
    for column in ("step", "CPU seconds", "wall seconds", "peak GB, matrices included"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, value in found.items():
        table.add_row(name, f"{value['cpu']:.1f}", f"{value['wall']:.1f}", f"{value['bytes'] / 1e9:.2f}")
    console.print(table)
    if len(found) == len(STEPS):
        far = Table(title=f"{LAYERS} layers, {CALIBRATION} tokens: extrapolated CPU hours of one such core")
        far.add_column("step")
        far.add_column("hours", justify="right")
        for name, hours in whole_model(found, tokens).items():
            far.add_row(name, f"{hours:.2f}")
        console.print(far)
    if "seconds" in options:
        Path(options["seconds"]).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
