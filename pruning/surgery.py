"""From a plan to a smaller model: slice weights, drop emptied blocks, record the geometry in the config.

Shapes: D hidden, F channels, K KV heads, d head_dim, g query heads per KV head.
"""

from typing import Any

import torch
from torch import nn

from secateur.pruning.errors import ModelError
from secateur.pruning.models.adapter import STRUCTURES, ModelAdapter, Projection, Structure, linear
from secateur.pruning.models.layout import heads_of, read_layout
from secateur.pruning.models.modeling_pruned import (
    assign_cache_slots,
    count_units,
    drop_blocks,
    get_geometry,
    set_geometry,
)
from secateur.pruning.plan import LayerPlan, PruningPlan


def prune(model: nn.Module, adapter: ModelAdapter, plan: PruningPlan) -> nn.Module:
    """Cut `model` in place to what `plan` keeps; kept weights keep their bits.

    Raises:
        ModelError: The plan was made for another layout.
    """
    check_fits(model, adapter, plan)
    with torch.no_grad():
        for layer, keep in zip(adapter.decoder_layers(model), plan.layers, strict=True):
            for structure in STRUCTURES:
                slice_block(layer, adapter, structure, keep)
    return finish(model, adapter, plan)


def check_fits(model: nn.Module, adapter: ModelAdapter, plan: PruningPlan) -> None:
    """Make sure that a plan was made for a model of this layout.

    Raises:
        ModelError: It was made for another.
    """
    layout = read_layout(model, adapter)
    shape = [(layer.kv_groups, layer.channels) for layer in layout.layers]
    wanted = [(layer.kv_groups, layer.channels) for layer in plan.layers]
    if shape != wanted:
        raise ModelError(
            f"the plan was made for layers (KV groups, channels) {wanted[:3]}..., the model has {shape[:3]}..."
        )


def finish(model: Any, adapter: ModelAdapter, plan: PruningPlan) -> nn.Module:
    """After slicing: drop emptied blocks and layers, and describe the new geometry in the config.

    Raises:
        ModelError: Nothing would be left.
    """
    layers = adapter.decoder_layers(model)
    kept = [i for i, keep in enumerate(plan.layers) if keep.kept_kv_groups or keep.kept_channels]
    if not kept:
        raise ModelError("the plan removes every layer; choose a smaller budget.ratio or guard.min_channels")
    _name_head_dim(model.config, layers, adapter)
    blocks = adapter.described(model)
    for index in kept:
        keep = plan.layers[index]
        drop_blocks(layers[index], not keep.kept_kv_groups, not keep.kept_channels, blocks)
    _rebuild(model, adapter, kept)
    return model


def slice_block(layer: nn.Module, adapter: ModelAdapter, structure: Structure, keep: LayerPlan) -> None:
    """Slice every projection of one structure to the kept units; a block that loses all of them stays for `finish`."""
    units, before = keep.kept(structure), keep.units(structure)
    if before == 0 or not units or len(units) == before:
        return
    for projection in adapter.of(structure):
        module = linear(layer, projection)
        assert module is not None
        _slice(module, projection, features_of(module, projection, units, before))
    block, heads = adapter.block(structure), heads_of(layer, adapter)
    group = heads.queries if heads is not None else 1
    count_units(block.module(layer), block.described, block.sizes(len(units), group))


def features_of(
    module: nn.Linear, projection: Projection, units: tuple[int, ...], before: int
) -> torch.Tensor:
    """Indices of the features that belong to `units`: each unit is one contiguous run of the axis."""
    size = module.weight.shape[projection.axis] // before
    starts = torch.tensor(units, device=module.weight.device) * size
    return (starts[:, None] + torch.arange(size, device=starts.device)).flatten()


def _slice(module: nn.Linear, projection: Projection, features: torch.Tensor) -> None:
    """Keep the given rows (with their bias) or columns of a linear map."""
    weight = module.weight.index_select(projection.axis, features).contiguous()
    module.weight = nn.Parameter(weight, requires_grad=module.weight.requires_grad)
    if projection.axis == 0:
        module.out_features = len(features)
        if module.bias is not None:
            module.bias = nn.Parameter(
                module.bias.index_select(0, features).contiguous(), requires_grad=module.bias.requires_grad
            )
    else:
        module.in_features = len(features)


def _name_head_dim(config: Any, layers: list[nn.Module], adapter: ModelAdapter) -> None:
    """Write into the config what a family derives from the number of heads, while a layer has attention still."""
    first = next((heads for layer in layers if (heads := heads_of(layer, adapter)) is not None), None)
    if first is not None and getattr(config, "head_dim", None) is None:
        config.head_dim = first.width


def _rebuild(model: Any, adapter: ModelAdapter, kept: list[int]) -> None:
    """Leave emptied layers out, renumber, and describe the new geometry in the config."""
    parent, _, name = adapter.layers.rpartition(".")
    owner = model.get_submodule(parent)
    old = getattr(owner, name)
    setattr(owner, name, nn.ModuleList([old[i] for i in kept]))
    config = model.config
    origin = getattr(config, "secateur_layers", None) or list(range(len(old)))
    set_geometry(config, None)
    config.num_hidden_layers = len(kept)
    layers = getattr(owner, name)
    if getattr(config, "layer_types", None):
        types = [config.layer_types[i] for i in kept]
        config.layer_types = _cached_types(types, [adapter.attention.module(x) is not None for x in layers])
    config.secateur_layers = [origin[i] for i in kept]
    config.secateur_blocks = blocks = adapter.described(model)
    assign_cache_slots(layers, getattr(config, "layer_types", None), blocks)
    set_geometry(config, _geometry(model, adapter))


def _cached_types(types: list[str], attends: list[bool]) -> list[str]:
    """Attention types of layers; those that lost their attention take the type of the first layer that has one.

    A cache measures its length at its first slot, which therefore must be of a type that is still used.
    """
    first = next((kind for kind, has in zip(types, attends, strict=True) if has), None)
    if first is None:
        return types
    return [kind if has else first for kind, has in zip(types, attends, strict=True)]


def _geometry(model: Any, adapter: ModelAdapter) -> dict[int, dict[str, Any]]:
    """Per-layer overrides in the schema of Transformers' `per_layer_config`."""
    config = model.config
    group = config.num_attention_heads // config.num_key_value_heads
    result: dict[int, dict[str, Any]] = {}
    for index, layer in enumerate(read_layout(model, adapter).layers):
        entry: dict[str, Any] = {}
        skip = [s for s in STRUCTURES if layer.units(s) == 0]
        if skip:
            entry["skip"] = skip
        for structure in STRUCTURES:
            sizes = adapter.block(structure).sizes(layer.units(structure), group)
            if layer.units(structure) and any(getattr(config, key) != size for key, size in sizes.items()):
                entry |= sizes
        gained = [name for name, module in _gained_biases(model, adapter, index) if module.bias is not None]
        if gained:
            entry["bias"] = gained
        if entry:
            result[index] = entry
    return result


def _gained_biases(model: Any, adapter: ModelAdapter, index: int) -> list[tuple[str, nn.Linear]]:
    """The output projections of a layer to which the family's config gives no bias."""
    layer, found = adapter.decoder_layers(model)[index], list[tuple[str, nn.Linear]]()
    for structure in STRUCTURES:
        block = adapter.block(structure)
        module = linear(layer, block.output)
        if module is not None and not getattr(model.config, block.bias_key, False):
            found.append((block.output.name, module))
    return found


def geometry_of(model: Any) -> dict[int, dict[str, Any]]:
    """The per-layer geometry that a pruned model's config carries."""
    return get_geometry(model.config)
