"""Gemma: MHA or MQA, head_dim independent of hidden / heads, scaled embeddings (inside their module), tied."""

from secateur.pruning.models.adapter import ModelAdapter, register

ADAPTER = register(
    ModelAdapter(model_type="gemma", title="Gemma", notes="MHA or MQA, scaled tied embeddings, wide heads")
)
