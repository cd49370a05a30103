"""Gemma 3, its text models: norms in front of and behind the blocks, norms on q and k, most layers slide."""

from dataclasses import replace

from secateur.pruning.models.adapter import ATTENTION, MLP, ModelAdapter, register

ADAPTER = register(
    ModelAdapter(
        model_type="gemma3_text",
        title="Gemma 3 (text)",
        attention=replace(
            ATTENTION, after="post_attention_layernorm", shared=("self_attn.q_norm", "self_attn.k_norm")
        ),
        mlp=replace(MLP, norm="pre_feedforward_layernorm", after="post_feedforward_layernorm"),
        softcap="final_logit_softcapping",
        notes="GQA, norms on both sides of a block and on q and k, sliding layers",
    )
)
