"""A causal language model taken apart: decoder, head, and what the model does to its logits in between.

The head is the part that evaluation applies only where a token is scored, in chunks of rows and in float32,
so that [T, V] logits never exist whole. T tokens, R rows (scored positions), D hidden, V vocabulary.
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from secateur.pruning.models.adapter import family_of
from secateur.pruning.models.head import Head

log = logging.getLogger(__name__)

HALF = (torch.bfloat16, torch.float16)


class NotSeparable(Exception):  # noqa: N818  # a finding about a model, not an error of the user
    """The model's logits are not head(decoder(x)) up to the known transforms; the message says why."""


@dataclass(frozen=True)
class Backbone:
    """Decoder and head of a model, checked to give the whole model's logits.

    Attributes:
        decoder: Returns `last_hidden_state` [B, T, D].
        head: [.., D] -> [.., V], and what the model does to its logits.
        tokenwise: Modules of the last layer that need to run only where a token is scored.
    """

    decoder: nn.Module
    head: Head
    tokenwise: tuple[nn.Module, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return next(self.decoder.parameters()).device

    @property
    def half(self) -> bool:
        """Whether the decoder computes in 16 bits."""
        return next(self.decoder.parameters()).dtype in HALF

    def hidden(self, **inputs: Any) -> torch.Tensor:
        """Hidden states [B, T, D] after the final norm, computed without any KV cache."""
        return self.decoder(use_cache=False, **inputs).last_hidden_state

    @contextmanager
    def only(self, rows: torch.Tensor) -> Generator[None]:
        """Compute hidden states that are right at the positions `rows` [R] of one sequence, and there only."""
        with ExitStack() as hooks:
            for module in self.tokenwise:
                hooks.enter_context(_at_rows(module, rows))
            yield

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32 logits [R, V] of hidden states [R, D]."""
        module = self.head.module
        return self.head.bend(module(hidden.to(next(module.parameters()).device)).float())

    def chunks(self, rows: int, limit_bytes: int | None = None) -> Iterator[slice]:
        """Slices of positions whose float32 logits stay below a limit (32 MiB on CPU, 512 MiB elsewhere)."""
        parameter = next(self.head.module.parameters())
        if limit_bytes is None:
            limit_bytes = 2**25 if parameter.device.type == "cpu" else 2**29
        vocabulary = parameter.shape[0]
        step = max(1, limit_bytes // (4 * vocabulary))
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))


@contextmanager
def _at_rows(module: nn.Module, rows: torch.Tensor) -> Generator[None]:
    """Let a module see positions `rows` of its input [1, T, D]; its output is zero elsewhere."""
    tokens = 0

    def narrow(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        nonlocal tokens
        tokens = inputs[0].shape[1]
        return (inputs[0][:, rows.to(inputs[0].device)], *inputs[1:])

    def widen(_: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        whole = output.new_zeros(1, tokens, *output.shape[2:])
        whole[:, rows.to(output.device)] = output
        return whole

    handles = (module.register_forward_pre_hook(narrow), module.register_forward_hook(widen))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def take_apart(model: Any) -> Backbone:
    """Find decoder and head, and prove on a short input that together they are the model.

    Raises:
        NotSeparable: They are not; the caller then runs the whole model.
    """
    decoder = getattr(model, "base_model", None)
    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if callable(find_head) else None
    if decoder is None or decoder is model or not isinstance(head, nn.Module):
        raise NotSeparable(f"{type(model).__name__} has no separate decoder and head")
    config, family = model.config.get_text_config(), family_of(model)
    backbone = Backbone(decoder, family.head(model))
    _check(model, backbone, int(config.vocab_size))
    return _checked_rows(replace(backbone, tokenwise=family.tokenwise(model)), int(config.vocab_size))


@torch.inference_mode()
def _checked_rows(backbone: Backbone, vocabulary: int) -> Backbone:
    """The backbone with its token-wise modules if leaving out positions changes nothing, else without."""
    ids = (torch.arange(1, 9, device=backbone.device) * 7919 % vocabulary)[None]
    rows = torch.tensor([1, 4, 7], device=backbone.device)
    plain = replace(backbone, tokenwise=())
    whole = plain.hidden(input_ids=ids)[0, rows].float()
    try:
        with backbone.only(rows):
            part = backbone.hidden(input_ids=ids)[0, rows].float()
    except (RuntimeError, TypeError, AttributeError, IndexError) as error:
        log.info("the last layer runs at every position: %s", error)
        return plain
    worst, limit = difference(part, whole, half=backbone.half)
    return backbone if worst <= limit else plain


@torch.inference_mode()
def _check(model: Any, backbone: Backbone, vocabulary: int) -> None:
    ids = (torch.arange(1, 9, device=backbone.device) * 7919 % vocabulary)[None]
    whole = model(input_ids=ids, use_cache=False).logits[0].float()
    parts = backbone.logits(backbone.hidden(input_ids=ids)[0])
    if parts.shape != whole.shape:
        raise NotSeparable(
            f"the head of {type(model).__name__} gives {tuple(parts.shape)}, the model {tuple(whole.shape)}"
        )
    worst, limit = difference(parts, whole.to(parts.device), half=backbone.half)
    if not worst <= limit:
        raise NotSeparable(
            f"head(decoder(x)) of {type(model).__name__} differs from its logits by {worst:.3g} (limit "
            f"{limit:.3g})"
        )


def difference(ours: torch.Tensor, reference: torch.Tensor, *, half: bool = False) -> tuple[float, float]:
    """Largest absolute difference of two logit tensors, and what rounding alone may cause.

    Positions where both are the same NaN or infinity count as equal: a broken model is still the same model.

    Args:
        ours: Logits of any shape.
        reference: Logits of the same shape.
        half: Whether the model computes in 16 bits.
    """
    same = torch.isclose(ours, reference, rtol=0, atol=0, equal_nan=True)
    worst = torch.where(same, torch.zeros_like(ours), (ours - reference).abs()).max().item()
    finite = reference[torch.isfinite(reference)]
    size = float(finite.abs().max().item()) if finite.numel() else 0.0
    return worst, (0.1 if half else 1e-3) * max(1.0, size)


def context_length(model: Any, tokenizer: Any, most: int) -> int:
    """Positions that a model can read, at most `most`."""
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return min(value, most)
    value = getattr(tokenizer, "model_max_length", None)
    return min(int(value), most) if value and value < 10**9 else min(2048, most)
