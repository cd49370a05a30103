"""On a GPU: scores and plans are those of the CPU."""

from pathlib import Path

import pytest
import torch

from eval.config import RunConfig
from pruning import pipeline
from pruning.capture.views import Level
from pruning.compose import compose, register
from pruning.config import ModelConfig, validate
from pruning.models.loading import load
from pruning.pipeline import Pruned
from pruning.world.bundle import model_dir
from tests.pruning.conftest import capture_of, text

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MODELS = ["tiny_llama", "tiny_mistral", "tiny_qwen2"]


def cut(device: str, out: Path, model: str, estimator: str) -> Pruned:
    register(RunConfig)
    overrides = [
        f"model={model}", f"method={estimator}", "calibration=world", "taylor.seq_len=64", "taylor.num_samples=16",
        "budget.ratio=0.2", f"device={device}", f"out={out}",
    ]  # fmt: skip
    return pipeline.run(validate(RunConfig, compose("run", overrides)))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", [Level.GATE, Level.SQUARES])
def test_scores_equal_those_of_the_cpu(model: str, level: Level) -> None:
    config = ModelConfig(name=model, path=str(model_dir(model)), dtype="float32")
    samples = text(8, length=64)
    here, there = (
        capture_of(load(config, device), samples, level, [4, 8], batch_size=4) for device in ("cpu", "cuda")
    )
    assert here.scores.keys() == there.scores.keys()
    for key, value in here.scores.items():
        largest = float(value[value.isfinite()].abs().max())
        torch.testing.assert_close(there.scores[key], value, rtol=1e-3, atol=1e-6 * largest)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("estimator", ["taylor", "taylor_gate"])
def test_plans_equal_those_of_the_cpu(model: str, estimator: str, tmp_path: Path) -> None:
    here, there = (cut(device, tmp_path / device, model, estimator) for device in ("cpu", "cuda"))
    assert there.plan.layers == here.plan.layers
