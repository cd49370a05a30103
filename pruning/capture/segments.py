"""A pass in segments: gradients are accumulated for a few neighbouring layers at a time, from the top down.

One walk over the samples per segment. The first walk goes through the whole model, forms the loss, and ends its
backward pass at the topmost segment's lower border, where it leaves the slopes of every batch; it also leaves what
enters each further segment. A later walk runs its own layers again from there and goes on with those slopes.

Every product is the one of a single walk, so the results are equal bit for bit; the accumulators of S segments take 1/S
of the memory. What is paid is a second forward pass of all but the topmost segment, and a file for the borders: S - 1
of them, N x T x D numbers each.

Shapes: N samples, B batch, T tokens, D hidden, L layers, S segments.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from secateur.pruning.capture.borders import Borders
from secateur.pruning.models.loading import LoadedModel

AUTO_SEGMENTS = 4
AUTO_BYTES = 2**28
"""`AUTO_SEGMENTS` are taken where a float32 copy of the prunable weights is larger than this."""


@dataclass(frozen=True)
class Segment:
    """Decoder layers `start` to `stop` (exclusive) of `total`."""

    start: int
    stop: int
    total: int

    @property
    def layers(self) -> range:
        """Indices of its layers."""
        return range(self.start, self.stop)

    @property
    def top(self) -> bool:
        """Whether the output head follows."""
        return self.stop == self.total

    @property
    def bottom(self) -> bool:
        """Whether the embedding precedes."""
        return self.start == 0


def cut(total: int, count: int) -> list[Segment]:
    """`total` layers in `count` segments of nearly equal size (at most one per layer), the topmost first."""
    count = max(1, min(count, total))
    borders = [total * part // count for part in range(count + 1)]
    return [Segment(a, b, total) for a, b in pairwise(borders)][::-1]


class _Caught(Exception):  # noqa: N818 - not an error: it ends a forward pass
    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class SegmentRunner:
    """Runs batches through one segment of a model, and keeps what the next one needs."""

    def __init__(self, loaded: LoadedModel, segment: Segment, borders: Borders) -> None:
        self.segment, self.borders = segment, borders
        model: Any = loaded.model
        self._base: nn.Module = loaded.adapter.decoder(model)
        self._layers = loaded.adapter.decoder_layers(model)
        self._entries: list[torch.Tensor] = []
        self._inputs: dict[int, list[torch.Tensor]] = {}

    def begin(self) -> None:
        """Forget what was run before."""
        self._entries, self._inputs = [], {}

    def last_hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Top segment: final hidden states [B, T, D]; a graph is recorded for its layers only."""
        with self._watched(ids.shape):
            return self._base(input_ids=ids, use_cache=False).last_hidden_state

    def output(
        self, ids: torch.Tensor, numbers: Sequence[int], rows: slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Any other segment: its output and the slope there, [B, T, D] each, of some rows of some batches."""
        device = _device(self._layers[self.segment.start])
        if self.segment.bottom:
            hidden = self._embedded(ids)
        else:
            hidden = _joined(lambda number: self.borders.input(self.segment.start, number), numbers, rows)
            hidden = hidden.to(device).requires_grad_()
            self._entries.append(hidden)
        slope = _joined(self.borders.slope, numbers, rows).to(
            device
        )  # before the layers run, which it would wait for
        if ids.shape not in self.borders.keywords:
            self._learn(ids)
        for index in self.segment.layers:
            hidden = _states(self._layers[index](hidden, **self.borders.keywords[ids.shape][index]))
        return hidden, slope.to(hidden.device)

    def leave(self, sizes: dict[int, int]) -> None:
        """Batches (number -> samples) count: keep what entered the segments below, and slopes at the lower border."""
        for index, hidden in self._inputs.items():
            for number, part in zip(sizes, _parts(hidden, sizes), strict=True):
                self.borders.put_input(index, number, part)
        slopes = [torch.zeros_like(e) if e.grad is None else e.grad for e in self._entries]
        for number, part in zip(sizes, _parts(slopes, sizes), strict=False):
            self.borders.put_slope(number, part)
        self.begin()

    def _learn(self, ids: torch.Tensor) -> None:
        """Keep the layers' arguments for batches of a shape that the top segment has not seen; no layer runs."""
        new = self.borders.keywords.setdefault(ids.shape, {})

        def passing(index: int) -> Callable[..., torch.Tensor]:
            def forward(hidden_states: torch.Tensor, **keywords: Any) -> torch.Tensor:
                new[index] = keywords
                return hidden_states

            return forward

        for index, layer in enumerate(self._layers):
            layer.__dict__["forward"] = passing(index)
        try:
            with torch.no_grad():
                self._base(input_ids=ids, use_cache=False)
        finally:
            for layer in self._layers:
                del layer.__dict__["forward"]

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """What the model feeds to its first layer."""

        def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Caught(_entering(args, kwargs))

        handle = self._layers[0].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            self._base(input_ids=ids, use_cache=False)
        except _Caught as caught:
            return caught.hidden.detach()
        finally:
            handle.remove()
        raise AssertionError("the model never ran its first layer")

    @contextmanager
    def _watched(self, shape: torch.Size) -> Generator[None]:
        """Keep what enters each segment, and let the graph begin at the top segment. Nothing to do for one segment."""
        if self.segment.bottom:
            yield
            return
        new = self.borders.keywords.setdefault(shape, {})
        handles = [
            layer.register_forward_pre_hook(self._before(index, new), with_kwargs=True)
            for index, layer in enumerate(self._layers)
        ]
        handles.append(self._layers[self.segment.start - 1].register_forward_hook(self._begin))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, index: int, new: dict[int, dict[str, Any]]) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if index not in new:
                new[index] = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            if index in self.borders.kept:
                self._inputs.setdefault(index, []).append(_entering(args, kwargs).detach())

        return hook

    def _begin(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        entry = _states(output).detach()
        if not torch.is_grad_enabled():
            return output
        self._entries.append(entry.requires_grad_())
        return (entry, *output[1:]) if isinstance(output, tuple) else entry


def _entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _joined(of: Callable[[int], torch.Tensor], numbers: Sequence[int], rows: slice) -> torch.Tensor:
    """Some rows of batches, one after another."""
    parts = [of(number) for number in numbers]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[rows]


def _parts(pieces: Sequence[torch.Tensor], sizes: dict[int, int]) -> Sequence[torch.Tensor]:
    """What came in pieces, by batch."""
    if not pieces:
        return ()
    return (pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))).split(list(sizes.values()))


def _states(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _device(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device
