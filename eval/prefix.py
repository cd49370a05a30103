"""Prefix reuse over a grid: hidden states that enter the first modified layer are computed once per base model.

Layers before the first one that pruning touched are the same in every model of a grid, and so are the hidden states
they produce for the same packs. The first such run keeps them on disk, memory-mapped; later ones start from there.
What was kept is found by content (embedding, untouched layers, plan, packs), and proven on the smallest pack: its
hidden states must be bit-equal to those of the whole model, otherwise nothing is reused.

N nodes of a plan, T tokens of a pack, D hidden.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.eval.attention import tree_attention
from secateur.eval.packs import Pack, make_pack
from secateur.eval.scoring import TreeScorer
from secateur.eval.trie import Trees
from secateur.pruning.files import digest, read_json, write_json
from secateur.pruning.models.adapter import family_of

log = logging.getLogger(__name__)

NOT_LOCAL = (
    "per_layer_config",
    "allow_global_per_layer_attribute_access",
    "num_hidden_layers",
    "layer_types",
    "secateur_layers",
    "secateur_blocks",
    "architectures",
    "auto_map",
    "_name_or_path",
    "transformers_version",
    "use_cache",
    "dtype",
)
"""Config keys that do not change what an untouched layer computes."""


@dataclass(frozen=True)
class PrefixReuse:
    """How hidden states are reused.

    Attributes:
        folder: Where they are kept.
        depth: Untouched layers at the start of the model.
        limit_bytes: Largest file; a plan that needs more is scored without reuse.
    """

    folder: Path
    depth: int
    limit_bytes: int = 64 * 2**30


@contextmanager
def reusing(
    scorer: TreeScorer, trees: Trees, packs: list[np.ndarray], plan: str, reuse: PrefixReuse | None
) -> Generator[Any]:
    """Give the function that computes a pack's hidden states [T, D]: from kept states, keeping them, or plainly.

    Args:
        scorer: The prepared model.
        trees: The plan.
        packs: Its packs that will be scored; the smallest serves as proof.
        plan: The plan's name.
        reuse: None for no reuse.
    """
    layers = _layers(scorer)
    if reuse is None or reuse.depth < 1 or reuse.depth >= len(layers):
        yield scorer.hidden
        return
    width, dtype = _width(scorer), next(scorer.backbone.decoder.parameters()).dtype
    size = trees.tokens * width * dtype.itemsize
    name = digest([prefix_identity(scorer, reuse.depth), plan, scorer.budget, scorer.kind, str(dtype), 1], 32)
    path = reuse.folder / "prefix" / f"{name}.bin"
    shape = (trees.tokens, width * dtype.itemsize)
    if path.exists() and path.stat().st_size == size and _facts(path) == list(shape):
        kept = np.memmap(path, np.uint8, "r", shape=shape)

        start = _Start(layers[reuse.depth])

        def short(pack: Pack) -> torch.Tensor:
            rows = torch.from_numpy(np.ascontiguousarray(kept[pack.nodes])).view(dtype)
            start.states = rows[None].to(scorer.backbone.device)
            return scorer.hidden(pack, inputs_embeds=start.states)

        proof = make_pack(trees, min(packs, key=lambda pack: int(trees.sizes[pack].sum())))
        with tree_attention(scorer.model), torch.inference_mode():
            whole = scorer.hidden(proof)
            with _shortened(scorer, start, reuse.depth):
                same = torch.equal(whole, short(proof))
        if same:
            with _shortened(scorer, start, reuse.depth):
                yield short
        else:
            log.warning("kept hidden states are not bit-equal to the model's own: not reused")
            yield scorer.hidden
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if size > min(reuse.limit_bytes, int(0.9 * shutil.disk_usage(path.parent).free)):
        log.warning("prefix reuse needs %.1f GB, more than its limit or the free disk: not used", size / 1e9)
        yield scorer.hidden
        return
    with _keeping(scorer, layers[reuse.depth], path, shape) as hidden:
        yield hidden


def prefix_identity(scorer: TreeScorer, depth: int) -> str:
    """Digest of everything that decides the hidden states entering layer `depth`."""
    config = scorer.model.config.get_text_config()
    facts = {key: value for key, value in config.to_dict().items() if key not in NOT_LOCAL}
    facts["layer_types"] = (getattr(config, "layer_types", None) or [])[:depth]
    state = hashlib.sha256(digest(_plain(facts), 64).encode())
    for module in (scorer.model.get_input_embeddings(), *_layers(scorer)[:depth]):
        for name, tensor in module.state_dict().items():
            state.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            state.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:32]


def _layers(scorer: TreeScorer) -> list[nn.Module]:
    """The decoder layers; none where nobody has described the model and it is not as most are."""
    try:
        return family_of(scorer.model).decoder_layers(scorer.model)
    except (AttributeError, AssertionError):
        return []


class _Skipped(nn.Module):
    """Stands for an untouched layer and does nothing."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Whatever comes; it is thrown away later."""
        return hidden_states


class _Start(nn.Module):
    """The first layer that was touched, fed with kept states [1, T, D] whatever comes from before it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.states = torch.empty(0)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output."""
        return self.layer(self.states.to(hidden_states.device), *args, **kwargs)


@contextmanager
def _shortened(scorer: TreeScorer, start: _Start, depth: int) -> Generator[None]:
    """Leave the untouched layers out inside the block; the others keep their numbers, by which some are told things."""
    path, _, name = family_of(scorer.model).layers.rpartition(".")
    owner: Any = scorer.model.get_submodule(path)
    layers = getattr(owner, name)
    skipped = [_Skipped() for _ in range(depth)]
    setattr(owner, name, nn.ModuleList([*skipped, start, *layers[depth + 1 :]]))
    try:
        yield
    finally:
        setattr(owner, name, layers)


@contextmanager
def _keeping(scorer: TreeScorer, layer: nn.Module, path: Path, shape: tuple[int, int]) -> Generator[Any]:
    """Write the states that enter `layer`; the file appears when every node was seen with the first budget."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    kept = np.memmap(partial, np.uint8, "w+", shape=shape)
    seen = np.zeros(shape[0], dtype=bool)
    budget, caught = scorer.budget, list[torch.Tensor]()

    def catch(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append(args[0] if args else kwargs["hidden_states"])

    def hidden(pack: Pack) -> torch.Tensor:
        caught.clear()
        states = scorer.hidden(pack)
        (entering,) = caught
        rows = entering[0].detach().cpu().contiguous()
        kept[pack.nodes] = rows.view(torch.uint8).view(len(pack.nodes), -1).numpy()
        seen[pack.nodes] = True
        return states

    handle = layer.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        yield hidden
        if seen.all() and scorer.budget == budget:
            kept.flush()
            write_json(path.with_suffix(".json"), {"shape": list(shape)})
            partial.replace(path)
    finally:
        handle.remove()
        partial.unlink(missing_ok=True)


def _facts(path: Path) -> Any:
    return read_json(path.with_suffix(".json")).get("shape")


def _width(scorer: TreeScorer) -> int:
    return int(scorer.model.config.get_text_config().hidden_size)


def _plain(value: Any) -> Any:
    """Config values as JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
