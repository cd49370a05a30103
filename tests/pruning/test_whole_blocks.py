"""Models that lose every block of a kind, or gain biases in some layers: cut, saved, reloaded, measured, cut again."""

import copy
import io
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from secateur.eval.config import RunConfig
from secateur.pruning import pipeline
from secateur.pruning.allocation import make_plan
from secateur.pruning.checkpoint import load_pruned, save_pruned
from secateur.pruning.compose import compose, register
from secateur.pruning.config import BudgetConfig, GuardConfig, MethodConfig, validate
from secateur.pruning.diagnosis import LABELS
from secateur.pruning.errors import BudgetError
from secateur.pruning.models.adapter import Structure, linear
from secateur.pruning.models.layout import Layout
from secateur.pruning.models.modeling_pruned import get_geometry, set_geometry
from secateur.pruning.surgery import prune
from tests.pruning.commands import Place, call, documents, only_record, records, save_model, write_jsonl
from tests.pruning.conftest import VARIANTS, build
from tests.pruning.test_budget import random_scores
from tests.pruning.test_surgery import ids, plan_for, tokenizer

METHODS = {
    "taylor": (),
    "magnitude": (),
    "flap": (),
    "taylor_refit": (),
    "surgeon": ("method=secateur", "method.schedule.step=0.2"),
    "taylor_iterative": ("method.schedule.step=0.2",),
    "search": ("method=taylor_gate", "method.search.kind=exchange", "method.search.forwards=3",
               "method.search.num_samples=4"),
}  # fmt: skip


def everything(layout: Layout, structure: Structure, biases: bool) -> float:
    """The budget.ratio at which every block of a structure goes; `biases` come to what is left."""
    amount = sum(x.units(structure) * x.cost(structure) + x.fixed(structure) for x in layout.layers)
    gained = sum(x.gain("attention") + x.gain("mlp") for x in layout.layers) if biases else 0
    return (amount - gained) / layout.total_parameters


def same_outputs(one: Any, two: Any) -> bool:
    """Whether two models give the same bits: logits and text."""
    with torch.no_grad():
        options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
        return torch.equal(one(ids()).logits, two(ids()).logits) and torch.equal(
            one.generate(ids(), **options), two.generate(ids(), **options)
        )


