"""How many units each layer has and what each costs in parameters, read from the modules themselves."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.pruning.errors import ModelError
from secateur.pruning.models.adapter import Block, ModelAdapter, Projection, Structure, linear
from secateur.pruning.models.modeling_pruned import named


@dataclass(frozen=True)
class LayerLayout:
    """Units of one decoder layer; costs in parameters.

    Attributes:
        kv_groups: Number of KV groups (0 when attention is gone).
        channels: Number of MLP channels (0 when the MLP is gone).
        group_cost: Weights and biases of one KV head with its query heads.
        channel_cost: Weights and biases of one channel.
        attention_fixed: What else goes when the last group goes (norm, o bias, head norms).
        mlp_fixed: What else goes when the last channel goes (norm, down bias).
        attention_gain: What a bias would add to `o_proj` (0 when there is one, or no attention).
        mlp_gain: What a bias would add to `down_proj` (0 when there is one, or no MLP).
    """

    kv_groups: int
    channels: int
    group_cost: int
    channel_cost: int
    attention_fixed: int
    mlp_fixed: int
    attention_gain: int = 0
    mlp_gain: int = 0

    def units(self, structure: Structure) -> int:
        """Number of units of a structure."""
        return self.kv_groups if structure == "attention" else self.channels

    def cost(self, structure: Structure) -> int:
        """Parameters of one unit."""
        return self.group_cost if structure == "attention" else self.channel_cost

    def fixed(self, structure: Structure) -> int:
        """Parameters that go only with the whole block."""
        return self.attention_fixed if structure == "attention" else self.mlp_fixed

    def gain(self, structure: Structure) -> int:
        """Parameters of the bias that the structure's output projection lacks."""
        return self.attention_gain if structure == "attention" else self.mlp_gain


@dataclass(frozen=True)
class Layout:
    """Units of a whole model.

    Attributes:
        layers: One entry per decoder layer.
        total_parameters: All parameters, tied ones counted once.
        decoder_parameters: Parameters of the decoder layers.
    """

    layers: tuple[LayerLayout, ...]
    total_parameters: int
    decoder_parameters: int


@dataclass(frozen=True)
class Heads:
    """The attention of one layer.

    Attributes:
        groups: KV heads.
        queries: Query heads per KV head.
        width: Features of one head.
        scaling: Factor on the scores.
    """

    groups: int
    queries: int
    width: int
    scaling: float


def heads_of(layer: nn.Module, adapter: ModelAdapter) -> Heads | None:
    """Count the heads of a layer; None where its attention is gone, or is not as the family says."""
    block = adapter.attention
    module: Any = block.module(layer)
    width = getattr(module, "head_dim", None)
    output, key = (
        named(layer, p.path) for p in (block.output, next(p for p in block.projections if p.heads == "kv"))
    )
    if not (isinstance(width, int) and isinstance(output, nn.Linear) and isinstance(key, nn.Linear)):
        return None
    groups = max(1, key.out_features // width)
    scaling = getattr(module, "scaling", None)
    factor = scaling if isinstance(scaling, float) else width**-0.5
    return Heads(groups, output.in_features // (groups * width), width, factor)


def check_modules(model: nn.Module, adapter: ModelAdapter) -> None:
    """Make sure that the model has what its family promises.

    Raises:
        ModelError: Naming the first missing module and where it was looked for.
    """
    try:
        layers = adapter.decoder_layers(model)
    except (AttributeError, AssertionError) as error:
        raise ModelError(
            f"{type(model).__name__} has no list of layers at {adapter.layers!r}, as family {adapter.title} promises"
        ) from error
    for index, layer in enumerate(layers):
        for structure in ("attention", "mlp"):
            present = [p.path for p in adapter.of(structure) if linear(layer, p) is not None]
            missing = [p.path for p in adapter.of(structure) if p.path not in present]
            if present and missing:
                raise ModelError(
                    f"layer {index} lacks {', '.join(missing)}, as family {adapter.title} promises"
                )
            stray = None if missing else _stray(layer, adapter.block(structure))
            if stray is not None:
                raise ModelError(
                    f"layer {index} has {stray}, which family {adapter.title} does not name: it would not be cut "
                    "with its unit"
                )
        if all(linear(layer, p) is None for p in adapter.projections):
            wanted = ", ".join(p.path for p in adapter.projections)
            raise ModelError(f"layer {index} has none of {wanted}, as family {adapter.title} promises")


def _stray(layer: nn.Module, block: Block) -> str | None:
    """A parameter of a block that belongs to no projection and to no norm that all units share."""
    module = block.module(layer)
    known = tuple(f"{path}." for path in (*(p.path for p in block.projections), *block.shared))
    names = [] if module is None else [f"{block.path}.{name}" for name, _ in module.named_parameters()]
    return next((name for name in names if not name.startswith(known)), None)


def read_layout(model: nn.Module, adapter: ModelAdapter) -> Layout:
    """Read the unit layout of a dense or already pruned model."""
    layers = tuple(_layer_layout(layer, adapter) for layer in adapter.decoder_layers(model))
    decoder = sum(p.numel() for p in model.get_submodule(adapter.layers).parameters())
    return Layout(layers, sum(p.numel() for p in model.parameters()), decoder)


def _layer_layout(layer: nn.Module, adapter: ModelAdapter) -> LayerLayout:
    groups = channels = 0
    if linear(layer, adapter.output("attention")) is not None:
        heads = heads_of(layer, adapter)
        assert heads is not None
        groups = 1 if adapter.attention.whole else heads.groups
    if linear(layer, adapter.output("mlp")) is not None:
        channels = _linear(layer, adapter.output("mlp")).in_features
    return LayerLayout(
        kv_groups=groups,
        channels=channels,
        group_cost=_unit_cost(layer, adapter, "attention", groups),
        channel_cost=_unit_cost(layer, adapter, "mlp", channels),
        attention_fixed=_fixed(layer, adapter, "attention") if groups else 0,
        mlp_fixed=_fixed(layer, adapter, "mlp") if channels else 0,
        attention_gain=_gain(layer, adapter, "attention") if groups else 0,
        mlp_gain=_gain(layer, adapter, "mlp") if channels else 0,
    )


def _gain(layer: nn.Module, adapter: ModelAdapter, structure: Structure) -> int:
    module = _linear(layer, adapter.output(structure))
    return 0 if module.bias is not None else module.out_features


def _linear(layer: nn.Module, projection: Projection) -> nn.Linear:
    module = linear(layer, projection)
    assert module is not None
    return module


def _unit_cost(layer: nn.Module, adapter: ModelAdapter, structure: Structure, units: int) -> int:
    if units == 0:
        return 0
    total = 0
    for projection in adapter.of(structure):
        module = _linear(layer, projection)
        total += module.weight.numel()
        if module.bias is not None and projection.axis == 0:
            total += module.bias.numel()
    return total // units


def _fixed(layer: nn.Module, adapter: ModelAdapter, structure: Structure) -> int:
    block = adapter.block(structure)
    paths = (*block.norms, *block.shared)
    total = sum(p.numel() for path in paths for p in layer.get_submodule(path).parameters())
    bias = _linear(layer, adapter.output(structure)).bias
    return total + (bias.numel() if bias is not None else 0)
