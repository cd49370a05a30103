"""Surgery against a masked dense model; checkpoints against the model in memory, also where secateur is unknown."""

import copy
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from secateur.pruning.checkpoint import load_pruned, save_pruned
from secateur.pruning.errors import ModelError, StorageError
from secateur.pruning.models.adapter import STRUCTURES, linear
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.plan import LayerPlan, PruningPlan
from secateur.pruning.surgery import prune
from tests.pruning.conftest import build

SHAPES = {
    "uneven": lambda k, f: [
        (range(1, k) if k > 1 else range(k), range(0, f, 2)),
        (range(k), range(5, f)),
        (range(0, k, 2), range(f)),
        (range(k), range(f - 1)),
    ],
    "no-attention-0": lambda k, f: [
        ((), range(40)),
        (range(k), range(f)),
        (range(max(1, k - 1)), range(f)),
        (range(k), range(8)),
    ],
    "no-mlp": lambda k, f: [
        (range(k), range(f)),
        (range(k), ()),
        (range(k), range(0, f, 3)),
        (range(k), range(f)),
    ],
    "no-layer": lambda k, f: [(range(k), range(f)), ((), ()), (range(k), range(f)), ((), ())],
    "all-at-once": lambda k, f: [
        ((), range(40)),
        ((), ()),
        (range(max(1, k - 1)), ()),
        (range(k), range(3, f)),
    ],
    "no-attention-left": lambda k, f: [((), range(f)), ((), range(3, f)), ((), range(f)), ((), range(f))],
    "no-mlp-left": lambda k, f: [(range(k), ())] * 4,
    "no-block-of-both": lambda k, f: [((), range(f)), (range(k), ())] * 2,
}


def plan_for(loaded: LoadedModel, shape: str) -> PruningPlan:
    """A plan of one of the shapes above."""
    layer = loaded.layout.layers[0]
    keep = SHAPES[shape](layer.kv_groups, layer.channels)
    layers = tuple(LayerPlan(layer.kv_groups, layer.channels, tuple(k), tuple(c)) for k, c in keep)
    return PruningPlan(layers, "test", 0, 0, loaded.layout.total_parameters, loaded.layout.decoder_parameters)


def mask_dense(loaded: LoadedModel, plan: PruningPlan) -> torch.nn.Module:
    """The dense model with the removed units' output weights set to zero."""
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for layer, keep in zip(loaded.adapter.decoder_layers(model), plan.layers, strict=True):
            for structure, kept, units in (
                ("attention", keep.kept_kv_groups, keep.kv_groups),
                ("mlp", keep.kept_channels, keep.channels),
            ):
                module = linear(layer, loaded.adapter.output(structure))
                assert module is not None
                size = module.in_features // units
                for unit in set(range(units)) - set(kept):
                    module.weight[:, unit * size : (unit + 1) * size] = 0
                if not kept and module.bias is not None:
                    module.bias.zero_()
    return model


