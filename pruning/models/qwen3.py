"""Qwen3: GQA, norms on q and k, head_dim independent of hidden / heads."""

from dataclasses import replace

from secateur.pruning.models.adapter import ATTENTION, ModelAdapter, register

ADAPTER = register(
    ModelAdapter(
        model_type="qwen3",
        title="Qwen3",
        attention=replace(ATTENTION, shared=("self_attn.q_norm", "self_attn.k_norm")),
        notes="GQA, norms on q and k, head_dim independent of hidden / heads",
    )
)
