"""The Python API: the command's plans and bits, and nothing left behind."""

import copy
import doctest
import importlib
import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

import secateur
from secateur.eval.record import read_record
from secateur.pruning.errors import SecateurError
from secateur.pruning.plan import PruningPlan
from secateur.pruning.world.bundle import model_dir
from tests.pruning.commands import call, place

SHIPPED = ("tiny_llama", "tiny_mistral", "tiny_qwen2")
SMALL: dict[str, Any] = {"taylor": {"num_samples": 8, "seq_len": 32}}
TEXTS = [
    f"the gardener waters the {word} and the cat sleeps under it every day" for word in ("rose", "oak") * 40
]


def shipped(name: str) -> Any:
    """A shipped model as a user loads it."""
    return AutoModelForCausalLM.from_pretrained(model_dir(name), dtype=torch.float32)


@pytest.fixture(scope="module")
def llama() -> Any:
    return shipped("tiny_llama")


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    inside = sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
    return inside + sum(
        len(getattr(p, kind, None) or ())
        for p in model.parameters()
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks")
    )


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("tiny_llama", "taylor", {}),
        ("tiny_mistral", "blockwise", {"guard.round_to": 4}),
        ("tiny_qwen2", "secateur", {}),
        ("tiny_llama", "taylor_refit", {"method.schedule.kind": "iterative", "method.schedule.steps": 2}),
    ],
)
def test_a_model_in_memory_gives_the_plan_and_the_bits_of_the_command(
    name: str, method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    words = [f"{key}={value}" for key, value in options.items()]
    done = call(
        "run", f"model={name}", f"method={method}", "eval=none", "device=cpu", "budget.ratio=0.25", "calibration=world",
        "taylor.num_samples=8", "taylor.seq_len=32", "save_model=true", "seed=3", f"out={tmp_path}", *words,
    )  # fmt: skip
    assert done.code == 0, done.err
    (folder,) = [path.parent for path in tmp_path.glob("*/record.json")]
    model = shipped(name)
    before = state(model)
    found = secateur.prune(model, method, ratio=0.25, calibration="world", seed=3, **SMALL, **options)
    assert found.plan.layers == PruningPlan.load(folder / "plan.json").layers
    saved = found.save(tmp_path / "mine")
    assert same(load_file(saved / "model.safetensors"), load_file(folder / "model" / "model.safetensors"))
    assert same(state(model), before)
    assert hooks(model) == hooks(found.model) == 0
    record = read_record(folder)
    assert found.record["parameters"] == record.parameters.model_dump()  # type: ignore[union-attr]
    assert found.record["layers"] == json.loads(record.model_dump_json())["layers"]
    again = secateur.load(saved, device="cpu")
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, found.model(ids).logits)


