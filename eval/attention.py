"""Attention over packed token trees, as an attention implementation that Transformers calls.

Node i sees node j exactly when `j <= i < end[j]`; with a sliding window of W also `position[i] - position[j]
< W`. No mask function is registered under our name, so Transformers builds no mask of its own.

Ways to compute it: `gather` (each tree becomes a padded row of a batched SDPA), `flex` (FlexAttention with a
block mask, chosen on CUDA), `eager` (one dense softmax over the pack, the reference).

T tokens of a pack, H query heads, K key/value heads, d head width, M trees, S longest tree.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from secateur.eval.packs import Pack

NAME = "secateur_trees"
Kind = Literal["gather", "flex", "eager"]


class UnsupportedAttention(Exception):  # noqa: N818  # a finding about a model, not an error of the user
    """A layer asks for something that tree attention does not compute; the message says what."""


class TreeMask:
    """The mask of one pack on one device, in the forms that the kernels want, each made once."""

    def __init__(self, pack: Pack, device: torch.device, kind: Kind) -> None:
        self.kind: Kind = kind
        self.pack = pack
        self.tokens = pack.tokens
        self.ends = torch.from_numpy(pack.ends).to(device)
        self.positions = torch.from_numpy(pack.positions).to(device)
        self.deepest = int(pack.positions.max())
        lengths = pack.lengths
        self.trees, self.longest = len(lengths), int(lengths.max())
        self.uniform = bool((lengths == self.longest).all())
        offsets = np.cumsum(lengths) - lengths
        grid = offsets[:, None] + np.arange(self.longest)
        inside = np.arange(self.longest) < lengths[:, None]
        self.grid = torch.from_numpy(np.where(inside, grid, 0).reshape(-1)).to(device)
        self.inside = torch.from_numpy(np.flatnonzero(inside.reshape(-1))).to(device)
        self.tree_starts = torch.from_numpy(np.repeat(offsets, lengths)).to(device)
        self.linear = bool((pack.ends == np.repeat(offsets + lengths, lengths)).all())
        self._forms: dict[Any, Any] = {}

    def window(self, wanted: int | None) -> int | None:
        """The sliding window where it cuts anything off in this pack."""
        return wanted if wanted is not None and wanted <= self.deepest else None

    def padded(self, window: int | None, dtype: torch.dtype, explicit: bool = False) -> torch.Tensor | None:
        """Additive mask [M, 1, S, S] of the gathered trees; None where plain causal attention is the same.

        `explicit` asks for a mask there as well.
        """
        if self.linear and window is None and not explicit:
            return None
        key = ("padded", window, dtype)
        if key not in self._forms:
            steps = torch.arange(self.longest, device=self.ends.device)
            ends = torch.full((self.trees * self.longest,), 0, device=self.ends.device)
            ends[self.inside] = self.ends - self.tree_starts
            ends = torch.maximum(
                ends.view(self.trees, 1, self.longest), steps + 1
            )  # padding sees itself: no NaN
            visible = (steps[None] <= steps[:, None]) & (steps[:, None] < ends)
            if window is not None:
                places = self.positions[self.grid].view(self.trees, self.longest)
                near = (places[:, :, None] - places[:, None, :]) < window
                visible &= near | torch.eye(self.longest, dtype=torch.bool, device=near.device)
            mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            self._forms[key] = mask.masked_fill_(~visible, -torch.inf)[:, None]
        return self._forms[key]

    def dense(self, window: int | None) -> torch.Tensor:
        """Bool mask [T, T] of the whole pack."""
        key = ("dense", window)
        if key not in self._forms:
            steps = torch.arange(self.tokens, device=self.ends.device)
            visible = (steps[None] <= steps[:, None]) & (steps[:, None] < self.ends[None])
            if window is not None:
                visible &= (self.positions[:, None] - self.positions[None]) < window
            self._forms[key] = visible
        return self._forms[key]

    def block(self, window: int | None) -> Any:
        """FlexAttention block mask of the whole pack."""
        key = ("block", window)
        if key not in self._forms:
            from secateur.eval.attention_flex import tree_mask

            self._forms[key] = tree_mask(self.ends, self.positions, window)
        return self._forms[key]

    def to(self, device: torch.device) -> "TreeMask":
        """This mask on another device (models spread over several)."""
        if device == self.ends.device:
            return self
        key = ("device", device)
        if key not in self._forms:
            self._forms[key] = TreeMask(self.pack, device, self.kind)
        return self._forms[key]


_current: ContextVar[TreeMask] = ContextVar("tree_mask")


def forward(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer over the current pack.

    Args:
        module: The attention layer.
        query: [1, H, T, d].
        key: [1, K, T, d].
        value: [1, K, T, d].
        attention_mask: Must be None.
        scaling: Factor on the scores; d ** -0.5 by default.
        dropout: Must be 0.
        sliding_window: Positions that a token sees, itself included.
        softcap: c of scores <- c tanh(scores / c); not by FlexAttention.
        options: What else the layer passes; options that change the result are refused.

    Returns:
        [1, T, H, d] and None.

    Raises:
        UnsupportedAttention: The layer wants sinks, dropout, a mask, or gives a batch.
    """
    changed = [name for name in ("s_aux", "position_bias", "head_mask") if options.get(name) is not None]
    if changed or dropout or attention_mask is not None or query.shape[0] != 1:
        what = ", ".join(changed) or "a mask, dropout or a batch"
        raise UnsupportedAttention(f"{type(module).__name__} passes {what}")
    mask = _current.get().to(query.device)
    window = mask.window(sliding_window)
    if mask.kind == "gather":
        return _gathered(query, key, value, mask, window, scaling, softcap), None
    if mask.kind == "flex" and softcap is not None:
        raise UnsupportedAttention(f"{type(module).__name__} caps its scores, which the kernel does not")
    if mask.kind == "flex":
        from secateur.eval.attention_flex import attend

        return attend(query, key, value, mask.block(window), scaling), None
    return _eager(query, key, value, mask, window, scaling, softcap), None


