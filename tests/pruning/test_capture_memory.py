"""A calibration pass that runs out of memory says what would help, and leaves the model as it was."""

from typing import Any

import pytest
import torch

from secateur.pruning.capture.views import Level
from secateur.pruning.errors import MemoryLimitError
from tests.pruning.conftest import build, capture_of, text


def greedy(*_: Any) -> None:
    """A real refusal by the allocator."""
    torch.empty(2**55)


@pytest.mark.parametrize(
    ("level", "options", "named", "not_named"),
    [
        (Level.GRADIENTS, {}, ["capture.segments=2", "gradient_checkpointing=true", "offload=true"], []),
        (Level.SQUARES, {"segments": 3, "offload": True}, ["capture.segments=4"], ["offload=true"]),
        (Level.CURVATURE, {"segments": 4}, ["offload=true"], ["capture.segments"]),
        (Level.GATE, {}, ["gradient_checkpointing=true"], ["segments", "offload"]),
        (Level.GATE, {"gradient_checkpointing": True}, ["in use already"], ["capture."]),
    ],
)
def test_what_is_left_is_named(
    level: Level, options: dict[str, Any], named: list[str], not_named: list[str]
) -> None:
    loaded, samples = build("llama"), text(4)
    intact = capture_of(loaded, samples, level, [4], **options)
    layer = loaded.adapter.decoder_layers(loaded.model)[1]
    handle = layer.register_forward_hook(greedy)
    with pytest.raises(MemoryLimitError, match="memory ran out in the calibration pass: ") as caught:
        capture_of(loaded, samples, level, [4], **options)
    message = str(caught.value)
    assert all(word in message for word in named), message
    assert not any(word in message for word in not_named), message
    handle.remove()
    again = capture_of(loaded, samples, level, [4], **options)
    assert all(torch.equal(again.scores[name], value) for name, value in intact.scores.items())


def test_other_errors_pass_through() -> None:
    loaded = build("llama")

    def broken(*_: Any) -> None:
        raise RuntimeError("the shapes do not fit")

    loaded.adapter.decoder_layers(loaded.model)[1].register_forward_hook(broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        capture_of(loaded, text(2), Level.GATE, [2])
