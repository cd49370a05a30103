"""A verdict word comes first; what is undecided has no point estimate and says what would decide it."""

import math
from typing import Any

import numpy as np
import pytest

from secateur.analysis.speed.compare import student
from secateur.analysis.speed.words import SpeedTexts
from secateur.analysis.speed.written import UNCLEAR, pays_text, verdict_text, wanted

FIRST = {
    "en": ("faster", "slower", "no difference within", "undecided"),
    "zh": ("更快", "更慢", "在", "尚无定论"),
}


def change(low: float, high: float, verdict: str, n: int = 8) -> dict[str, Any]:
    return {"reference": "a", "compared": "b", "change": (low + high) / 2, "change_low": low, "change_high": high,
            "verdict": verdict, "n": n, "counted": "rounds", "cv_reference": 0.7, "cv_compared": 0.7}  # fmt: skip


@pytest.mark.parametrize("lang", FIRST)
@pytest.mark.parametrize(
    ("low", "high", "verdict", "place"),
    [(0.44, 0.77, "faster", 0), (-0.77, -0.44, "slower", 1), (-0.01, 0.02, "none", 2), (-0.9, 36.0, "none", 3),
     (math.nan, math.nan, "few", 3)],
)  # fmt: skip
def test_the_verdict_word_comes_first(lang: str, low: float, high: float, verdict: str, place: int) -> None:
    text = verdict_text(change(low, high, verdict), SpeedTexts(lang))
    assert text.startswith(FIRST[lang][place])
    assert (
        "noise of a single pass" not in text
    )  # an interval of pairs is not held against the noise of one pass
    assert "nan" not in text


@pytest.mark.parametrize("lang", FIRST)
def test_what_is_undecided_has_no_point_estimate(lang: str) -> None:
    row = {"speedup": 0.13, "speedup_low": 0.0, "speedup_high": 37.47, "n": 4}
    text = pays_text(row, SpeedTexts(lang))
    assert text.startswith(FIRST[lang][3])
    assert "0.13" not in text
    assert "37.47" not in text
    assert wanted(4, -1.0, 36.47) in text
    sure = pays_text({"speedup": 1.35, "speedup_low": 1.3, "speedup_high": 1.4, "n": 8}, SpeedTexts(lang))
    assert "1.35" in sure
    assert pays_text(
        {"speedup": 1.0, "speedup_low": 0.98, "speedup_high": 1.03, "n": 8}, SpeedTexts("en")
    ).startswith("no difference from dense within 3")


def test_as_many_repetitions_as_it_says_would_decide() -> None:
    rng = np.random.default_rng(0)
    first = [student(rng.normal(0, 0.5, 10)) for _ in range(20)]
    n = int(np.median([int(wanted(10, low, high).replace(",", "")) for _, low, high, _, _ in first]))
    halves = [(high - low) / 2 for _, low, high, _, _ in (student(rng.normal(0, 0.5, n)) for _ in range(20))]
    assert n > 10
    assert np.median(halves) == pytest.approx(UNCLEAR, rel=0.25)
