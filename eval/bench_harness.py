"""Benchmark of evaluation: lm-eval's HFLM at its best batch size against the fast LM, alternating in one go.

    python -m secateur.eval.bench_harness                 # about ten minutes on one core
    python -m secateur.eval.bench_harness --fraction 0.002 --skip overhead

Times are process CPU seconds of one thread, the best of the repeats. Real prompts are used when SECATEUR_SHARED names
a folder with `assets/tasks`; otherwise the shipped test bench.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from secateur.eval.bench_overhead import overhead
from secateur.eval.bench_setup import (
    MAX_LENGTH,
    SHAPES,
    Request,
    Shape,
    data_dir,
    flop_bound,
    fold,
    prompts,
    train_tokenizer,
)
from secateur.eval.fast_lm import FastLM
from secateur.eval.hflm import StoredHFLM
from secateur.eval.plans import forget_plans
from secateur.eval.prefix import PrefixReuse
from secateur.eval.quiet import quiet
from secateur.eval.tokens import encode_pairs
from secateur.eval.trie import MergeRule, Trees, build_trees
from secateur.pruning.memory import Meter

BATCH_SIZES = (4, 8)
PARTS = ("speed", "memory", "prefix", "overhead")
console = Console()


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process for a piece of work, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def run_trees(fast: FastLM, trees: Trees) -> np.ndarray:
    """Log-likelihoods [R] of a plan."""
    needed = np.ones(int(trees.inverse.max()) + 1, dtype=bool)
    return fast.score_trees(trees, needed)[0][trees.inverse]


def speed(shape: Shape, encoded: dict[str, Any], tokenizer: Any, repeats: int) -> None:
    """Print time per task and in total, of both sides, beside the FLOP bound."""
    model = shape.build()
    fast = FastLM(model, tokenizer, max_length=MAX_LENGTH)
    hflm = StoredHFLM(model, tokenizer, max_length=MAX_LENGTH, logits_cache=True)
    assert fast.scorer is not None
    share = shape.head_flops / shape.layer_flops
    table = Table(title=f"{shape.name} (head {share:.0%} of the layers' FLOPs), CPU seconds")
    for column in ("task", "requests", "HFLM (batch)", "fast", "ratio", "FLOP bound", "max |dLL|"):
        table.add_column(column, justify="left" if column == "task" else "right")
    totals = np.zeros(4)
    for name, pairs in encoded.items():
        requests = fold(pairs, shape.vocabulary)
        trees = build_trees([(a, b) for _, a, b in requests], MAX_LENGTH, MergeRule(fast.scorer.rho))
        theirs: dict[int, float] = {}
        ours, expected, values = float("inf"), [], np.zeros(0)
        for _ in range(repeats):
            seconds, values = cpu_seconds(lambda plan=trees: run_trees(fast, plan))
            ours = min(ours, seconds)
            for size in BATCH_SIZES:
                hflm.batch_size_per_gpu = size
                with quiet():
                    seconds, expected = cpu_seconds(lambda part=requests: score(hflm, part))
                theirs[size] = min(theirs.get(size, float("inf")), seconds)
        best = min(theirs, key=lambda size: theirs[size])
        bound = flop_bound(shape, requests, trees)
        worst = float(np.abs(values - np.array([value for value, _ in expected])).max())
        totals += [theirs[best], ours, bound * trees.tokens, trees.tokens]
        cells = (f"{theirs[best]:.2f} ({best})", f"{ours:.2f}", f"{theirs[best] / ours:.2f}", f"{bound:.2f}")
        table.add_row(name, str(len(requests)), *cells, f"{worst:.0e}")
    ratio, bound = totals[0] / totals[1], totals[2] / totals[3]
    table.add_row(
        "total", "", f"{totals[0]:.2f}", f"{totals[1]:.2f}", f"[bold]{ratio:.2f}", f"{bound:.2f}", ""
    )
    console.print(table)


def score(lm: Any, requests: list[Request]) -> list[tuple[float, bool]]:
    """HFLM's scoring of token requests, without its tokenisation."""
    return lm._loglikelihood_tokens(requests, disable_tqdm=True)


