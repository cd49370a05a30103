"""Qwen3: GQA, norms on q and k, head_dim independent of hidden / heads."""

from pruning.models.adapter import ModelAdapter, register

ADAPTER = register(
    ModelAdapter(
        model_type="qwen3",
        title="Qwen3",
        head_norms=("self_attn.q_norm", "self_attn.k_norm"),
        notes="GQA, norms on q and k, head_dim independent of hidden / heads",
    )
)