@pytest.mark.parametrize("structure", ["attention", "mlp"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_can_take_all_blocks_of_a_kind(here: Place, method: str, structure: Any) -> None:
    """The run ends with a record and a checkpoint, which is measured alike from disk and can be cut again."""
    ratio = everything(build("llama").layout, structure, method == "flap")
    more = METHODS[method] or (f"method={method}",)
    if method == "taylor_iterative":
        more = (f"method={method}", *more)
    outcome = call(
        "run", *here.arguments(*more, *here.perplexity(), f"method.structures={structure}",
        f"budget.ratio={ratio!r}", "save_model=true"),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    record = only_record(here.out)
    kept = "kept_kv_groups" if structure == "attention" else "kept_channels"
    assert [layer[kept] for layer in record["layers"]] == [0] * 4
    assert any(f"no layer keeps its {LABELS[structure]}" in sentence for sentence in record["diagnosis"])
    folder = here.out / record["run_id"] / "model"
    perplexity = next(m["value"] for m in record["metrics"].values() if m["unit"] == "perplexity")
    out = here.folder / "again"
    outcome = call("eval", f"checkpoint={folder}", *here.perplexity(), f"out={out}", "device=cpu")
    assert outcome.code == 0, outcome.err
    again = load_pruned(folder)
    assert sum(p.numel() for p in again.parameters()) == record["parameters"]["after"]
    (measured,) = records(out)
    assert next(m["value"] for m in measured["metrics"].values()) == pytest.approx(perplexity, rel=1e-12)
    other = "mlp" if structure == "attention" else "attention"
    outcome = call(
        "run", *here.arguments(f"model.path={folder}", "method=taylor", f"method.structures={other}",
        "budget.ratio=0.2", f"out={here.folder / 'second'}"),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err


def test_a_plan_that_removes_every_layer_is_refused() -> None:
    layout = build("llama").layout
    method, budget = MethodConfig(), BudgetConfig(ratio=1 - 1e-12, of="decoder")
    with pytest.raises(BudgetError, match=r"leaves no layer.*budget.ratio"):
        make_plan(random_scores(layout), layout, method, budget, GuardConfig(), "test")


# --- biases that only some layers have


FLAP = ("method=flap", "taylor.seq_len=16", "taylor.num_samples=8", "taylor.batch_size=2", "eval=none")


def flap(model: Path, text: Path, out: Path, *more: str) -> pipeline.Pruned:
    """Prune with biases as compensation, in memory."""
    register(RunConfig)
    words = ["model=local", f"model.path={model}", "calibration=text_file", f"calibration.path={text}",
             "device=cpu", f"out={out}", *FLAP, *more]  # fmt: skip
    return pipeline.run(validate(RunConfig, compose("run", words)))


FLAPPED = [(name, {}, "both") for name in sorted(VARIANTS)] + [
    ("llama", biases, structures)
    for structures in ("both", "attention", "mlp")
    for biases in (
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True},
    )
]


@pytest.mark.parametrize(("name", "biases", "structures"), FLAPPED)
def test_flap_is_saved_reloaded_and_cut_again(
    name: str, biases: dict[str, bool], structures: str, tmp_path: Path
) -> None:
    """For every family, and biases of its own in none, one or both blocks; twice over, by both ways to load."""
    model = save_model(tmp_path / "net", name, **biases)
    text = write_jsonl(tmp_path / "text.jsonl", documents(300))  # Qwen2's tokenizer makes one token of each
    ratio = 0.45 if structures == "both" else 0.2
    for number in (1, 2):
        options = (f"method.structures={structures}", f"budget.ratio={ratio if number == 1 else 0.05}")
        found = flap(model, text, tmp_path / "runs", *options)
        pruned: Any = found.loaded.model
        model = save_pruned(tmp_path / f"cut-{number}", pruned, tokenizer(), found.plan, {})
        ours = load_pruned(model)
        assert same_outputs(pruned, ours)
        assert get_geometry(ours.config) == get_geometry(pruned.config)
        stock = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=True)
        assert same_outputs(pruned, stock)
        trained = [{n: p.requires_grad for n, p in m.named_parameters()} for m in (pruned, ours, stock)]
        assert trained[0] == trained[1] == trained[2]
        assert all(trained[0].values())


def test_any_key_may_be_in_some_layers_only(variant: str) -> None:
    """Transformers asks for a global value of every key of `per_layer_config`."""
    config: Any = build(variant).model.config
    geometry = {0: {"intermediate_size": 7, "odd": ["x"], "skip": ["attention"]}, 2: {"count": 3}}
    set_geometry(config, geometry)
    assert get_geometry(type(config)(**config.to_dict())) == geometry


# --- pickle, copies, other processes


def pickled(model: Any) -> Any:
    """A model through `torch.save` and back."""
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def logits_elsewhere(model: Any) -> torch.Tensor:
    """What a model computes in a process that was started afresh."""
    torch.set_num_threads(1)
    with torch.no_grad():
        return model(ids()).logits


@pytest.mark.parametrize("shape", ["all-at-once", "no-attention-left", "no-mlp-left", "uneven"])
def test_pruned_models_can_be_pickled_and_copied(variant: str, shape: str, tmp_path: Path) -> None:
    loaded = build(variant)
    plan = plan_for(loaded, shape)
    pruned = prune(loaded.model, loaded.adapter, plan)
    reloaded = load_pruned(save_pruned(tmp_path / "model", pruned, tokenizer(), plan, {}))
    for model in (pruned, reloaded):
        for twin in (pickled(model), copy.deepcopy(model), pickled(copy.deepcopy(model))):
            assert type(twin) is type(model)
            assert same_outputs(model, twin)
            assert twin.state_dict().keys() == model.state_dict().keys()


def test_a_model_after_a_run_reaches_another_process(shared: Place, tmp_path: Path) -> None:
    """No hook or attribute of the capture is left: spawned workers get the model and compute the same."""
    layout = build("llama").layout
    ratio = everything(layout, "attention", biases=True)
    options = ("method.structures=attention", f"budget.ratio={ratio!r}", "capture.estimators=all")
    found = flap(shared.model, shared.text, tmp_path, *options)
    model: Any = found.loaded.model
    for module in model.modules():
        hooks = [value for name, value in vars(module).items() if name.endswith("hooks") and value]
        assert hooks == []
    reloaded = load_pruned(save_pruned(tmp_path / "model", model, tokenizer(), found.plan, {}))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for twin in (model, reloaded):
            assert torch.equal(pool.apply(logits_elsewhere, (twin,)), logits_elsewhere(twin))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_model_without_attention_survives_a_second_family_of_cuts(name: str, tmp_path: Path) -> None:
    """Cut to no attention, saved, loaded, cut to fewer channels: still the masked model's numbers."""
    from secateur.pruning.models.layout import read_layout
    from secateur.pruning.plan import LayerPlan, PruningPlan

    loaded = build(name)
    plan = plan_for(loaded, "no-attention-left")
    prune(loaded.model, loaded.adapter, plan)
    again = load_pruned(save_pruned(tmp_path / "model", loaded.model, tokenizer(), plan, {}))
    layout = read_layout(again, loaded.adapter)
    layers = tuple(LayerPlan(0, x.channels, (), tuple(range(1, x.channels))) for x in layout.layers)
    with torch.no_grad():
        for layer in loaded.adapter.decoder_layers(loaded.model):
            output = linear(layer, loaded.adapter.output("mlp"))
            assert output is not None
            output.weight[:, 0] = 0
    prune(again, loaded.adapter, PruningPlan(layers, "test", 1, 1, layout.total_parameters, 1))
    with torch.no_grad():
        torch.testing.assert_close(again(ids()).logits, loaded.model(ids()).logits, rtol=1e-4, atol=1e-5)
