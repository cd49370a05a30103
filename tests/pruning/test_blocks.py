"""What adapters say of blocks: in a checkpoint's config, of one without it; and logits that are bent."""

import json
from pathlib import Path

import pytest
import torch

from secateur.pruning.capture.loss import next_token_loss
from secateur.pruning.checkpoint import load_pruned, save_pruned
from secateur.pruning.models.adapter import adapter_for
from secateur.pruning.models.head import Head
from secateur.pruning.models.layout import heads_of
from secateur.pruning.models.modeling_pruned import LLAMA
from secateur.pruning.surgery import prune
from tests.pruning.conftest import build
from tests.pruning.test_surgery import ids, plan_for, tokenizer


def test_a_config_that_says_nothing_of_blocks_means_llama() -> None:
    loaded = build("llama")
    assert adapter_for("llama").described(loaded.model) == LLAMA


def test_checkpoints_without_a_description_of_blocks_still_load(tmp_path: Path) -> None:
    """As they were written before there was one."""
    loaded = build("qwen3")
    plan = plan_for(loaded, "all-at-once")
    pruned = prune(loaded.model, loaded.adapter, plan)
    folder = save_pruned(tmp_path / "old", pruned, tokenizer(), plan, {})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config.pop("secateur_blocks")["attention"]["path"] == "self_attn"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with torch.no_grad():
        assert torch.equal(load_pruned(folder)(ids()).logits, pruned(ids()).logits)


def test_heads_are_those_of_the_config(variant: str) -> None:
    loaded = build(variant)
    config = loaded.model.config
    for layer in loaded.adapter.decoder_layers(loaded.model):
        heads = heads_of(layer, loaded.adapter)
        assert heads is not None
        assert heads.groups == config.num_key_value_heads
        assert heads.groups * heads.queries == config.num_attention_heads


@pytest.mark.parametrize(("factor", "softcap"), [(0.125, None), (1.0, 3.0), (2.5, 4.0)])
def test_the_chunked_loss_of_bent_logits_is_autograds(factor: float, softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 9, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    module = torch.nn.Linear(16, 31, bias=False, dtype=torch.float64)
    tokens = torch.randint(0, 31, (2, 9), generator=generator)
    head = Head(module, factor, softcap)
    _, ours = next_token_loss(head, hidden, tokens, torch.ones_like(tokens, dtype=torch.bool), 2.0)
    (slope,) = torch.autograd.grad(ours, hidden)
    logits = factor * module(hidden)[:, :-1]
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    plain = 2.0 * torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    (wanted,) = torch.autograd.grad(plain, hidden)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=0)
    torch.testing.assert_close(slope, wanted, rtol=1e-9, atol=1e-12)
