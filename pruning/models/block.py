"""One block of a decoder layer, attention or MLP: what every algorithm asks instead of knowing a family's modules.

A layer adds its blocks to the residual stream, first the attention, then the MLP:

    stream <- stream + scale x after(module(norm(stream)))

where `norm`, `after` and `scale` may be absent. Priors, walks, refits, surgery, scoring and checkpoints are written in
these terms; `pruning/models/proof.py` holds every loaded model against them.

Shapes: B batch, T tokens, D hidden, F channels, H query heads, K KV heads, d head width, g = H / K.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from secateur.pruning.models.modeling_pruned import added, named

Structure = Literal["attention", "mlp"]
STRUCTURES: tuple[Structure, Structure] = ("attention", "mlp")
KEYS = {"query": "num_attention_heads", "kv": "num_key_value_heads", None: "intermediate_size"}
"""What a projection's width is counted in -> the config's key of that count."""


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

    @property
    def name(self) -> str:
        """The map's name below its block."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Block:
    """Attention or MLP of a decoder layer; paths are below the layer.

    Attributes:
        structure: Which of the two.
        path: Its module.
        projections: Its linear maps; the last one writes towards the residual stream.
        norm: The norm that feeds it, or None where it reads the stream itself.
        after: The norm behind it, or None.
        shared: Norms inside it that all units share: they go only with the whole block.
        scale: Attribute of the layer with the factor on what the block adds, or None.
        bias_key: Config key that says whether the family itself gives the output projection a bias.
        counts: Attributes of the module that hold a number of heads or channels, each with its config key.
        whole: It is a single unit: something inside mixes its heads, so that it goes whole or not at all.
    """

    structure: Structure
    path: str
    projections: tuple[Projection, ...]
    norm: str | None
    after: str | None = None
    shared: tuple[str, ...] = ()
    scale: str | None = None
    bias_key: str = ""
    counts: tuple[tuple[str, str], ...] = ()
    whole: bool = False

    @property
    def output(self) -> Projection:
        """The projection whose input is the units' activation."""
        return next(p for p in self.projections if p.axis == 1)

    @property
    def queries(self) -> tuple[Projection, ...]:
        """The projections that make queries; none in an MLP."""
        return tuple(p for p in self.projections if p.axis == 0 and p.heads == "query")

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms in front of it and behind it."""
        return tuple(path for path in (self.norm, self.after) if path is not None)

    @property
    def linear(self) -> bool:
        """Whether what it adds is the output projection's own output, up to a factor (no norm stands behind)."""
        return self.after is None

    @cached_property
    def described(self) -> dict[str, Any]:
        """What a checkpoint's config.json says of it, see `modeling_pruned.LLAMA`."""
        maps = {p.axis: {q.name: KEYS[q.heads] for q in self.projections if q.axis == p.axis}
                for p in self.projections}  # fmt: skip
        return {"path": self.path, "norm": self.norm, "after": self.after, "scale": self.scale,
                "rows": maps[0], "columns": maps[1], "counts": dict(self.counts)}  # fmt: skip

    def module(self, layer: nn.Module) -> nn.Module | None:
        """Its module, or None where it has been removed."""
        return named(layer, self.path)

    def entrance(self, layer: nn.Module) -> nn.Module:
        """The module that is given the stream: the norm in front, else its own."""
        return layer.get_submodule(self.norm or self.path)

    def project(self, layer: nn.Module, stream: torch.Tensor, told: dict[str, Any]) -> torch.Tensor:
        """What it adds to the residual stream [B, T, D]; `told` are the layer's keyword arguments."""
        return added(layer, self.described, stream, **(told if self.structure == "attention" else {}))

    def bypass(self, stream: torch.Tensor) -> torch.Tensor:
        """The stream behind the block when the block is left out."""
        return stream

    def factor(self, layer: nn.Module) -> float:
        """The factor between the output projection and what is added (1 where the layer has none)."""
        return 1.0 if self.scale is None else float(getattr(layer, self.scale))

    def sizes(self, units: int, group: int) -> dict[str, int]:
        """Its widths as config keys; `group` is g. Nothing where the width never changes."""
        if self.whole:
            return {}
        heads = {"query": units * group, "kv": units, None: units}
        return {KEYS[p.heads]: heads[p.heads] for p in self.projections}


ATTENTION = Block(
    structure="attention",
    path="self_attn",
    projections=(
        Projection("self_attn.q_proj", "attention", 0, "query"),
        Projection("self_attn.k_proj", "attention", 0, "kv"),
        Projection("self_attn.v_proj", "attention", 0, "kv"),
        Projection("self_attn.o_proj", "attention", 1, "query"),
    ),
    norm="input_layernorm",
    bias_key="attention_bias",
)
"""Llama's attention."""

MLP = Block(
    structure="mlp",
    path="mlp",
    projections=(
        Projection("mlp.gate_proj", "mlp", 0),
        Projection("mlp.up_proj", "mlp", 0),
        Projection("mlp.down_proj", "mlp", 1),
    ),
    norm="post_attention_layernorm",
    bias_key="mlp_bias",
)
"""Llama's MLP."""
