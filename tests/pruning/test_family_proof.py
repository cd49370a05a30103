"""A family whose model computes otherwise than its adapter says is refused, whatever the difference."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from secateur.pruning.errors import ModelError
from secateur.pruning.models.adapter import ATTENTION, MLP, ModelAdapter
from secateur.pruning.models.layout import check_modules, read_layout
from secateur.pruning.models.proof import prove
from secateur.pruning.surgery import prune
from tests.pruning.conftest import BASE, build
from tests.pruning.test_surgery import plan_for

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
FAR = {"num_hidden_layers": 2}


def stock(name: str, **changes: Any) -> Any:
    """A random model of a stock class, with the sizes of the other tests."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**BASE, **FAR, **changes})
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def verdict(model: Any, **adapter: Any) -> str:
    """What a family written as docs/adding_a_model.md says is refused for; empty where it is accepted."""
    written = ModelAdapter(model_type=model.config.model_type, title="Written", **adapter)
    try:
        check_modules(model, written)
        prove(model, written, read_layout(model, written))
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_family_proves_itself(variant: str, dtype: torch.dtype) -> None:
    loaded = build(variant, dtype)
    prove(loaded.model, loaded.adapter, loaded.layout)


def test_pruned_models_with_blocks_gone_prove_themselves(variant: str) -> None:
    loaded = build(variant)
    prune(loaded.model, loaded.adapter, plan_for(loaded, "all-at-once"))
    prove(loaded.model, loaded.adapter, read_layout(loaded.model, loaded.adapter))


def test_massive_activations_hide_nothing_in_half_precision() -> None:
    """One feature a thousand times the others: a factor on the residual stream still shows in the others."""
    model = stock("Granite", residual_multiplier=0.22, logits_scaling=1.0, embedding_multiplier=1.0)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 3000.0
    assert "layer 0" in verdict(model.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("Granite", {"residual_multiplier": 0.5}, "layer 0"),
        ("Granite", {"logits_scaling": 8.0}, "logits are not its head's"),
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": None}, "layer 0"),
        ("Gemma", {"head_dim": 8}, ""),
        ("Granite", {}, ""),
    ],
)
def test_families_of_the_field_are_right_or_refused(name: str, changes: dict[str, Any], says: str) -> None:
    found = verdict(stock(name, **changes))
    assert (says in found and "docs/adding_a_model.md" in found) if says else found == ""


def test_norms_behind_the_blocks_are_refused() -> None:
    found = verdict(
        stock("Olmo2"),
        attention=replace(
            ATTENTION, norm="post_attention_layernorm", shared=("self_attn.q_norm", "self_attn.k_norm")
        ),
        mlp=replace(MLP, norm="post_feedforward_layernorm"),
    )
    assert "layer 0 does not feed its attention" in found


def test_parallel_blocks_are_refused() -> None:
    """Both blocks read the layer's input: the second one is not fed with what the first one left."""
    model = stock("Llama")
    layer = model.model.layers[0]

    def parallel(hidden_states: torch.Tensor, **rest: Any) -> torch.Tensor:
        attended = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **rest)[0]
        return hidden_states + attended + layer.mlp(layer.post_attention_layernorm(hidden_states))

    layer.forward = parallel
    assert "layer 0 does not feed its mlp" in verdict(model)


def shuffle(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A pre-hook: the features of a module's input in another order."""
    order = torch.randperm(inputs[0].shape[-1], generator=torch.Generator().manual_seed(0))
    return (inputs[0][..., order],)


@pytest.mark.parametrize(("path", "structure"), [("self_attn.o_proj", "attention"), ("mlp.down_proj", "mlp")])
def test_units_that_are_no_runs_of_features_are_refused(path: str, structure: str) -> None:
    """Whatever shuffles features in front of the output projection breaks what a unit is."""
    model = stock("Llama")
    model.model.layers[1].get_submodule(path).register_forward_pre_hook(shuffle)
    assert f"units of layer 1, {structure}" in verdict(model)


def test_the_proof_leaves_no_hooks_and_no_gradients() -> None:
    loaded = build("llama")
    prove(loaded.model, loaded.adapter, loaded.layout)
    for module in loaded.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
