"""StarCoder 2: GQA, LayerNorm, biases everywhere, an MLP of two matrices, sliding window."""

from dataclasses import replace

from secateur.pruning.models.adapter import ATTENTION, MLP, ModelAdapter, Projection, register

ADAPTER = register(
    ModelAdapter(
        model_type="starcoder2",
        title="StarCoder 2",
        attention=replace(ATTENTION, bias_key="use_bias"),
        mlp=replace(
            MLP,
            projections=(Projection("mlp.c_fc", "mlp", 0), Projection("mlp.c_proj", "mlp", 1)),
            bias_key="use_bias",
        ),
        notes="GQA, LayerNorm, biases, an MLP of two matrices",
    )
)
