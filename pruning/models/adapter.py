"""What the algorithms know of a model family: its two blocks, and where the model keeps the rest. No other place does.

Shapes: L layers, B batch, T tokens, D hidden, F channels, H query heads, K KV heads, d head width.
"""

import importlib
import pkgutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.pruning.errors import ModelError
from secateur.pruning.models.block import ATTENTION, MLP, STRUCTURES, Block, Projection, Structure
from secateur.pruning.models.head import Head
from secateur.pruning.models.modeling_pruned import named

__all__ = [
    "ATTENTION", "MLP", "STRUCTURES", "Block", "ModelAdapter", "Projection", "Structure", "adapter_for", "family_of",
    "linear", "load_families", "per_unit", "register",
]  # fmt: skip


@dataclass(frozen=True)
class ModelAdapter:
    """Where a family keeps what is pruned, and what it computes with it.

    Attributes:
        model_type: `config.model_type` of Transformers.
        title: The family's name for people.
        attention: The first block of a layer.
        mlp: The second block of a layer.
        layers: Dotted path of the list of decoder layers.
        last_norm: Dotted path of the norm behind the last layer.
        embedding_factor: Config key of the factor on the embedding module's output, or None.
        logit_factor: Config key of a factor on the logits, or None.
        logit_divisor: Config key of a divisor of the logits, or None.
        softcap: Config key of c in c tanh(logits / c), or None.
        implementation: The attention implementation of Transformers that computes all that the family does; None: any.
        notes: Traits worth knowing, for the table that `secateur models` prints.
    """

    model_type: str
    title: str
    attention: Block = ATTENTION
    mlp: Block = MLP
    layers: str = "model.layers"
    last_norm: str = "model.norm"
    embedding_factor: str | None = None
    logit_factor: str | None = None
    logit_divisor: str | None = None
    softcap: str | None = None
    implementation: str | None = None
    notes: str = ""

    def block(self, structure: Structure) -> Block:
        """The block of a structure."""
        return self.attention if structure == "attention" else self.mlp

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The linear maps that units are cut from."""
        return self.attention.projections + self.mlp.projections

    def of(self, structure: Structure) -> tuple[Projection, ...]:
        """The projections of one structure; the last one writes to the residual stream."""
        return self.block(structure).projections

    def output(self, structure: Structure) -> Projection:
        """The projection whose input is the units' activation."""
        return self.block(structure).output

    def decoder_layers(self, model: nn.Module) -> list[nn.Module]:
        """The decoder layers of `model`, first to last."""
        layers = model.get_submodule(self.layers)
        assert isinstance(layers, nn.ModuleList)
        return list(layers)

    def decoder(self, model: Any) -> nn.Module:
        """The model without its head: gives `last_hidden_state` [B, T, D], behind the last norm."""
        return model.get_submodule(model.base_model_prefix)

    def final_norm(self, model: nn.Module) -> nn.Module:
        """The norm behind the last layer."""
        return model.get_submodule(self.last_norm)

    def embed(self, model: Any, ids: torch.Tensor) -> torch.Tensor:
        """What enters the first layer [B, T, D], for token ids [B, T]."""
        found = model.get_input_embeddings()(ids)
        factor = self._number(model, self.embedding_factor)
        return found if factor is None else found * factor

    def head(self, model: Any) -> Head:
        """The output head."""
        factor = self._number(model, self.logit_factor) or 1.0
        factor /= self._number(model, self.logit_divisor) or 1.0
        return Head(model.get_output_embeddings(), factor, self._number(model, self.softcap))

    def tokenwise(self, model: nn.Module) -> tuple[nn.Module, ...]:
        """Modules of the last layer that treat every token alone, and whose output only that token's logits need."""
        try:
            last = self.decoder_layers(model)[-1]
        except (AttributeError, AssertionError, IndexError):
            return ()
        paths = [p.path for p in (*self.attention.queries, self.attention.output)]
        found = [named(last, path) for path in (*paths, self.mlp.path)]
        return tuple(part for part in found if part is not None and next(part.parameters(), None) is not None)

    def window(self, config: Any, index: int) -> int | None:
        """Tokens that the attention of layer `index` sees, None for all."""
        kinds = getattr(config, "layer_types", None)
        width = getattr(config, "sliding_window", None)
        return None if width is None or (kinds and kinds[index] != "sliding_attention") else int(width)

    def described(self, model: Any) -> dict[str, Any]:
        """What a checkpoint's config.json says of the family, see `modeling_pruned.LLAMA`."""
        layers = self.layers.removeprefix(f"{model.base_model_prefix}.")
        return {"layers": layers, **{s: self.block(s).described for s in STRUCTURES}}

    def _number(self, model: Any, key: str | None) -> float | None:
        value = None if key is None else getattr(model.config.get_text_config(), key, None)
        return None if value is None else float(value)


