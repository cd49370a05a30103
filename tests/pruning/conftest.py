"""Tiny random models of every family, and captures of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from secateur.pruning.calibration import Samples
from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.run import run_capture
from secateur.pruning.capture.views import Level
from secateur.pruning.config import CaptureConfig, TaylorConfig
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.models.adapter import adapter_for
from secateur.pruning.models.layout import read_layout
from secateur.pruning.models.loading import LoadedModel
from tests.families import TINY, classes

if TYPE_CHECKING:
    from tests.pruning.commands import Place

BASE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

VARIANTS = tuple(TINY)


def build(name: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> LoadedModel:
    """A random model of a variant; biases and norms are random too, so that nothing is trivially zero."""
    config_class, model_class, extra = classes(name)
    torch.manual_seed(seed)
    model = model_class(config_class(**{**BASE, **extra, **changes}))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "norm" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(3.0)
    model.to(dtype).eval()
    adapter = adapter_for(model.config.model_type)
    return LoadedModel(model, None, adapter, read_layout(model, adapter), "test", torch.device("cpu"), None)


def text(samples: int, length: int = 20, seed: int = 1, vocabulary: int = 61) -> Samples:
    """Random token ids without padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (samples, length), generator=generator)
    return Samples(ids, torch.full((samples,), length), "random")


def capture_of(
    loaded: LoadedModel,
    samples: Samples,
    level: Level,
    snapshots: Sequence[int],
    batch_size: int = 2,
    **options: Any,
) -> Capture:
    """Run a pass with every estimator."""
    config = CaptureConfig(**{"priors": (), **options})
    taylor = TaylorConfig(seq_len=samples.ids.shape[1], num_samples=snapshots[-1], batch_size=batch_size)
    return run_capture(loaded, samples, config, taylor, level, snapshots, list(ESTIMATORS.values()))


@pytest.fixture(params=sorted(VARIANTS))
def variant(request: pytest.FixtureRequest) -> str:
    """Each variant of each family in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> "Place":
    """A model and texts, made once for a file of tests; some files make one of another kind."""
    from tests.pruning.commands import place

    return place(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def here(shared: "Place", tmp_path: Path) -> "Place":
    """The same model and texts, with an empty folder for runs."""
    return replace(shared, folder=tmp_path)
