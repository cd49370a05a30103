"""Weights that are NaN or infinite: they are named before anything is computed with them."""

from typing import Any

import torch

from secateur.pruning.errors import ModelError


def sick_weights(model: Any) -> str:
    """Which parameters are not finite, in words with numbers; nothing for a healthy model.

    Sums are read first: one pass at the speed of the memory. Values are counted only where a sum is not finite.
    """
    found = [
        f"{name} holds {_counted(parameter)} of {parameter.numel():,} values"
        for name, parameter in model.named_parameters()
        if not parameter.is_meta
        and not bool(torch.isfinite(parameter.detach().sum()))
        and not bool(torch.isfinite(parameter).all())
    ]
    more = f" (and {len(found) - 1} more tensors are not finite)" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else ""


def refuse_sick(model: Any) -> None:
    """Refuse to work with a model whose weights, as loaded, are not finite.

    Raises:
        ModelError: Naming the first such parameter.
    """
    found = sick_weights(model)
    if found:
        half = (
            " or, if it is whole, load it with model.dtype=bfloat16" if model.dtype == torch.float16 else ""
        )
        raise ModelError(f"the model's own weights are damaged: {found}. Copy its files again{half}")


def _counted(parameter: torch.Tensor) -> str:
    """`3 NaN and 1 infinite`."""
    counts = {"NaN": int(parameter.isnan().sum()), "infinite": int(parameter.isinf().sum())}
    return " and ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
