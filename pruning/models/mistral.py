"""Mistral: GQA, sliding window (kept as it is)."""

from secateur.pruning.models.adapter import ModelAdapter, register

ADAPTER = register(
    ModelAdapter(model_type="mistral", title="Mistral", notes="GQA, sliding window (kept as it is)")
)
