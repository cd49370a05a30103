"""Qwen2 and Qwen2.5: GQA, biases on q, k and v."""

from secateur.pruning.models.adapter import ModelAdapter, register

ADAPTER = register(
    ModelAdapter(model_type="qwen2", title="Qwen2 and Qwen2.5", notes="GQA, biases on q, k and v")
)
