"""The runs report on pure noise: a share that noise gives is called so, an interval holds what is true."""

import numpy as np
import pandas as pd
import pytest

from secateur.analysis.story_model import shares_sentence
from secateur.analysis.texts import Texts
from secateur.analysis.variance import explain

SEEDS = 20
MOST = 3
"""Of 20 tables at 5 %: more than three false ones have a probability of 1.6 %."""
FACTORS = ["method", "seq_len", "num_samples"]


def grid(seed: int, effect: float = 0.0) -> pd.DataFrame:
    """The study's design: 3 methods, 5 lengths, 3 sample counts; one standard deviation of noise is 0.02."""
    rng = np.random.default_rng(seed)
    rows = [(m, n, k) for m in ("a", "b", "c") for n in (16, 32, 64, 128, 256) for k in (128, 256, 512)]
    frame = pd.DataFrame(rows, columns=FACTORS)
    return frame.assign(acc_mean=0.5 + effect * (frame["method"] == "c") + rng.normal(0, 0.02, len(frame)))


@pytest.mark.parametrize(("lang", "noise"), [("en", "noise"), ("zh", "噪声")])
def test_what_noise_gives_is_called_noise(lang: str, noise: str) -> None:
    false = 0
    for seed in range(SEEDS):
        found = explain(grid(seed), FACTORS)
        assert found is not None
        false += noise not in shares_sentence(found, Texts(lang))
        assert all(0 <= term.eta2_low <= term.eta2_high <= 1 for term in found.terms[:3])
    assert false <= MOST


def test_an_effect_is_told_with_its_interval() -> None:
    covered = 0
    true = 0.05**2 * 2 / 9 / (0.05**2 * 2 / 9 + 0.02**2)
    for seed in range(SEEDS):
        found = explain(grid(seed, effect=0.05), FACTORS)
        assert found is not None
        assert "method" in shares_sentence(found, Texts("en"))
        method = found.terms[0]
        covered += method.eta2_low <= true <= method.eta2_high
    assert covered >= SEEDS - MOST


def test_single_runs_have_no_share() -> None:
    frame = grid(0)
    found = explain(frame[(frame["num_samples"] == 128) & (frame["method"] == "a")], ["seq_len"])
    assert found is None or "too few runs" in shares_sentence(found, Texts("en"))
