"""Next-token loss with a chunked head: logits never exist for more than a few rows, log-softmax in float32.

Shapes: B batch, T tokens, D hidden, V vocabulary, R = B x (T - 1) predicted positions.
"""

from typing import Any

import torch

from secateur.pruning.capture.products import product
from secateur.pruning.models.head import Head

ROWS = 256
"""Positions whose logits exist at once; oneDNN was faster at 256 than at 128 or 512."""
CPU_CHUNK, GPU_CHUNK = 2**19, 2**24
"""Logits that are turned into losses at once: on a CPU so few that they stay in its cache."""


class ChunkedLoss(torch.autograd.Function):
    """Sum of next-token losses over weighted rows; the gradient of the hidden states is formed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        row_weights: torch.Tensor,
        scale: float,
        head: Head,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses [R] in nats (float32) and their weighted sum times `scale`.

        hidden [R, D], weight [V, D] (frozen), targets [R], row_weights float32 [R]; `head` bends the logits.
        """
        wants_gradient = ctx.needs_input_grad[0]
        losses = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if wants_gradient else None
        for start in range(0, hidden.shape[0], ROWS):
            rows = slice(start, start + ROWS)
            logits = product(hidden[rows], weight, bias)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            if not head.plain:
                logits = head.bend(logits)
            bent = logits.clone() if wants_gradient and head.softcap is not None else logits
            losses[rows] = _losses(logits, targets[rows], row_weights[rows] * scale, slopes=wants_gradient)
            if gradient is not None:
                slopes = logits if head.plain else head.unbend(logits, bent)
                gradient[rows] = product(slopes.to(weight.dtype), weight.T)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        total = (losses * row_weights).sum() * scale
        ctx.mark_non_differentiable(losses)
        return losses, total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        """Pass on the stored gradient."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[1].to(gradient.dtype), None, None, None, None, None, None


def _losses(
    logits: torch.Tensor, targets: torch.Tensor, factors: torch.Tensor, *, slopes: bool
) -> torch.Tensor:
    """Losses [R] in nats (float32) of `logits` [R, V]; with `slopes`, they become dL/dlogits x `factors` [R]."""
    found = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    step = max(1, (CPU_CHUNK if logits.device.type == "cpu" else GPU_CHUNK) // logits.shape[1])
    for start in range(0, len(logits), step):
        rows = slice(start, start + step)
        chunk, target = logits[rows], targets[rows, None]
        logs = chunk.log_softmax(-1)
        picked = logs.gather(1, target)
        found[rows] = -picked.squeeze(1).float()
        if slopes:
            slope = logs.exp_().scatter_add_(1, target, torch.full_like(picked, -1.0))
            torch.mul(slope, factors[rows, None], out=chunk)
    return found


def next_token_loss(
    head: Head,
    hidden: torch.Tensor,
    ids: torch.Tensor,
    mask: torch.Tensor,
    scale: float = 1.0,
    targets: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean next-token loss of each sample, and of the batch.

    Args:
        head: The frozen output head.
        hidden: Final hidden states [B, T, D].
        ids: Token ids [B, T].
        mask: Bool [B, T], False on padding, which counts nowhere.
        scale: Factor on the batch loss (loss scaling in half precision).
        targets: float32 [B], counted tokens of the batch that a sample belongs to, where these rows are part of a
            batch or several of them.

    Returns:
        Mean loss per sample [B] in nats (float32), and `scale` x the mean over all counted tokens of the batch;
        with `targets` the sum of what these rows add to each batch's mean.
    """
    module = head.module
    counted = (mask[:, 1:] & mask[:, :-1]).to(torch.float32)
    weights = counted / (counted.sum().clamp(min=1) if targets is None else targets[:, None])
    rows = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    losses, total = ChunkedLoss.apply(  # type: ignore[misc]
        rows,
        module.weight.detach(),
        None if module.bias is None else module.bias.detach(),
        ids[:, 1:].reshape(-1),
        weights.reshape(-1).to(dtype),
        scale,
        head,
    )
    per_sample = (losses.view_as(counted) * counted).sum(1) / counted.sum(1).clamp(min=1)
    return per_sample, total
