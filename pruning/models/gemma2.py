"""Gemma 2: norms in front of and behind the blocks, every other layer slides, scores and logits are soft-capped."""

from dataclasses import replace

from secateur.pruning.models.adapter import ATTENTION, MLP, ModelAdapter, register

ADAPTER = register(
    ModelAdapter(
        model_type="gemma2",
        title="Gemma 2",
        attention=replace(ATTENTION, after="post_attention_layernorm"),
        mlp=replace(MLP, norm="pre_feedforward_layernorm", after="post_feedforward_layernorm"),
        softcap="final_logit_softcapping",
        implementation="eager",
        notes="GQA, norms on both sides of a block, soft caps (attention is always eager), sliding layers",
    )
)
