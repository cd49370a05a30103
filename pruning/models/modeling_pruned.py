"""Decoder models whose layers differ in width, and lack blocks. Needs only torch and Transformers.

This file is used twice, unchanged: secateur prunes with it, and every checkpoint carries a copy, so that
`AutoModelForCausalLM.from_pretrained(dir, trust_remote_code=True)` gives the same model where secateur is not
installed. The geometry is read from the config's `per_layer_config` (Transformers' own schema):
`num_attention_heads`, `num_key_value_heads`, `intermediate_size`, `skip: [attention | mlp]` and
`bias: [output projection]` (maps that gained one) per layer; the names of modules from `secateur_blocks`.
Units are whole KV groups, so that the number of query heads per KV head never changes.
`Pruned<Name>` of this module, for any model class `<Name>` of Transformers, is that class for pruned configs.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn

LLAMA: dict[str, Any] = {
    "layers": "layers",
    "attention": {
        "path": "self_attn", "norm": "input_layernorm", "after": None, "scale": None,
        "rows": {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads", "v_proj": "num_key_value_heads"},
        "columns": {"o_proj": "num_attention_heads"}, "counts": {},
    },
    "mlp": {
        "path": "mlp", "norm": "post_attention_layernorm", "after": None, "scale": None,
        "rows": {"gate_proj": "intermediate_size", "up_proj": "intermediate_size"},
        "columns": {"down_proj": "intermediate_size"}, "counts": {},
    },
}  # fmt: skip
"""`secateur_blocks` of checkpoints whose config.json has none. Paths are below the decoder, and below a layer.

`norm` feeds the block and `after` follows it (None: no such norm); `scale` is the layer's attribute with the factor on
what the block adds; `rows` and `columns` name its linear maps and what their width is counted in; `counts` are
attributes of its module that hold such a count.
"""
BLOCKS = ("attention", "mlp")
PREFIX = "Pruned"
"""In front of the name of a Transformers class: its pruned kind."""


def named(module: Any, path: str) -> Any:
    """The module at a dotted path, or None where there is none."""
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def added(
    layer: Any, block: Mapping[str, Any], hidden_states: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """What a block adds to the residual stream [B, T, D] in front of it."""
    given = hidden_states if block["norm"] is None else named(layer, block["norm"])(hidden_states)
    found = named(layer, block["path"])(given, *args, **kwargs)
    found = found[0] if isinstance(found, tuple) else found
    if block["after"] is not None:
        found = named(layer, block["after"])(found)
    return found if block["scale"] is None else found * getattr(layer, block["scale"])


def resize(module: nn.Linear, *, rows: int | None = None, columns: int | None = None) -> nn.Linear:
    """A new, uninitialised linear map [rows, columns] of the same dtype, device and bias."""
    return nn.Linear(
        module.in_features if columns is None else columns,
        module.out_features if rows is None else rows,
        bias=module.bias is not None,
        device=module.weight.device,
        dtype=module.weight.dtype,
    )


def shape_layer(layer: Any, geometry: Mapping[str, Any], blocks: Mapping[str, Any] = LLAMA) -> None:
    """Give the projections of one layer the widths that `geometry` names; weights stay uninitialised."""
    for kind in BLOCKS:
        block, module = blocks[kind], named(layer, blocks[kind]["path"])
        heads = module.head_dim if kind == "attention" else 1
        for axis in ("rows", "columns"):
            for name, key in block[axis].items():
                if key in geometry:
                    sizes = {axis: geometry[key] * heads}
                    setattr(module, name, resize(getattr(module, name), **sizes))
        count_units(module, block, geometry)
    drop_blocks(layer, "attention" in geometry.get("skip", ()), "mlp" in geometry.get("skip", ()), blocks)
    for name in geometry.get("bias", ()):
        owner = next(blocks[kind]["path"] for kind in BLOCKS if name in blocks[kind]["columns"])
        give_bias(named(layer, owner).get_submodule(name))


def count_units(module: Any, block: Mapping[str, Any], geometry: Mapping[str, Any]) -> None:
    """Set the attributes of a block's module that hold a number of heads or channels."""
    for name, key in block["counts"].items():
        if key in geometry:
            setattr(module, name, geometry[key])


def give_bias(module: nn.Linear) -> None:
    """Add a bias of zeros to a linear map that has none; it is trained where the weight is."""
    if module.bias is None:
        zeros = module.weight.new_zeros(module.out_features)
        module.bias = nn.Parameter(zeros, requires_grad=module.weight.requires_grad)


