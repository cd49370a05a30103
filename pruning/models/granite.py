"""Granite: Llama with factors on embedding, on what blocks add, on attention scores, and a divisor of the logits."""

from dataclasses import replace

from secateur.pruning.models.adapter import ATTENTION, MLP, ModelAdapter, register

ADAPTER = register(
    ModelAdapter(
        model_type="granite",
        title="Granite",
        attention=replace(ATTENTION, scale="residual_multiplier"),
        mlp=replace(MLP, scale="residual_multiplier"),
        embedding_factor="embedding_multiplier",
        logit_divisor="logits_scaling",
        notes="GQA; multipliers of embedding, residual stream, scores and logits",
    )
)
