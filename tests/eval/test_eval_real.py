"""Real tasks on a real model: the same scores as HFLM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secateur.eval.config import EvalConfig
from secateur.eval.oracle import compare


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    "limit", [25, pytest.param(None, marks=pytest.mark.timeout(4 * 3600))], ids=["first 25", "full size"]
)
def test_seven_real_tasks(
    limit: int | None, assets: Path, real_model: Callable[[str], tuple[Any, Any]]
) -> None:
    """stories260K; full size is 69,106 requests, half an hour of HFLM on a quiet core."""
    model, tokenizer = real_model("stories260K")
    result = compare(model, tokenizer, EvalConfig(data_dir=str(assets), limit=limit, batch_size=32))
    assert result.used == "fast"
    assert result.score_changes == {}
    assert result.greedy_changes == 0
    assert result.max_difference <= 1e-4 * 10  # continuations of up to 624 tokens: sums of thousands of nats
    assert result.fast_tokens < 0.7 * result.oracle_tokens