def drop_blocks(layer: Any, attention: bool, mlp: bool, blocks: Mapping[str, Any] = LLAMA) -> None:
    """Remove whole blocks of a layer: their parameters, their norms, and their work at run time."""
    if attention and mlp:
        raise ValueError("a layer without attention and MLP is left out of the model altogether")
    for gone, block, rest in ((attention, *BLOCKS), (mlp, *BLOCKS[::-1])):
        if gone and named(layer, blocks[block]["path"]) is not None:
            for path in (blocks[block][part] for part in ("path", "norm", "after")):
                if path is not None:
                    owner, _, name = path.rpartition(".")
                    delattr(layer.get_submodule(owner), name)
            layer.block_left = {"kind": rest, **blocks[rest]}
            layer.__class__ = layer_class(type(layer))


def assign_cache_slots(layers: Any, layer_types: list[str] | None, blocks: Mapping[str, Any] = LLAMA) -> None:
    """Number the attention modules so that the KV cache has no holes.

    A cache measures its length at its first layer; an attention-free first layer would leave that one empty.
    Slots are handed out in order among layers of the same attention type (full, sliding).
    """
    types = layer_types or ["same"] * len(layers)
    free: dict[str, list[int]] = {}
    for slot, kind in enumerate(types):
        free.setdefault(kind, []).append(slot)
    for layer, kind in zip(layers, types, strict=True):
        attention = named(layer, blocks["attention"]["path"])
        if attention is not None:
            attention.layer_idx = free[kind].pop(0)


def set_geometry(config: Any, geometry: Mapping[int, Mapping[str, Any]] | None) -> None:
    """Write the per-layer geometry into a config; global widths stay readable as the dense model's.

    Transformers wants a global value of every key that only some layers have: of ours it is an empty one.
    """
    config.per_layer_config = None
    if geometry:
        for values in geometry.values():
            for key, value in values.items():
                if key != "skip" and not hasattr(config, key):
                    setattr(config, key, type(value)())
        config.per_layer_config = {index: dict(values) for index, values in geometry.items()}
        config.allow_global_per_layer_attribute_access = True


def get_geometry(config: Any) -> dict[int, dict[str, Any]]:
    """Read the per-layer geometry of a config: only layers and values that differ from the global ones."""
    stored = config.to_dict().get("per_layer_config") or {}
    return {int(index): dict(values) for index, values in stored.items()}


def get_blocks(config: Any) -> dict[str, Any]:
    """Read what a config says of its layers' modules; those of Llama where it says nothing."""
    return getattr(config, "secateur_blocks", None) or LLAMA


@functools.cache
def pruned_class(base: type[Any]) -> type[Any]:
    """The class of a Transformers model whose layers take their widths from `per_layer_config`."""

    class Pruned(base):
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            geometry = get_geometry(config)
            set_geometry(config, None)
            super().__init__(config, *args, **kwargs)
            blocks = get_blocks(config)
            layers = self.base_model.get_submodule(blocks["layers"])
            for index, values in geometry.items():
                shape_layer(layers[index], values, blocks)
            assign_cache_slots(layers, getattr(config, "layer_types", None), blocks)
            for settings in {id(config): config, id(self.config): self.config}.values():
                set_geometry(settings, geometry)

    Pruned.__name__ = f"{PREFIX}{base.__name__}"
    Pruned.__qualname__ = Pruned.__name__
    return Pruned


def __getattr__(name: str) -> type[Any]:
    """`PrunedLlamaForCausalLM` and the like, as Transformers and pickle look for them."""
    base = getattr(transformers, name.removeprefix(PREFIX), None) if name.startswith(PREFIX) else None
    if not isinstance(base, type):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pruned_class(base)


def _forward(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A decoder layer with one block. hidden_states [B, T, D]."""
    block = self.block_left
    if block["kind"] == "attention":
        return hidden_states + added(self, block, hidden_states, *args, **kwargs)
    return hidden_states + added(self, block, hidden_states)


@functools.cache
def layer_class(base: type[Any]) -> type[Any]:
    """A decoder layer with one block, under the same name (placement on devices goes by that name)."""

    def reduce(self: Any, _: Any) -> tuple[Any, ...]:
        return empty_layer, (base,), self.__dict__

    members = {"forward": _forward, "__reduce_ex__": reduce, "__module__": base.__module__}
    return type(base.__name__, (base,), members)


def empty_layer(base: type[Any]) -> Any:
    """A decoder layer of `layer_class` before its state is put in: what pickle and copy start from."""
    kind: Any = layer_class(base)
    return kind.__new__(kind)