ADAPTERS: dict[str, ModelAdapter] = {}
PARTS = {"adapter", "block", "folder", "head", "layout", "loading", "modeling_pruned", "proof"}
"""Modules beside the families."""
OWN = "secateur_family_"
"""How a module on the search path is called that registers a family of a user's own."""
EXPERTS = "its MLP is a mixture of experts, which units are not cut from yet"
REFUSED = {
    "mixtral": EXPERTS, "qwen2_moe": EXPERTS, "qwen3_moe": EXPERTS, "olmoe": EXPERTS, "granitemoe": EXPERTS,
    "phi3": "it fuses q, k and v into one map, and gate and up into another",
}  # fmt: skip
"""Families that were looked at and do not fit, with the reason."""
GUESS = ModelAdapter(
    "",
    "unknown",
    logit_factor="logit_scale",
    logit_divisor="logits_scaling",
    softcap="final_logit_softcapping",
)
"""What a model of no known family may be like: for callers that check what they are told."""


def register(adapter: ModelAdapter) -> ModelAdapter:
    """Add a family to the table."""
    if adapter.model_type in ADAPTERS:
        raise ValueError(f"two adapters for model_type={adapter.model_type}")
    ADAPTERS[adapter.model_type] = adapter
    return adapter


def adapter_for(model_type: str) -> ModelAdapter:
    """The adapter of a family.

    Raises:
        ModelError: Naming the families that exist.
    """
    if model_type not in load_families():
        why = f" ({REFUSED[model_type]})" if model_type in REFUSED else ""
        raise ModelError(
            f"model_type={model_type!r} is not supported{why}; families: {', '.join(sorted(ADAPTERS))}. "
            "A new family is one file, here in pruning/models/ or on your search path (see docs/adding_a_model.md)."
        )
    return ADAPTERS[model_type]


def family_of(model: Any) -> ModelAdapter:
    """The adapter of a model in memory; of no known family, `GUESS`, which may be wrong."""
    return load_families().get(model.config.model_type, GUESS)


def linear(layer: nn.Module, projection: Projection) -> nn.Linear | None:
    """The linear module of a projection, or None where its block has been removed."""
    module = named(layer, projection.path)
    if module is not None and not isinstance(module, nn.Linear):
        raise ModelError(
            f"{projection.path} is a {type(module).__name__}, not an nn.Linear: quantised models cannot be pruned"
        )
    return module


def per_unit(values: torch.Tensor, projection: Projection, units: int) -> torch.Tensor:
    """Sum a weight-shaped [out, in] or bias-shaped [out] tensor over each unit.

    Units are contiguous runs along the projection's axis (heads of one KV group stand side by side).

    Returns:
        float64 [units].
    """
    if values.dim() == 2:
        values = values.sum(dim=1 - projection.axis, dtype=torch.float64)
    return values.reshape(units, -1).sum(dim=1, dtype=torch.float64)


def load_families() -> dict[str, ModelAdapter]:
    """Import every family: the files of this package, and `secateur_family_<model_type>` on Python's search path."""
    _import_families(tuple(sys.path))
    return ADAPTERS


@cache
def _import_families(path: tuple[str, ...]) -> None:
    """Once for every state of the search path: what it holds does not change while a command runs."""
    here = [each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)])]
    names = [f"{__package__}.{name}" for name in here if name not in PARTS]
    names += [each.name for each in pkgutil.iter_modules(list(path)) if each.name.startswith(OWN)]
    for name in names:
        importlib.import_module(name)
