"""A walk through a model, one block at a time, with the hidden states of all samples carried along.

The device holds one layer's work and one batch; hidden states (N x T x D values) wait where the walk keeps them, so
that the model's memory does not grow with the number of tokens.

Shapes: B batch, T tokens, D hidden, F features at the input of a block's output projection.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.pruning.models.adapter import ModelAdapter, Structure, linear


@dataclass
class Stream:
    """Hidden states in front of the next block, batch by batch.

    Attributes:
        states: [B, T, D] each.
        keywords: What the model hands to its layers besides, per layer and batch size.
        home: Where states wait.
    """

    states: list[torch.Tensor]
    keywords: dict[tuple[int, int], dict[str, Any]]
    home: torch.device

    def of(self, batch: int, layer: int) -> tuple[torch.Tensor, dict[str, Any]]:
        """One batch's state and its layer's keyword arguments."""
        state = self.states[batch]
        return state, self.keywords[layer, state.shape[0]]


@torch.no_grad()
def start(model: Any, adapter: ModelAdapter, batches: list[torch.Tensor], home: torch.device) -> Stream:
    """States in front of the first layer. What layers are told depends on the batch's shape only: no padding here."""
    base = adapter.decoder(model)
    layers = adapter.decoder_layers(model)
    keywords: dict[tuple[int, int], dict[str, Any]] = {}
    first: list[torch.Tensor] = []
    seen: list[dict[str, Any]] = []
    plain = False  # whether the first layer is given the embeddings as they are

    def watch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(seen) == 0:
            first.append((args[0] if args else kwargs["hidden_states"]).to(home))
        seen.append({k: v for k, v in kwargs.items() if k != "hidden_states"})

    handles = [layer.register_forward_pre_hook(watch, with_kwargs=True) for layer in layers]
    try:
        for ids in batches:
            seen.clear()
            embedded = adapter.embed(model, ids).to(home)
            if plain and (0, ids.shape[0]) in keywords:  # nothing new to learn: no need to run the layers
                first.append(embedded)
                continue
            base(input_ids=ids, use_cache=False)
            plain = torch.equal(first[-1], embedded)
            keywords |= {(layer, ids.shape[0]): told for layer, told in enumerate(seen)}
    finally:
        for handle in handles:
            handle.remove()
    return Stream(first, keywords, home)


def run_block(
    layer: nn.Module,
    adapter: ModelAdapter,
    structure: Structure,
    state: torch.Tensor,
    keywords: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What one block adds to the residual stream [B, T, D], and its units' activation [B, T, F]."""
    output = linear(layer, adapter.output(structure))
    assert output is not None
    box: list[torch.Tensor] = []
    handle = output.register_forward_pre_hook(lambda _, inputs: box.append(inputs[0]))
    try:
        added = adapter.block(structure).project(layer, state, keywords)
    finally:
        handle.remove()
    return added, box[0]


def activations(
    stream: Stream,
    layer: nn.Module,
    adapter: ModelAdapter,
    structure: Structure,
    index: int,
    device: torch.device,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Per batch: state in front of the block, what the block adds (both [B, T, D]), its units' activation [B, T, F]."""
    for batch in range(len(stream.states)):
        state, keywords = stream.of(batch, index)
        state = state.to(device)
        yield (state, *run_block(layer, adapter, structure, state, keywords))


@torch.no_grad()
def advance(
    stream: Stream,
    layer: nn.Module,
    adapter: ModelAdapter,
    structure: Structure,
    index: int,
    device: torch.device,
) -> None:
    """Take every state past one block; a block that is gone adds nothing."""
    if linear(layer, adapter.output(structure)) is None:
        return
    walk = activations(stream, layer, adapter, structure, index, device)
    for batch, (state, added, _) in enumerate(walk):
        stream.states[batch] = (state + added).to(stream.home)
