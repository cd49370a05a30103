"""Numbers and their words agree."""

import pytest

from secateur.analysis.insight.texts import Words
from secateur.analysis.plurals import plural
from secateur.analysis.texts import Texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 run(s)", "0 runs"), ("1 run(s)", "1 run"), ("2 run(s)", "2 runs"), ("1,000 row(s)", "1,000 rows"),
        ("21 failed run(s) and 1 data set(s).", "21 failed runs and 1 data set."),
        ("in 1 [F3] file(s)", "in 1 [F3] file"),
        ("1.1 file(s)", "1.1 files"), ("f(s) of 3", "f(s) of 3"),
    ],
)  # fmt: skip
def test_the_number_decides(text: str, said: str) -> None:
    assert plural(text) == said


def test_no_text_of_a_report_says_word_s() -> None:
    texts, words = Texts("en"), Words("en")
    for n in (0, 1, 2, 11):
        runs = "run" if n == 1 else "runs"
        assert f"{n} failed {runs}, and 1 without" in texts("lead.bad", failed=n, invalid=1)
        assert f": {n} {runs}. Fields" in texts("lead.aside", n=n, fields="x")
        said = words("lead.what", files=1, read=1, unreadable=0, excluded=0, rows=1, datasets=n, facts=1)
        assert ("1 data set," if n == 1 else f"{n} data sets,") in said
