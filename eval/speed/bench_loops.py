"""Timed passes against a loop by hand over `model(...)` and `generate`: `python -m secateur.eval.speed.bench_loops`.

All sides take turns; ratios of neighbours, their medians. 1.00 means that the benchmark adds nothing of its own.
"""

import time
from statistics import median
from typing import Any

import torch

from secateur.eval.speed.bench_pruned import SHAPE, build
from secateur.eval.speed.timing import make_cache, prompt, timed_pass


@torch.inference_mode()
def by_hand(model: Any, ids: torch.Tensor, steps: int) -> tuple[float, float]:
    """Seconds of one call on the prompt, and of a plain loop of single tokens behind it."""
    start = time.perf_counter()
    out = model(ids, use_cache=True, logits_to_keep=1)
    middle = time.perf_counter()
    for _ in range(steps):
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        out = model(token, past_key_values=out.past_key_values, use_cache=True)
    return middle - start, time.perf_counter() - middle


def by_generate(model: Any, ids: torch.Tensor, steps: int) -> float:
    """Seconds of `generate` for the prompt and as many single-token steps."""
    start = time.perf_counter()
    model.generate(
        ids,
        max_new_tokens=steps + 1,
        min_new_tokens=steps + 1,
        do_sample=False,
        pad_token_id=0,
        attention_mask=torch.ones_like(ids),
    )
    return time.perf_counter() - start


def ratios(model: Any, ids: torch.Tensor, steps: int, tries: int = 9) -> tuple[float, float, float]:
    """Ours over the hand-written loop in prefill and in decode, and over `generate` in all."""
    pairs: list[tuple[float, float, float]] = []
    for number in range(tries + 1):
        cache = make_cache(model.config, "dynamic", ids.shape[1] + steps + 1)
        ours = timed_pass(model, ids, steps, cache, lambda: None)
        whole = by_generate(model, ids, steps)
        prefill, decode = by_hand(model, ids, steps)
        assert ours.decode_s is not None
        if number:  # the first round warms up
            total = ours.prefill_s + ours.decode_s
            pairs.append((ours.prefill_s / prefill, ours.decode_s / decode, total / whole))
    return median(p[0] for p in pairs), median(p[1] for p in pairs), median(p[2] for p in pairs)


if __name__ == "__main__":
    torch.set_num_threads(1)
    first, second, third = ratios(build(), prompt(SHAPE.vocabulary, 1, 128, torch.device("cpu")), 16)
    print(f"prefill {first:.3f}, decode {second:.3f} of a loop by hand; {third:.3f} of generate")
