"""How much does the loss rise when a block is bypassed? Measured on calibration text only.

A bypassed block adds nothing to the residual stream. Hidden states in front of the block are those of the
intact model, so each bypass runs only the layers behind it: half the cost of running whole models.

Shapes: B batch, T tokens, D hidden, L layers; blocks are (layer, attention, mlp).
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from secateur.pruning.capture.loss import next_token_loss
from secateur.pruning.models.adapter import ModelAdapter

BLOCKS = ("layer", "attention", "mlp")
VARIANTS_AT_ONCE = 64
"""Sequences that go through a layer together."""


class _Trace:
    """What an ordinary forward pass feeds to every layer."""

    def __init__(self) -> None:
        self.inputs: list[torch.Tensor] = []
        self.keywords: list[dict[str, Any]] = []
        self.middles: dict[int, torch.Tensor] = {}
        self.outputs: list[torch.Tensor] = []


@contextmanager
def _watch(model: nn.Module, adapter: ModelAdapter) -> Generator[_Trace]:
    """Record each layer's input, keyword arguments, residual stream in front of the MLP, and output."""
    trace = _Trace()
    handles = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trace.inputs.append(args[0] if args else kwargs["hidden_states"])
        trace.keywords.append({k: v for k, v in kwargs.items() if k != "hidden_states"})

    def middle(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            trace.middles[index] = args[0]

        return hook

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        trace.outputs.append(output[0] if isinstance(output, tuple) else output)

    for index, layer in enumerate(adapter.decoder_layers(model)):
        handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(layer.register_forward_hook(after, with_kwargs=True))
        if all(block.module(layer) is not None for block in (adapter.attention, adapter.mlp)):
            entrance = adapter.mlp.entrance(layer)
            handles.append(entrance.register_forward_pre_hook(middle(index)))
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def measure_priors(
    model: Any, adapter: ModelAdapter, ids: torch.Tensor, mask: torch.Tensor, *, loss: bool
) -> tuple[torch.Tensor | None, torch.Tensor, int]:
    """Priors of every layer and block on one batch.

    Args:
        model: The intact model.
        adapter: Its family.
        ids: Token ids [B, T].
        mask: Bool [B, T], text positions.
        loss: Also measure the loss rise (the costly one).

    Returns:
        Loss rise per sample, float64 [B, L, 3] in nats (or None); 1 - cos of the residual stream before and after
        each block, mean over tokens, float64 [B, L, 3]; tokens that went through the whole model (rounded up).
    """
    layers = adapter.decoder_layers(model)
    base, head, norm = adapter.decoder(model), adapter.head(model), adapter.final_norm(model)
    with _watch(model, adapter) as trace:
        final = base(input_ids=ids, use_cache=False).last_hidden_state
    dense, _ = next_token_loss(head, final, ids, mask)
    cosine = torch.zeros(ids.shape[0], len(layers), 3, dtype=torch.float64)
    for index in range(len(layers)):
        before, after = trace.inputs[index], trace.outputs[index]
        middle = _middle(trace, layers[index], index, adapter)
        for block, pair in enumerate(((before, after), (before, middle), (middle, after))):
            cosine[:, index, block] = _cosine_distance(*pair, mask).cpu()
    if not loss:
        return None, cosine, ids.numel()
    rise = torch.zeros(ids.shape[0], len(layers), 3, dtype=torch.float64)
    work = ids.numel()
    states: list[torch.Tensor] = []
    owners: list[tuple[int, int]] = []
    for index, layer in enumerate(layers):
        states = [
            _run(layer, state, trace.keywords[index], ids.shape[0])
            for state in _batched(states, ids.shape[0])
        ]
        states = list(torch.cat(states).split(ids.shape[0])) if states else []
        work += len(states) * ids.numel() // len(layers)
        for block, state in enumerate(_bypasses(trace, layer, index, adapter)):
            if state is not None:
                states.append(state)
                owners.append((index, block))
    for (index, block), state in zip(owners, states, strict=True):
        bypassed, _ = next_token_loss(head, norm(state), ids, mask)
        rise[:, index, block] = (bypassed.double() - dense.double()).cpu()
    return rise, cosine, work


def _middle(trace: _Trace, layer: nn.Module, index: int, adapter: ModelAdapter) -> torch.Tensor:
    """The residual stream between attention and MLP of one layer."""
    if index in trace.middles:
        return trace.middles[index]
    gone = adapter.attention.module(layer) is None
    return trace.inputs[index] if gone else trace.outputs[index]


def _bypasses(
    trace: _Trace, layer: nn.Module, index: int, adapter: ModelAdapter
) -> list[torch.Tensor | None]:
    """Outputs of one layer with the layer, its attention, or its MLP bypassed; None where the block is gone already."""
    attention, mlp = (block.module(layer) is not None for block in (adapter.attention, adapter.mlp))
    start, without_attention = trace.inputs[index], None
    if attention:
        without_attention = adapter.attention.bypass(start)
        if mlp:
            without_attention = without_attention + adapter.mlp.project(layer, without_attention, {})
    without_mlp = adapter.mlp.bypass(_middle(trace, layer, index, adapter)) if mlp else None
    return [start, without_attention, without_mlp]


def _batched(states: list[torch.Tensor], batch: int) -> list[torch.Tensor]:
    """Stack states [B, T, D] so that up to `VARIANTS_AT_ONCE` sequences go through a layer together."""
    together = max(1, VARIANTS_AT_ONCE // batch)
    return [torch.cat(states[i : i + together]) for i in range(0, len(states), together)]


def _run(layer: nn.Module, states: torch.Tensor, keywords: dict[str, Any], batch: int) -> torch.Tensor:
    """One layer on stacked states, with its recorded arguments repeated where they are per sample."""
    copies = states.shape[0] // batch
    output = layer(states, **{name: _repeat(value, batch, copies) for name, value in keywords.items()})
    return output[0] if isinstance(output, tuple) else output


def _repeat(value: Any, batch: int, copies: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_repeat(item, batch, copies) for item in value)
    if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[0] == batch and batch > 1:
        return value.repeat(copies, *[1] * (value.dim() - 1))
    return value


def _cosine_distance(before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """1 - cosine of two residual streams [B, T, D], mean over text tokens. float64 [B]."""
    cosine = nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
    counted = mask.to(cosine)
    return ((1 - cosine) * counted).sum(1) / counted.sum(1).clamp(min=1)