def memory(fraction: float) -> None:
    """Print the growth of the peak resident memory while scoring, each side in its own process."""
    table = Table(title="peak memory above the loaded model, MB (hellaswag and boolq)")
    for column in ("model", *(f"HFLM batch {size}" for size in BATCH_SIZES), "fast"):
        table.add_column(column)
    for index, shape in enumerate(SHAPES):
        sides = [*(f"hflm-{size}" for size in BATCH_SIZES), "fast"]
        cells = [_peak(index, side, fraction) for side in sides]
        table.add_row(shape.name, *(f"{cell:.0f}" for cell in cells))
    console.print(table)


def _peak(shape: int, side: str, fraction: float) -> float:
    command = [
        sys.executable,
        "-m",
        "secateur.eval.bench_harness",
        "--peak",
        f"{shape}:{side}",
        "--fraction",
        str(fraction),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def peak_of(which: str, fraction: float) -> float:
    """Growth of this process's peak memory in MB while one side scores; the body of the child process."""
    index, side = which.split(":")
    shape = SHAPES[int(index)]
    texts = prompts(fraction, ("boolq", "hellaswag"))
    tokenizer = train_tokenizer()
    model = shape.build()
    kind = FastLM if side == "fast" else StoredHFLM
    options: dict[str, Any] = (
        {} if side == "fast" else {"batch_size": int(side.split("-")[1]), "logits_cache": True}
    )
    lm: Any = kind(model, tokenizer, max_length=MAX_LENGTH, **options)
    pairs = encode_pairs(lm, texts["boolq"] + texts["hellaswag"])
    requests = fold(pairs, shape.vocabulary)
    model(torch.zeros((1, 8), dtype=torch.long))
    meter = Meter(torch.device("cpu"))
    score(lm, requests)
    return meter.peak().growth() / 1e6


def prefix(texts: dict[str, Any], tokenizer: Any) -> None:
    """Print the gain of reusing the first 8 of 12 layers."""
    model = SHAPES[0].build()
    pairs = texts["hellaswag"]
    with tempfile.TemporaryDirectory() as folder:
        reuse = PrefixReuse(Path(folder), depth=8)
        results: dict[str, Any] = {}
        for name, how in (("plain", None), ("first run, keeping", reuse), ("reusing", reuse)):
            forget_plans()
            lm: Any = FastLM(model, tokenizer, reuse=how, cache=Path(folder), budget=256)
            found = [np.zeros(len(pairs), dtype=kind) for kind in (bool, float, bool)]
            seconds, _ = cpu_seconds(lambda lm=lm, found=found: lm.compute(pairs, _keys(pairs), *found))
            results[name] = (seconds, found[1])
    same = all(np.array_equal(values, results["plain"][1]) for _, values in results.values())
    times = ", ".join(f"{name} {seconds:.2f} s" for name, (seconds, _) in results.items())
    ratio = results["plain"][0] / results["reusing"][0]
    console.print(f"prefix reuse, 8 of 12 layers: {times}; ratio [bold]{ratio:.2f}[/], bit-equal: {same}")


def _keys(pairs: list[tuple[str, str]]) -> np.ndarray:
    from secateur.eval.store import request_keys

    return request_keys(pairs)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fraction", type=float, default=0.006, help="share of each task's questions")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--skip", nargs="*", choices=PARTS, default=[])
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.peak:
        sys.stdout.write(f"{peak_of(args.peak, args.fraction)}\n")
        return 0
    texts = prompts(args.fraction)
    tokenizer = train_tokenizer()
    console.print(f"data: {data_dir()}, {sum(map(len, texts.values()))} requests, one thread, float32")
    if "speed" not in args.skip:
        lm = FastLM(SHAPES[0].build(), tokenizer, max_length=MAX_LENGTH)
        encoded = {name: encode_pairs(lm, pairs) for name, pairs in texts.items()}
        del lm
        for shape in SHAPES:
            speed(shape, encoded, tokenizer, args.repeats)
    if "memory" not in args.skip:
        memory(args.fraction / 3)
    if "prefix" not in args.skip:
        prefix(texts, train_tokenizer(SHAPES[0].vocabulary))
    if "overhead" not in args.skip:
        overhead(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
