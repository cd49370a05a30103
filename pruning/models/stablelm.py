"""StableLM: LayerNorm, rotary embedding of a part of each head; parallel blocks and norms per head are refused."""

from dataclasses import replace

from secateur.pruning.models.adapter import ATTENTION, MLP, ModelAdapter, register

ADAPTER = register(
    ModelAdapter(
        model_type="stablelm",
        title="StableLM",
        attention=replace(
            ATTENTION,
            bias_key="",
            counts=(
                ("num_heads", "num_attention_heads"),
                ("num_key_value_heads", "num_key_value_heads"),
            ),
        ),
        mlp=replace(MLP, bias_key=""),
        notes="MHA or GQA, LayerNorm, partial rotary embedding; without parallel blocks and q/k norms per head",
    )
)
