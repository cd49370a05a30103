"""Llama: MHA, GQA or MQA; attention_bias and mlp_bias read from the modules."""

from secateur.pruning.models.adapter import ModelAdapter, register

ADAPTER = register(
    ModelAdapter(
        model_type="llama",
        title="Llama",
        notes="MHA, GQA or MQA; attention_bias and mlp_bias read from the modules",
    )
)
