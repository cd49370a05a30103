"""Every family from a folder to a folder: loaded and proved, pruned by three methods, saved, loaded again, measured."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.hflm import StoredHFLM
from secateur.pruning.checkpoint import load_pruned
from secateur.pruning.compensation.refit import cut_and_refit
from secateur.pruning.config import ModelConfig
from secateur.pruning.config_method import CompensationConfig
from secateur.pruning.errors import ModelError
from secateur.pruning.models.adapter import ATTENTION, Block
from secateur.pruning.models.layout import check_modules
from secateur.pruning.models.loading import load
from secateur.pruning.models.proof import prove
from secateur.pruning.plan import LayerPlan, PruningPlan
from tests.eval.conftest import make_tokenizer
from tests.families import FAMILIES
from tests.pruning.commands import WORDS, call, place
from tests.pruning.conftest import build, text

METHODS = ("taylor", "blockwise", "secateur")
PAIRS = [(f"{a} w9 {b}", f" {b} {c}") for a, b, c in zip(WORDS[:12], WORDS[12:24], WORDS[24:36], strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_the_whole_way(family: str, tmp_path: Path) -> None:
    here, tokenizer = place(tmp_path, family, vocab_size=320, pad_token_id=None), make_tokenizer()
    tokenizer.save_pretrained(here.model)
    for method in METHODS:
        done = call("run", *here.arguments(f"method={method}", "budget.ratio=0.2", "save_model=true"))
        assert done.code == 0, done.err
    folders = sorted(here.out.glob("*/model"))
    assert len(folders) == len(METHODS)
    ids = torch.arange(4, 24)[None]
    for folder in folders:
        with torch.no_grad():
            logits = load(ModelConfig(path=str(folder), dtype="float32"), "cpu").model(ids).logits
            model = load_pruned(folder)
            assert torch.equal(model(ids).logits, logits)
        dense = build(family, vocab_size=320).layout.total_parameters
        assert sum(p.numel() for p in model.parameters()) <= 0.81 * dense
        fast, slow = FastLM(model, tokenizer), StoredHFLM(model, tokenizer)
        found, expected = score_pairs(fast, PAIRS), score_pairs(slow, PAIRS)
        assert fast.used == "fast"
        assert [flag for _, flag in found] == [flag for _, flag in expected]
        assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_an_adapter_leaves_out_is_noticed(family: str) -> None:
    """Without its norms behind blocks, its factors or its caps, a family's adapter is no longer its model's."""
    loaded = build(family)
    plain = replace(
        loaded.adapter,
        attention=replace(loaded.adapter.attention, after=None, scale=None),
        mlp=replace(loaded.adapter.mlp, after=None, scale=None),
        embedding_factor=None, logit_divisor=None, softcap=None,
    )  # fmt: skip
    if plain == replace(loaded.adapter, softcap=None):  # nothing was left out
        prove(loaded.model, plain, loaded.layout)
        return
    with pytest.raises(ModelError, match=re.escape(f"family {loaded.adapter.title}")):
        prove(loaded.model, plain, loaded.layout)


def test_parameters_that_nobody_names_are_refused() -> None:
    """StableLM with a norm per head: a head that goes would leave its norm behind."""
    loaded = build("stablelm", qk_layernorm=True)
    with pytest.raises(ModelError, match=r"layer 0 has self_attn\.q_layernorm"):
        check_modules(loaded.model, loaded.adapter)
    unnamed = replace(build("qwen3").adapter, attention=ATTENTION)
    with pytest.raises(ModelError, match=r"layer 0 has self_attn\.q_norm\.weight"):
        check_modules(build("qwen3").model, unnamed)


def test_a_refit_counts_the_factor_of_what_a_block_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Granite: MLPs undo what the cut heads lost; by the right factor they come closest to the dense stream."""

    def distance(target: float) -> float:
        loaded, tokens = build("granite", torch.float64), text(16, 30).ids
        with torch.no_grad():
            dense = loaded.adapter.decoder(loaded.model)(tokens).last_hidden_state
            keep = tuple(LayerPlan(4, 48, (0, 1, 2, 3) if i else (0,), tuple(range(48))) for i in range(4))
            config = CompensationConfig(kind="least_squares", target=target, ridge=(1e-9,))
            cut_and_refit(loaded, PruningPlan(keep, "test", 1, 1, 100, 100), tokens, config)
            return float(
                (loaded.adapter.decoder(loaded.model)(tokens).last_hidden_state - dense).square().mean()
            )

    own, right = distance(0.0), distance(1.0)
    monkeypatch.setattr(Block, "factor", lambda self, layer: 1.0)
    assert right < distance(1.0) < own
