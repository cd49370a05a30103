"""The oracle comparison says what it finds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.eval.config import EvalConfig
from secateur.eval.oracle import compare
from secateur.eval.scoring import TreeScorer
from tests.eval.conftest import make_model


def test_comparison(data_dir: Path, tokenizer: Any) -> None:
    result = compare(make_model("mistral"), tokenizer, EvalConfig(data_dir=str(data_dir), limit=5))
    assert result.requests == 5 * (3 * 2 + 4 * 4)
    assert 0 < result.max_difference <= 1e-4
    assert result.greedy_changes == 0
    assert result.score_changes == {}
    assert result.used == "fast"
    assert result.fast_tokens < result.oracle_tokens
    assert any("ratio" in line for line in result.lines())


def test_a_wrong_score_is_reported(data_dir: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TreeScorer.run

    def wrong(self: TreeScorer, *args: Any, **kwargs: Any) -> Any:
        for scored in plain(self, *args, **kwargs):
            yield type(scored)(scored.requests, scored.values * torch.rand(1).item(), ~scored.greedy)

    monkeypatch.setattr(TreeScorer, "run", wrong)
    result = compare(
        make_model("llama"), tokenizer, EvalConfig(data_dir=str(data_dir), tasks=("piqa", "arc_easy"))
    )
    assert result.max_difference > 1
    assert result.greedy_changes == result.requests
