"""Tiny random models of every family, built here and nowhere else; the contract tests run over all of them."""

from typing import Any

import torch
import transformers

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-mha-bias": ("Llama", {"num_key_value_heads": 8, "attention_bias": True, "mlp_bias": True}),
    "llama-mqa": ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "granite": (
        "Granite",
        {
            "residual_multiplier": 0.4,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "attention_multiplier": 0.3,
            "tie_word_embeddings": False,
        },
    ),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 8,
            "final_logit_softcapping": 20.0,
            "attn_logit_softcapping": 5.0,
            "attn_implementation": "eager",
        },
    ),
    "gemma3_text": (
        "Gemma3",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8, "sliding_window_pattern": 2},
    ),
    "olmo2": ("Olmo2", {}),
    "starcoder2": ("Starcoder2", {"sliding_window": 8, "residual_dropout": 0.0, "embedding_dropout": 0.0}),
    "stablelm": ("StableLm", {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
}
"""Name of a variant -> the Transformers name of its classes, and its config beside the common sizes.

A family is called by its `model_type`; further variants of it carry a dash.
"""
FAMILIES = tuple(name for name in TINY if "-" not in name)
TYPES = {"gemma3_text": "Gemma3TextConfig"}


def classes(name: str) -> tuple[type[Any], type[Any], dict[str, Any]]:
    """The config class, the model class and the config of a variant."""
    kind, changes = TINY[name]
    config = getattr(transformers, TYPES.get(name, f"{kind}Config"))
    return config, getattr(transformers, f"{kind}ForCausalLM"), changes


def tiny(name: str, sizes: dict[str, Any], seed: int = 0, **more: Any) -> Any:
    """A random model of a variant, float32 and in evaluation mode; the variant goes before `sizes`."""
    config, model, changes = classes(name)
    return tiny_of(config, model, {**sizes, **changes, **more}, seed)


def tiny_of(config: type[Any], model: type[Any], sizes: dict[str, Any], seed: int = 0) -> Any:
    """A random model of any class of Transformers."""
    torch.manual_seed(seed)
    return model(config(**sizes)).float().eval()
