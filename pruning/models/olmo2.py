"""OLMo 2: norms behind the blocks only; its norms on q and k span all heads, so that attention goes whole or not."""

from dataclasses import replace

from secateur.pruning.models.adapter import ATTENTION, MLP, ModelAdapter, register

ADAPTER = register(
    ModelAdapter(
        model_type="olmo2",
        title="OLMo 2",
        attention=replace(
            ATTENTION,
            norm=None,
            after="post_attention_layernorm",
            shared=("self_attn.q_norm", "self_attn.k_norm"),
            whole=True,
        ),
        mlp=replace(MLP, norm=None, after="post_feedforward_layernorm"),
        notes="norms behind the blocks; attention goes whole or not at all (its q and k norms span all heads)",
    )
)
