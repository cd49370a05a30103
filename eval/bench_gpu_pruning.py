"""The steps of `eval/bench_gpu.py` that prune: calibration passes, second-order scores, refit.

Shapes: N samples, T tokens, D hidden, F features at the input of an output projection, n features kept.
"""

from collections.abc import Iterator

import torch

from secateur.eval.bench_gpu_row import Bench, Row
from secateur.eval.speed.journal import Facts
from secateur.eval.speed.models import facts_of
from secateur.pruning.allocation import make_plan
from secateur.pruning.bench_capture import SHAPES, plain
from secateur.pruning.calibration import Samples
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.run import run_capture
from secateur.pruning.capture.views import Level
from secateur.pruning.compensation.refit import cut_and_refit
from secateur.pruning.config import BudgetConfig, CaptureConfig, GuardConfig, MethodConfig, TaylorConfig
from secateur.pruning.config_method import CompensationConfig
from secateur.pruning.greedy_removal import greedy_costs
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.importance.scores import final_scores
from secateur.pruning.least_squares import ridge_refit
from secateur.pruning.memory import give_back

WALK = 12
"""Bytes per weight of one walk over the gradients: gradient 2, weight 2, accumulator read and written 8."""
SIDES: dict[str, tuple[Level, int]] = {
    "taylor_gate": (Level.GATE, 1),
    **{f"taylor, segments={count}": (Level.GRADIENTS, count) for count in (1, 4, 8)},
}


def samples_of(bench: Bench, count: int, length: int) -> Samples:
    """Random ids [N, T]: speed does not depend on them."""
    ids = torch.randint(
        int(SHAPES[bench.shape]["vocab_size"]), (count, length), generator=torch.Generator().manual_seed(1)
    )
    return Samples(ids, torch.full((count,), length), "random")


def capture(bench: Bench, samples: Samples, level: Level, segments: int | None, batch: str) -> Capture:
    """Our pass, its scores included; `batch` samples at once."""
    count, length = samples.ids.shape
    together = "auto" if batch == "auto" else int(batch)
    config = CaptureConfig(priors=(), segments=segments, batch_size=together)
    taylor = TaylorConfig(num_samples=count, seq_len=length)
    every = list(ESTIMATORS.values())
    return run_capture(bench.loaded, samples, config, taylor, level, [count], every, progress=False)


def floor_of(
    bench: Bench, facts: Facts, tokens: int, batches: float, level: Level | None, parts: int
) -> float:
    """Seconds of a pass: six products per weight, four without weight gradients, and the walks; None is plain."""
    products = 4 if level == Level.GATE else 6 + 2 * (parts - 1) / parts
    head = 6 if level is None else 4
    work = tokens * (products * facts.linear + head * facts.head) / bench.roof.flops
    walks = batches * WALK * facts.linear / bench.roof.bandwidth if level == Level.GRADIENTS else 0.0
    return work + walks


def calibration(bench: Bench) -> Iterator[Row]:
    """Plain, gate and Taylor passes: batches of 4, 16 and as many as fit, short and long samples."""
    facts = facts_of(bench.loaded, None, 0.0)
    for count, length in ((8, 16), (4, 32)) if bench.tiny else ((64, 128), (16, 2048)):
        samples, few = (samples_of(bench, size, length) for size in (count, 4))
        tokens = samples.ids.numel()
        plain(bench.loaded, few)  # kernels are compiled and loaded before anything is timed
        bench.loaded.model.zero_grad(set_to_none=True)
        for level, parts in SIDES.values():
            capture(bench, few, level, parts, "4")
        for batch in ("4", "16"):
            what = f"plain backward, {count} x {length}, batch {batch}"
            seconds, peak, _ = bench.timed(
                lambda size=int(batch), text=samples: plain(bench.loaded, text, size)
            )
            bench.loaded.model.zero_grad(set_to_none=True)
            give_back()
            yield Row(
                what, seconds, floor_of(bench, facts, tokens, 0, None, 1), "6 products per weight", peak
            )
        for side, (level, parts) in SIDES.items():
            for batch in ("4", "16", "auto"):
                seconds, peak, found = bench.timed(
                    lambda a=level, b=parts, c=batch, text=samples: capture(bench, text, a, b, c)
                )
                used = int(found.facts["samples_at_once"])
                floor = floor_of(bench, facts, tokens, count / min(used, count), level, parts)
                what = f"{side}, {count} x {length}, batch {batch}"
                told = "products, and 12 bytes per weight and walk"
                yield Row(what, seconds, floor, told, peak, {"samples at once": used})
                give_back()