def ids(batch: int = 2, length: int = 24) -> torch.Tensor:
    return torch.randint(3, 61, (batch, length), generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=sorted(SHAPES))
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_equals_the_masked_dense_model(variant: str, shape: str) -> None:
    loaded = build(variant)
    plan = plan_for(loaded, shape)
    masked = mask_dense(loaded, plan)
    pruned = prune(loaded.model, loaded.adapter, plan)
    with torch.no_grad():
        torch.testing.assert_close(pruned(ids()).logits, masked(ids()).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cache_generation_and_left_padding_work(variant: str, shape: str, attention: str) -> None:
    loaded = build(variant)
    plan = plan_for(loaded, shape)
    masked = mask_dense(loaded, plan)
    pruned = prune(loaded.model, loaded.adapter, plan)
    only = loaded.adapter.implementation
    if only not in (None, attention):
        pytest.skip(f"Transformers has no {attention} attention for {variant}")
    for model in (pruned, masked):
        model.set_attn_implementation(attention)
    prompt = ids()
    mask = torch.ones_like(prompt)
    mask[0, :5] = 0
    options = {"attention_mask": mask, "max_new_tokens": 16, "do_sample": False, "eos_token_id": None}
    expected = masked.generate(prompt, **options)
    assert torch.equal(pruned.generate(prompt, **options), expected)
    assert torch.equal(pruned.generate(prompt, **options, use_cache=False), expected)
    with torch.no_grad():
        whole = pruned(prompt, use_cache=False).logits
        start = pruned(prompt[:, :-1], use_cache=True)
        step = pruned(prompt[:, -1:], past_key_values=start.past_key_values)
    torch.testing.assert_close(step.logits[:, -1], whole[:, -1], rtol=1e-4, atol=1e-5)


def test_removed_blocks_do_no_work() -> None:
    loaded = build("llama")
    plan = plan_for(loaded, "all-at-once")
    pruned = prune(loaded.model, loaded.adapter, plan)
    layers = loaded.adapter.decoder_layers(pruned)
    assert len(layers) == 3
    assert not hasattr(layers[0], "self_attn")
    assert not hasattr(layers[0], "input_layernorm")
    assert not hasattr(layers[1], "mlp")
    names = []
    for name, module in pruned.named_modules():
        module.register_forward_hook(lambda *_, name=name: names.append(name))
    pruned(ids(), use_cache=True)
    assert not [
        n
        for n in names
        if n.startswith(("model.layers.0.self", "model.layers.0.input", "model.layers.1.mlp"))
    ]


def test_ratio_zero_changes_no_bit(variant: str) -> None:
    loaded = build(variant)
    before = {n: p.clone() for n, p in loaded.model.state_dict().items()}
    layer = loaded.layout.layers[0]
    keep = LayerPlan(
        layer.kv_groups, layer.channels, tuple(range(layer.kv_groups)), tuple(range(layer.channels))
    )
    plan = PruningPlan((keep,) * 4, "test", 0, 0, 0, 0)
    prune(loaded.model, loaded.adapter, plan)
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_a_pruned_model_can_be_pruned_again() -> None:
    from secateur.pruning.models.layout import read_layout

    loaded = build("qwen3")
    plan = plan_for(loaded, "no-mlp")
    masked = mask_dense(loaded, plan)
    prune(loaded.model, loaded.adapter, plan)
    layout = read_layout(loaded.model, loaded.adapter)
    again = PruningPlan(
        tuple(
            LayerPlan(x.kv_groups, x.channels, tuple(range(1, x.kv_groups)), tuple(range(x.channels)))
            for x in layout.layers
        ),
        "test",
        0,
        0,
        layout.total_parameters,
        layout.decoder_parameters,
    )
    prune(loaded.model, loaded.adapter, again)
    with torch.no_grad():
        for layer in loaded.adapter.decoder_layers(masked):
            output = linear(layer, loaded.adapter.output("attention"))
            assert output is not None
            output.weight[:, : output.in_features // 4] = 0
        torch.testing.assert_close(loaded.model(ids()).logits, masked(ids()).logits, rtol=1e-4, atol=1e-5)


def test_a_plan_for_another_model_is_refused() -> None:
    loaded = build("llama")
    with pytest.raises(ModelError, match="the plan was made for"):
        prune(loaded.model, loaded.adapter, plan_for(build("llama", intermediate_size=64), "uneven"))


def test_plan_survives_its_file(tmp_path: Path) -> None:
    plan = plan_for(build("llama"), "all-at-once")
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan
    (tmp_path / "plan.json").write_text('{"schema_version": 1, "layers": [')
    with pytest.raises(StorageError, match="is damaged"):
        PruningPlan.load(tmp_path / "plan.json")


def test_gradient_checkpointing_and_training_work_after_surgery(variant: str) -> None:
    loaded = build(variant)
    pruned = prune(loaded.model, loaded.adapter, plan_for(loaded, "all-at-once"))
    pruned.train()
    plain = torch.autograd.grad(pruned(ids(), labels=ids()).loss, list(pruned.parameters()))
    pruned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    saved = torch.autograd.grad(pruned(ids(), labels=ids(), use_cache=False).loss, list(pruned.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(plain, saved, strict=True))


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the tiny models' vocabulary."""
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(61)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="w1", eos_token="w2", pad_token="w0")


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    loaded = build("llama")
    plan = plan_for(loaded, "uneven")
    pruned = prune(loaded.model, loaded.adapter, plan)
    folder = save_pruned(tmp_path / "model", pruned, tokenizer(), plan, {})
    with pytest.raises(StorageError, match="exists already"):
        save_pruned(folder, pruned, tokenizer(), plan, {})
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        load_pruned(folder)
    weights.unlink()
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        load_pruned(folder)


def test_peft_adapters_train_on_a_pruned_model() -> None:
    peft = pytest.importorskip("peft")
    loaded = build("llama")
    pruned = prune(loaded.model, loaded.adapter, plan_for(loaded, "uneven"))
    model = peft.get_peft_model(pruned, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    model(ids(), labels=ids()).loss.backward()
    assert any(p.grad is not None for n, p in model.named_parameters() if "lora" in n)


def test_every_structure_is_covered_by_the_adapters() -> None:
    loaded = build("qwen2")
    assert all(loaded.adapter.output(s).axis == 1 for s in STRUCTURES)
