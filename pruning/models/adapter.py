"""What the algorithms know of a model family: a frozen table of paths, found by `config.model_type`.

Shapes: L layers, D hidden, F channels, H query heads, K KV heads, d head_dim, g = H / K query heads per KV group.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from pruning.errors import ModelError

Structure = Literal["attention", "mlp"]
STRUCTURES: tuple[Structure, Structure] = ("attention", "mlp")


@dataclass(frozen=True)
class Projection:
    """One linear map inside a decoder layer, and how its weight is shared out among units.

    Attributes:
        path: Dotted path below the decoder layer.
        structure: `attention` (a unit is one KV head with its query heads) or `mlp` (a unit is one channel).
        axis: Weight axis that carries the units: 0 rows (their bias goes with them), 1 columns.
        heads: Heads of this map in one unit: `query` (g), `kv` (1); None in an MLP.
    """

    path: str
    structure: Structure
    axis: Literal[0, 1]
    heads: Literal["query", "kv"] | None = None


ATTENTION = (
    Projection("self_attn.q_proj", "attention", 0, "query"),
    Projection("self_attn.k_proj", "attention", 0, "kv"),
    Projection("self_attn.v_proj", "attention", 0, "kv"),
    Projection("self_attn.o_proj", "attention", 1, "query"),
)
MLP = (
    Projection("mlp.gate_proj", "mlp", 0),
    Projection("mlp.up_proj", "mlp", 0),
    Projection("mlp.down_proj", "mlp", 1),
)


@dataclass(frozen=True)
class ModelAdapter:
    """Where a family keeps what is pruned.

    Attributes:
        model_type: `config.model_type` of Transformers.
        title: The family's name for people.
        layers: Dotted path of the list of decoder layers.
        attention: Path of the attention module below a layer.
        attention_norm: Path of the norm in front of it.
        mlp: Path of the MLP below a layer.
        mlp_norm: Path of the norm in front of it.
        head_norms: Norms shared by all heads (Qwen3): freed only when the whole attention goes.
        projections: The linear maps that units are cut from.
        notes: Traits worth knowing, for the table that `secateur models` prints.
    """

    model_type: str
    title: str
    layers: str = "model.layers"
    attention: str = "self_attn"
    attention_norm: str = "input_layernorm"
    mlp: str = "mlp"
    mlp_norm: str = "post_attention_layernorm"
    head_norms: tuple[str, ...] = ()
    projections: tuple[Projection, ...] = ATTENTION + MLP
    notes: str = ""

    def decoder_layers(self, model: nn.Module) -> list[nn.Module]:
        """The decoder layers of `model`, first to last."""
        layers = model.get_submodule(self.layers)
        assert isinstance(layers, nn.ModuleList)
        return list(layers)

    def of(self, structure: Structure) -> tuple[Projection, ...]:
        """The projections of one structure; the last one writes to the residual stream."""
        return tuple(p for p in self.projections if p.structure == structure)

    def output(self, structure: Structure) -> Projection:
        """The projection (`o_proj`, `down_proj`) whose input is the units' activation."""
        return next(p for p in self.of(structure) if p.axis == 1)

    def module(self, structure: Structure) -> str:
        """Path of a structure's module below the layer."""
        return self.attention if structure == "attention" else self.mlp

    def norm(self, structure: Structure) -> str:
        """Path of the norm in front of a structure."""
        return self.attention_norm if structure == "attention" else self.mlp_norm


ADAPTERS: dict[str, ModelAdapter] = {}
PARTS = {"adapter", "layout", "loading", "proof"}
"""Modules beside the families."""


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
        raise ModelError(
            f"model_type={model_type!r} is not supported; families: {', '.join(sorted(ADAPTERS))}. "
            "A new family is one file in pruning/models/ (see docs/adding_a_model.md)."
        )
    return ADAPTERS[model_type]


def linear(layer: nn.Module, projection: Projection) -> nn.Linear | None:
    """The linear module of a projection, or None where its block has been removed."""
    module: nn.Module | None = layer
    for name in projection.path.split("."):
        module = getattr(module, name, None)
        if module is None:
            return None
    if not isinstance(module, nn.Linear):
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
    """Import every file of this package, so that each family is in the table."""
    package = Path(__file__).parent
    for module in pkgutil.iter_modules([str(package)]):
        if module.name not in PARTS:
            importlib.import_module(f"pruning.models.{module.name}")
    return ADAPTERS
