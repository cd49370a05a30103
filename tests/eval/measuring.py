"""What tests of `measure` share: a small config, and how two measurements are compared."""

from pathlib import Path
from typing import Any

import pandas as pd

from secateur.eval.config import EvalConfig, PerplexityConfig
from secateur.eval.measure import Measurements

PPL = PerplexityConfig(protocols=("wikitext2@64", "stories@32", "wikitext2@64/16-recount"))


def config(data_dir: Path, **changes: Any) -> EvalConfig:
    return EvalConfig(**{"data_dir": str(data_dir), "backend": "fast", "ppl": PPL, **changes})


def values(result: Measurements) -> dict[str, float | None]:
    return {name: metric.value for name, metric in result.metrics.items()}


def assert_same(first: Measurements, second: Measurements) -> None:
    assert values(first) == values(second)
    pd.testing.assert_frame_equal(first.answers, second.answers)