def one_layer(bench: Bench) -> Iterator[Row]:
    """Second-order scores and one refit of one layer's output projections, at the shape's widths, in float64."""
    shape, device = SHAPES[bench.shape], bench.loaded.device
    hidden, groups = int(shape["hidden_size"]), int(shape["num_key_value_heads"])
    for block, features in (("attention", hidden), ("mlp", int(shape["intermediate_size"]))):
        units = groups if block == "attention" else features
        gram, metric = (_gram(size, device) for size in (features, hidden))
        weight = torch.randn(hidden, features, dtype=torch.float64, device=device)
        flops = 3.0 * features**3 + 2.0 * hidden * features * (hidden + features)
        seconds, peak, _ = bench.timed(lambda w=weight, g=gram, m=metric, u=units: greedy_costs(w, g, m, u))
        told = "inverse, W^T M W and the rounds in float64"
        yield Row(f"surgeon, one layer's {block}", seconds, flops / bench.wide.flops, told, peak)
        cross, kept = gram @ weight.T, torch.arange(features * 4 // 5, device=device)
        flops = len(kept) ** 3 / 3 + 2.0 * len(kept) ** 2 * hidden
        seconds, peak, _ = bench.timed(
            lambda w=weight, g=gram, c=cross, k=kept: ridge_refit(w, g, c, k, 1e-4)
        )
        told = "one Cholesky factor and its solves in float64"
        yield Row(f"refit solve, one layer's {block}", seconds, flops / bench.wide.flops, told, peak)
        del gram, metric, weight, cross
        give_back()


def _gram(size: int, device: torch.device) -> torch.Tensor:
    """A regular Gram matrix of random rows, float64."""
    rows = torch.randn(256, size, dtype=torch.float64, device=device)
    matrix = rows.T @ rows
    matrix.diagonal().add_(size)
    return matrix


def whole_model(bench: Bench) -> Iterator[Row]:
    """Capture and second-order scores of the whole model, then the cut of 20 % with its refit."""
    count, length = (4, 16) if bench.tiny else (64, 128)
    samples, loaded = samples_of(bench, count, length), bench.loaded
    facts = facts_of(loaded, None, 0.0)
    seconds, peak, found = bench.timed(lambda: capture(bench, samples, Level.CURVATURE, None, "auto"))
    floor = floor_of(bench, facts, samples.ids.numel(), 0, Level.GATE, 1)
    used = {"samples at once": found.facts["samples_at_once"]}
    yield Row("surgeon and obs, whole model", seconds, floor, "the passes alone, no matrices", peak, used)
    method = MethodConfig(estimator="surgeon", compensation=CompensationConfig(kind="least_squares"))
    scores = final_scores(loaded, found, method, count, 0.2, 0)
    plan = make_plan(
        scores, loaded.layout, method, BudgetConfig(ratio=0.2), GuardConfig(), loaded.fingerprint
    )
    seconds, peak, _ = bench.timed(lambda: cut_and_refit(loaded, plan, samples.ids, method.compensation))
    bench.plan = plan
    floor = 2 * samples.ids.numel() * (2 * facts.linear) / bench.roof.flops
    yield Row("cut of 20 % and refit, whole model", seconds, floor, "two forward passes, no matrices", peak)
