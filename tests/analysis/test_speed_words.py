"""Speed reports: words that are wrong, numbers in sentences."""

import pytest

from secateur.analysis.cli import analyze
from secateur.analysis.speed.words import bound_text, interval_text

PROMPTS, OUTPUTS, ROUNDS = (64, 128, 256, 512, 1024), (32, 64, 96, 128), 5
SUBJECTS = ("alpha", "alpha-random-0.5", "beta")
PARAMETERS = {"alpha": 1000, "alpha-random-0.5": 500, "beta": 2000}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["report=speed", "runs=."], 2, "report=speed: is not one of models, setting"),
        (["report=models"], 2, "give at least one runs=DIR, llama_bench=FILE or csv=FILE"),
        (["report=setting", "runs=."], 2, "needs setting=KEY"),
        (["report=models", "runs=absent"], 1, "no such directory"),
        (["report=models", "csv=x.csv"], 2, "needs mapping=FILE.yaml"),
        (["report=models", "style=study", "runs=."], 2, "unknown key style"),
    ],
)
def test_bad_words_end_with_a_message(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze(words) == code
    assert message in capsys.readouterr().err


def test_numbers_in_sentences() -> None:
    assert interval_text(0.0102, 0.0098, 0.0106) == "+1.020 % (+0.980 … +1.060)"
    assert interval_text(-0.5, -0.6, -0.4) == "-50 % (-60 … -40)"
    assert interval_text(-0.001, -0.2, 0.2) == "+0 % (-20 … +20)"  # no minus in front of nothing
    assert bound_text(0.00294) == "0.3"
    assert bound_text(0.00301) == "0.31"
    assert bound_text(1.5) == "150"