def process() -> dict[str, Any]:
    """What belongs to the whole process."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    return {
        "random": random.getstate(), "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "threads": torch.get_num_threads(), "dtype": torch.get_default_dtype(), "environment": dict(os.environ),
        "handlers": list(logging.getLogger().handlers), "level": logging.getLogger().level,
        "grad": torch.is_grad_enabled(), "hydra": GlobalHydra.instance().hydra,
        "schema": id(ConfigStore.instance().repo.get("schema.yaml")),
    }  # fmt: skip


def test_calls_leave_nothing_behind_and_do_not_influence_each_other(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secateur.prune(llama, "magnitude")
    before, weights = process(), state(llama)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            first = secateur.prune(llama, "taylor_gate", calibration=TEXTS, **SMALL)
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    secateur.prune(llama, "random", ratio=0.4, seed=5)
    second = secateur.prune(llama, "taylor_gate", calibration=TEXTS, **SMALL)
    assert process() == before
    assert first.plan == second.plan
    assert same(state(first.model), state(second.model))
    assert same(state(llama), weights)
    assert hooks(llama) == 0
    assert all(p.grad is None and p.requires_grad for p in llama.parameters())
    assert not list(tmp_path.iterdir()), "nothing is written where the caller stands"


def failing(view: Any) -> torch.Tensor:
    """An estimator that breaks in the middle of a pass."""
    if view.layer == 1:
        raise RuntimeError("half-way")
    return view.weight.double().abs().sum(1 - view.projection.axis).reshape(view.units, -1).sum(1)


@pytest.mark.parametrize("level", ["weights", "gradients"])
def test_an_exception_half_way_leaves_the_model_as_it_was(
    level: str, llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(llama).train()
    before, found, kind = state(model), process(), type(model)
    monkeypatch.setattr(failing, "level", level, raising=False)
    with pytest.raises(RuntimeError, match="half-way"):
        secateur.prune(model, failing, calibration=TEXTS, inplace=True, **SMALL)
    assert same(state(model), before)
    assert process() == found
    assert model.training
    assert type(model) is kind
    assert hooks(model) == 0
    assert secateur.prune(model, "magnitude").plan.removed > 0, "and the function is in no table"


def test_in_place_the_given_object_becomes_the_pruned_model(llama: Any) -> None:
    model = copy.deepcopy(llama).train()
    found = secateur.prune(model, "magnitude", ratio=0.3, inplace=True)
    assert found.model is model
    assert model.training
    assert sum(p.numel() for p in model.parameters()) == found.plan.total_parameters - found.plan.removed
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        assert torch.equal(
            model.eval()(ids).logits, secateur.prune(llama, "magnitude", ratio=0.3).model(ids).logits
        )


def magnitudes(view: Any) -> torch.Tensor:
    from secateur.pruning.importance.magnitude import score

    return score(view)


magnitudes.level = "weights"  # type: ignore[attr-defined]


def test_a_function_of_ones_own_is_an_estimator(llama: Any) -> None:
    assert secateur.prune(llama, magnitudes).plan.layers == secateur.prune(llama, "magnitude").plan.layers


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (lambda view: torch.ones(1, dtype=torch.float64), "must give torch.float64 ["),
        (lambda view: torch.ones(view.units), "gives torch.float32"),
        (17, "a int is no method"),
    ],
)
def test_an_estimator_is_held_to_its_contract(score: Any, says: str, llama: Any) -> None:
    with pytest.raises(SecateurError) as caught:
        secateur.prune(llama, score, calibration=TEXTS, **SMALL)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_steps_one_by_one_are_the_whole(llama: Any) -> None:
    loaded = secateur.load(llama)
    whole = secateur.prune(loaded, "blockwise", ratio=0.3, calibration=TEXTS, **SMALL)
    capture = secateur.capture(loaded, TEXTS, "blockwise", **SMALL)
    scores = secateur.scores(loaded, capture, "blockwise", **SMALL)
    plan = secateur.plan(loaded, scores, ratio=0.3, method="blockwise")
    assert plan.layers == whole.plan.layers
    assert same(state(secateur.cut(loaded, plan)), state(whole.model))
    with pytest.raises(SecateurError, match="needs a capture"):
        secateur.scores(loaded, None, "taylor")
    with pytest.raises(SecateurError, match="reads no text"):
        secateur.capture(loaded, TEXTS, "magnitude")


def test_evaluate_measures_what_the_command_measures(tmp_path: Path) -> None:
    limits = {"eval.limit": 6, "eval.ppl.max_tokens": 900}
    words = [f"{key}={value}" for key, value in limits.items()]
    done = call(
        "run", "model=tiny_mistral", "method=magnitude", "device=cpu", "eval.tasks=[piqa,boolq]", "eval.baseline=false",
        f"out={tmp_path}/runs", *words,
    )  # fmt: skip
    assert done.code == 0, done.err
    (record,) = [read_record(path.parent) for path in tmp_path.glob("runs/*/record.json")]
    found = secateur.prune("tiny_mistral", "magnitude", device="cpu").evaluate(
        tasks=["piqa", "boolq"], ppl="world@128", **limits
    )
    assert found["value"].to_dict() == {name: metric.value for name, metric in record.metrics.items()}
    frame = secateur.runs(tmp_path / "runs")
    assert len(frame) == 1
    assert secateur.report(tmp_path / "runs", tmp_path / "report", plots=False).is_file()
    with pytest.raises(SecateurError, match="nothing to measure"):
        secateur.evaluate(shipped("tiny_llama"))


def test_a_pruned_model_shows_its_widths(llama: Any) -> None:
    from xml.etree import ElementTree

    found = secateur.prune(llama, "magnitude", ratio=0.3)
    page = found._repr_html_()
    drawing = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    titles = [item.text for item in drawing.iter() if item.tag.endswith("title")]
    assert len(titles) == 2 * len(found.plan.layers)
    assert (
        f"layer 0: {len(found.plan.layers[0].kept_channels)} of {found.plan.layers[0].channels} channels"
        in titles
    )
    kept = [len(layer.kept_channels) for layer in found.plan.layers]
    assert found.statistics["kept_channels"].tolist() == kept


@pytest.mark.parametrize("name", SHIPPED)
def test_fast_lm_through_simple_evaluate_gives_the_numbers_of_hflm(name: str) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from secateur.eval.config import EvalConfig
    from secateur.eval.tasks import load_tasks

    loaded = secateur.load(name, device="cpu")
    found: list[dict[str, Any]] = []
    known = TaskManager(include_defaults=False)
    for lm in (
        secateur.FastLM(model=loaded.model, tokenizer=loaded.tokenizer),
        HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=8),
    ):
        tasks = load_tasks(EvalConfig(tasks=("piqa", "arc_easy"), data_dir="bundled"))
        done: Any = lm_eval.simple_evaluate(
            model=lm, tasks=list(tasks.values()), limit=12, bootstrap_iters=0, task_manager=known
        )
        found.append(
            {
                task: {k: v for k, v in row.items() if k.startswith("acc")}
                for task, row in done["results"].items()
            }
        )
    assert found[0] == found[1]
    assert found[0]["piqa"]


@pytest.mark.parametrize("name", ["api", "api_config", "api_steps"])
def test_the_examples_of_the_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"secateur.{name}"), verbose=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_examples_of_the_page(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(
        str(root / "docs" / "api.md"), module_relative=False, optionflags=flags, verbose=False
    )
    assert result.attempted > 10
    assert result.failed == 0


def test_a_place_of_ones_own_is_pruned_by_its_folder(tmp_path: Path) -> None:
    here = place(tmp_path)
    found = secateur.prune(
        here.model, "taylor", calibration=here.text, taylor={"num_samples": 4, "seq_len": 8}, device="cpu"
    )
    assert found.plan.removed > 0
    assert found.evaluate(ppl=here.held_out, eval={"ppl": {"window": 16}})["value"].notna().all()