def _gathered(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: TreeMask,
    window: int | None,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """Each tree a padded row: batched SDPA over [M, H, S, d]."""
    groups = query.shape[1] // key.shape[1]
    rows = [_rows(part, mask) for part in (query, key, value)]
    if groups > 1:
        rows[1:] = [part.repeat_interleave(groups, dim=1) for part in rows[1:]]
    bias = mask.padded(window, query.dtype)
    if softcap is None:
        out = F.scaled_dot_product_attention(*rows, attn_mask=bias, scale=scaling, is_causal=bias is None)
    else:
        bias = mask.padded(window, query.dtype, explicit=True)
        out = _capped(rows[0], rows[1], rows[2], bias, scaling, softcap)
    flat = out.transpose(1, 2).reshape(mask.trees * mask.longest, query.shape[1], -1)
    return (flat if mask.uniform else flat[mask.inside])[None]


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attention over [M, H, S, d] with soft-capped scores, which SDPA does not have."""
    scores = _soft(
        (query @ key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scaling is None else scaling), softcap
    )
    scores = scores if bias is None else scores + bias
    return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value


def _soft(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _rows(part: torch.Tensor, mask: TreeMask) -> torch.Tensor:
    """[1, H, T, d] to [M, H, S, d]."""
    flat = part[0].transpose(0, 1)
    if not mask.uniform:
        flat = flat[mask.grid]
    return flat.reshape(mask.trees, mask.longest, *flat.shape[1:]).transpose(1, 2)


def _eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: TreeMask,
    window: int | None,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """Dense softmax(Q K^T) V over the pack, the scores in float32."""
    groups = query.shape[1] // key.shape[1]
    keys, values = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = _soft((query @ keys.transpose(-1, -2)).float() * scale, softcap)
    weights = scores.masked_fill(~mask.dense(window), -torch.inf).softmax(dim=-1)
    return (weights.to(values.dtype) @ values).transpose(1, 2).contiguous()


@contextmanager
def tree_attention(model: Any) -> Generator[None]:
    """Let every attention layer of a model call `forward`; its own implementation comes back at the end."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


@contextmanager
def current(mask: TreeMask) -> Generator[None]:
    """Make a pack's mask the one that layers use."""
    token = _current.set(mask)
    try:
        yield
    finally:
        _current.reset(token)


AttentionInterface.register(NAME, forward)
