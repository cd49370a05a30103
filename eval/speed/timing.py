"""One timed pass: prefill, first token, decode, by plain loops over `model(...)` with a KV cache.

Shapes: B sequences, T tokens of prompt.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import DynamicCache, StaticCache


@dataclass(frozen=True)
class Timed:
    """Seconds of one pass; `decode_s` is None without decode steps. `tokens` [B, 1 + n_gen] are what was written."""

    prefill_s: float
    first_token_s: float
    decode_s: float | None
    tokens: torch.Tensor


class Clock(Protocol):
    """Takes marks; afterwards tells the seconds between them."""

    def mark(self) -> None:
        """The work so far ends here."""
        ...

    def seconds(self) -> list[float]:
        """Seconds between successive marks."""
        ...


class WallClock:
    """Waits for the device at every mark; the CPU needs no waiting."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[float] = []

    def mark(self) -> None:
        """Read the clock."""
        synchronise(self._device)
        self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Differences of the readings."""
        return [b - a for a, b in zip(self._marks, self._marks[1:], strict=False)]


class CudaClock:
    """CUDA events on the current stream: marks cost no synchronisation, and no queue is mistaken for work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[torch.cuda.Event] = []
        torch.cuda.synchronize(device)

    def mark(self) -> None:
        """Record an event."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._marks.append(event)

    def seconds(self) -> list[float]:
        """Wait for the device, then differences of the events."""
        torch.cuda.synchronize(self._device)
        return [a.elapsed_time(b) / 1000 for a, b in zip(self._marks, self._marks[1:], strict=False)]


def clock_of(device: torch.device) -> Clock:
    """The clock that tells the truth on this device."""
    return CudaClock(device) if device.type == "cuda" else WallClock(device)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)


def make_cache(config: Any, kind: str, length: int) -> Any:
    """An empty KV cache; a static one has room for `length` tokens."""
    return (
        StaticCache(config=config, max_cache_len=length) if kind == "static" else DynamicCache(config=config)
    )


def prompt(vocabulary: int, batch: int, length: int, device: torch.device, seed: int = 0) -> torch.Tensor:
    """Random token ids [B, T]: speed does not depend on which."""
    dice = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (batch, length), generator=dice).to(device)


@torch.inference_mode()
def timed_pass(
    forward: Callable[..., Any], ids: torch.Tensor, n_gen: int, cache: Any, before_step: Callable[[], None]
) -> Timed:
    """Read a prompt and write `n_gen` + 1 tokens, greedily; time the parts.

    Args:
        forward: The model, compiled or not.
        ids: Prompt [B, T].
        n_gen: Decode steps after the prefill.
        cache: An empty KV cache.
        before_step: Called before every forward pass (CUDA graphs want to know where a step begins).
    """
    device = ids.device
    synchronise(device)
    clock = clock_of(device)
    started = time.perf_counter()
    clock.mark()
    before_step()
    logits = forward(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    clock.mark()
    token = logits[:, -1].argmax(-1, keepdim=True)
    written = [token]
    token.cpu()  # the first token is there when the host has it
    first = time.perf_counter() - started
    clock.mark()
    for _ in range(n_gen):
        before_step()
        logits = forward(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
        written.append(token)
    clock.mark()
    parts = clock.seconds()
    return Timed(parts[0], first, parts[2] if n_gen else None, torch.cat(written, dim=1))
