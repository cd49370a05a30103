"""On a GPU (or where `SECATEUR_TEST_DEVICE` says): every family and method gives the CPU's scores and plans."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.eval.config import RunConfig
from secateur.pruning import pipeline
from secateur.pruning.capture.views import Level
from secateur.pruning.checkpoint import load_pruned, save_pruned
from secateur.pruning.compose import compose, options, register
from secateur.pruning.config import ModelConfig, validate
from secateur.pruning.models.loading import load
from secateur.pruning.pipeline import Pruned
from secateur.pruning.surgery import prune
from secateur.pruning.world.bundle import model_dir
from tests.pruning.commands import tokenizer
from tests.pruning.conftest import build, capture_of, text
from tests.pruning.test_surgery import plan_for

pytestmark = pytest.mark.gpu
MODELS = ["tiny_llama", "tiny_mistral", "tiny_qwen2"]
METHODS = [name for name in options("method") if name not in ("dense", "secateur_search", "taylor_iterative")]


@pytest.fixture
def accelerator(device: torch.device) -> torch.device:
    """The device, where a comparison with the CPU says anything."""
    if device.type == "cpu":
        pytest.skip("the device is the CPU, which would be compared with itself")
    return device


def cut(device: str, out: Path, model: str, method: str) -> Pruned:
    register(RunConfig)
    overrides = [
        f"model={model}", f"method={method}", "calibration=world", "taylor.seq_len=64", "taylor.num_samples=16",
        "budget.ratio=0.2", f"device={device}", f"out={out}", "model.dtype=float32",
    ]  # fmt: skip
    return pipeline.run(validate(RunConfig, compose("run", overrides)))


@pytest.mark.parametrize("level", [Level.GATE, Level.SQUARES, Level.CURVATURE])
def test_every_family_s_scores_are_those_of_float64_on_the_cpu(
    variant: str, level: Level, device: torch.device
) -> None:
    """However many samples go together: on a GPU, as many as its memory takes."""
    small: dict[str, Any] = {"intermediate_size": 24}
    samples = text(6)
    exact = capture_of(build(variant, torch.float64, **small), samples, level, [6], priors=("gate",))
    loaded = build(variant, **small)
    loaded = replace(loaded, model=loaded.model.to(device), device=device)
    found = capture_of(loaded, samples, level, [6], priors=("gate",))
    assert found.scores.keys() == exact.scores.keys()
    for key, value in exact.scores.items():
        size = float(value[value.isfinite()].abs().max())
        torch.testing.assert_close(found.scores[key], value, rtol=1e-2, atol=1e-3 * size, check_dtype=False)
    torch.testing.assert_close(found.prior_gate, exact.prior_gate, rtol=1e-3, atol=1e-4)


def test_every_family_is_cut_saved_and_loaded(variant: str, device: torch.device, tmp_path: Path) -> None:
    loaded = build(variant)
    model: Any = loaded.model.to(device)
    plan = plan_for(loaded, "no-mlp")
    prune(model, loaded.adapter, plan)
    ids = text(2).ids.to(device)
    with torch.no_grad():
        logits = model(ids).logits
        assert logits.device.type == device.type
        assert bool(logits.isfinite().all())
        again: Any = load_pruned(save_pruned(tmp_path / "model", model, tokenizer(), plan, {})).to(device)
        assert torch.equal(again.eval()(ids).logits, logits)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", [Level.GATE, Level.SQUARES])
def test_scores_equal_those_of_the_cpu(model: str, level: Level, accelerator: torch.device) -> None:
    config = ModelConfig(name=model, path=str(model_dir(model)), dtype="float32")
    samples = text(8, length=64)
    here, there = (
        capture_of(load(config, name), samples, level, [4, 8], batch_size=4)
        for name in ("cpu", str(accelerator))
    )
    assert here.scores.keys() == there.scores.keys()
    for key, value in here.scores.items():
        largest = float(value[value.isfinite()].abs().max())
        torch.testing.assert_close(there.scores[key], value, rtol=1e-3, atol=1e-6 * largest)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_plans_equal_those_of_the_cpu(
    model: str, method: str, tmp_path: Path, accelerator: torch.device
) -> None:
    here, there = (cut(name, tmp_path / name, model, method) for name in ("cpu", str(accelerator)))
    assert there.plan.layers == here.plan.layers
