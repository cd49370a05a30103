"""Decoder models whose layers differ in width, and lack blocks. Needs only torch and Transformers.

This file is used twice, unchanged: secateur prunes with it, and every checkpoint carries a copy, so that
`AutoModelForCausalLM.from_pretrained(dir, trust_remote_code=True)` gives the same model where secateur is not
installed. The geometry is read from the config's `per_layer_config` (Transformers' own schema):
`num_attention_heads`, `num_key_value_heads`, `intermediate_size`, `skip: [attention | mlp]` and
`bias: [o_proj | down_proj]` (maps that gained one) per layer.
Units are whole KV groups, so that the number of query heads per KV head never changes.
`Pruned<Name>` of this module, for any model class `<Name>` of Transformers, is that class for pruned configs.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn

ROW_HEADS = {
    "q_proj": "num_attention_heads",
    "k_proj": "num_key_value_heads",
    "v_proj": "num_key_value_heads",
}
ATTENTION_NORM = "input_layernorm"
MLP_NORM = "post_attention_layernorm"
PREFIX = "Pruned"
"""In front of the name of a Transformers class: its pruned kind."""


def resize(module: nn.Linear, *, rows: int | None = None, columns: int | None = None) -> nn.Linear:
    """A new, uninitialised linear map [rows, columns] of the same dtype, device and bias."""
    return nn.Linear(
        module.in_features if columns is None else columns,
        module.out_features if rows is None else rows,
        bias=module.bias is not None,
        device=module.weight.device,
        dtype=module.weight.dtype,
    )


def shape_layer(layer: Any, geometry: Mapping[str, Any]) -> None:
    """Give the projections of one layer the widths that `geometry` names; weights stay uninitialised."""
    attention, mlp = layer.self_attn, layer.mlp
    for name, key in ROW_HEADS.items():
        if key in geometry:
            setattr(
                attention, name, resize(getattr(attention, name), rows=geometry[key] * attention.head_dim)
            )
    if "num_attention_heads" in geometry:
        width = geometry["num_attention_heads"] * attention.head_dim
        attention.o_proj = resize(attention.o_proj, columns=width)
    if "intermediate_size" in geometry:
        width = geometry["intermediate_size"]
        mlp.gate_proj = resize(mlp.gate_proj, rows=width)
        mlp.up_proj = resize(mlp.up_proj, rows=width)
        mlp.down_proj = resize(mlp.down_proj, columns=width)
    drop_blocks(layer, "attention" in geometry.get("skip", ()), "mlp" in geometry.get("skip", ()))
    for name in geometry.get("bias", ()):
        give_bias((attention if name == "o_proj" else mlp).get_submodule(name))


def give_bias(module: nn.Linear) -> None:
    """Add a bias of zeros to a linear map that has none; it is trained where the weight is."""
    if module.bias is None:
        zeros = module.weight.new_zeros(module.out_features)
        module.bias = nn.Parameter(zeros, requires_grad=module.weight.requires_grad)


def drop_blocks(layer: Any, attention: bool, mlp: bool) -> None:
    """Remove whole blocks of a layer: their parameters, their norm, and their work at run time."""
    if attention and mlp:
        raise ValueError("a layer without attention and MLP is left out of the model altogether")
    if attention and hasattr(layer, "self_attn"):
        del layer.self_attn
        delattr(layer, ATTENTION_NORM)
        layer.__class__ = layer_class(type(layer), "attention")
    if mlp and hasattr(layer, "mlp"):
        del layer.mlp
        delattr(layer, MLP_NORM)
        layer.__class__ = layer_class(type(layer), "mlp")


def assign_cache_slots(layers: Any, layer_types: list[str] | None) -> None:
    """Number the attention modules so that the KV cache has no holes.

    A cache measures its length at its first layer; an attention-free first layer would leave that one empty.
    Slots are handed out in order among layers of the same attention type (full, sliding).
    """
    types = layer_types or ["same"] * len(layers)
    free: dict[str, list[int]] = {}
    for slot, kind in enumerate(types):
        free.setdefault(kind, []).append(slot)
    for layer, kind in zip(layers, types, strict=True):
        if hasattr(layer, "self_attn"):
            layer.self_attn.layer_idx = free[kind].pop(0)


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


@functools.cache
def pruned_class(base: type[Any]) -> type[Any]:
    """The class of a Transformers model whose layers take their widths from `per_layer_config`."""

    class Pruned(base):
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            geometry = get_geometry(config)
            set_geometry(config, None)
            super().__init__(config, *args, **kwargs)
            layers = self.base_model.layers
            for index, values in geometry.items():
                shape_layer(layers[index], values)
            assign_cache_slots(layers, getattr(config, "layer_types", None))
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


def _forward_mlp_only(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A decoder layer without attention. hidden_states [B, T, D]."""
    return hidden_states + self.mlp(getattr(self, MLP_NORM)(hidden_states))


def _forward_attention_only(
    self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """A decoder layer without MLP. hidden_states [B, T, D]."""
    normed = getattr(self, ATTENTION_NORM)(hidden_states)
    return hidden_states + self.self_attn(normed, *args, **kwargs)[0]


_FORWARDS = {"attention": _forward_mlp_only, "mlp": _forward_attention_only}


@functools.cache
def layer_class(base: type[Any], gone: str) -> type[Any]:
    """A decoder layer without attention or MLP, under the same name (placement on devices goes by that name)."""

    def reduce(self: Any, _: Any) -> tuple[Any, ...]:
        return empty_layer, (base, gone), self.__dict__

    members = {"forward": _FORWARDS[gone], "__reduce_ex__": reduce, "__module__": base.__module__}
    return type(base.__name__, (base,), members)


def empty_layer(base: type[Any], gone: str) -> Any:
    """A decoder layer of `layer_class` before its state is put in: what pickle and copy start from."""
    kind: Any = layer_class(base, gone)
    return kind.__new__(kind)
