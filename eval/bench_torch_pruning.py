"""Torch-Pruning (Fang et al. 2023, arXiv 2301.12900) at a budget of parameters: group Taylor importance, global.

Its own ratio is of channels and heads, so that the ratio which meets the budget of parameters is found by bisection.
"""

import copy
import importlib
import signal
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from secateur.pruning.models.adapter import STRUCTURES, linear
from secateur.pruning.models.block import KEYS
from secateur.pruning.models.loading import LoadedModel

ROUNDS = 14
"""Bisections of the ratio: finer than one channel of any model here."""


@dataclass(frozen=True)
class Pruned:
    """A model that Torch-Pruning has cut, and the share of all parameters that it removed."""

    model: Any
    ratio: float


@contextmanager
def limited(seconds: float) -> Generator[None]:
    """Raise TimeoutError after some seconds: its search for groups may not end where attention is cut as well."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"no result after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def parameters(model: Any) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def gradients(loaded: LoadedModel, ids: torch.Tensor, batch: int) -> dict[str, torch.Tensor]:
    """Gradient of the mean token loss of each batch, summed over batches, by parameter name."""
    model: Any = loaded.model
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for part in ids.split(batch):
        part = part.to(loaded.device)
        model(input_ids=part, labels=part, use_cache=False).loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(before[name])
    return found


def prune_to(
    loaded: LoadedModel, slopes: dict[str, torch.Tensor], ratio: float, *, attention: bool
) -> Pruned:
    """The largest cut within `ratio` of all parameters; channels alone, or with KV groups (heads with their KV head).

    Raises:
        ImportError: Torch-Pruning is not installed.
    """
    whole = parameters(loaded.model)
    low, high, best = 0.0, 1.0, Pruned(loaded.model, 0.0)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        model = _cut(loaded, slopes, middle, attention=attention)
        removed = 1 - parameters(model) / whole
        if removed <= ratio + 0.5 / whole:
            low = middle
            best = Pruned(model, removed) if removed > best.ratio else best
        else:
            high = middle
    return best


def _cut(loaded: LoadedModel, slopes: dict[str, torch.Tensor], share: float, *, attention: bool) -> Any:
    """One global cut by group Taylor importance, Torch-Pruning's defaults."""
    tp = importlib.import_module("torch_pruning")
    model: Any = copy.deepcopy(loaded.model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(True)
        parameter.grad = slopes[name].clone() if name in slopes else None
    ignored: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    heads: dict[Any, int] = {}
    for layer in loaded.adapter.decoder_layers(model):
        ignored += [linear(layer, loaded.adapter.output(s)) for s in STRUCTURES]  # their rows: hidden width
        for projection in loaded.adapter.of("attention"):
            if projection.axis == 0 and attention:
                heads[linear(layer, projection)] = getattr(model.config, KEYS[projection.heads])
            elif projection.axis == 0:
                ignored.append(linear(layer, projection))
    options: dict[str, Any] = (
        {"num_heads": heads, "prune_num_heads": True, "head_pruning_ratio": share} if attention else {}
    )
    warnings.filterwarnings("ignore", message="Unwrapped parameters detected")  # norms: not cut here
    pruner = tp.pruner.BasePruner(
        model,
        {"input_ids": torch.ones(1, 16, dtype=torch.long, device=loaded.device), "use_cache": False},
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=share,
        ignored_layers=ignored,
        output_transform=lambda output: output.logits,  # pyright: ignore[reportArgumentType]  its own annotation says None
        **options,
    )
    pruner.step()
    return model.eval()
