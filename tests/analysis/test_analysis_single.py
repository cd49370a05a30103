"""A report of very few runs claims nothing that needs more."""

import re
from pathlib import Path

import pytest

from secateur.analysis.report import write_reports
from secateur.analysis.texts import Texts
from secateur.eval.record import write_record
from tests.analysis.conftest import MakeRecord, write_answers


def text_of(folder: Path, lang: str) -> str:
    """The report; its page and its tables are made of the same document."""
    return (folder / lang / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_single_run_is_compared_with_nothing(tmp_path: Path, make_record: MakeRecord, lang: str) -> None:
    record = make_record()
    write_reports([record], tmp_path / lang, lang=lang)
    text, texts = text_of(tmp_path, lang), Texts(lang)
    assert "0.5000" in text
    assert texts("key.alone").strip() not in text
    assert texts("tables.ties") not in text
    assert texts("tables.correlations") not in text
    assert texts("sections.selection") not in text
    row = next(line for line in text.splitlines() if line.startswith("| taylor |"))
    assert row.split("|")[2:5] == [" 0.5000 ", " – ", " 0.5000 "]  # one run has no standard deviation
    assert not re.search(r"\b1 (runs|models)\b", text)


@pytest.mark.parametrize(("other", "alone"), [(0.3, True), (0.5, False)])
def test_two_runs_are_told_apart_or_not(
    tmp_path: Path, make_record: MakeRecord, other: float, alone: bool
) -> None:
    write_reports([make_record(seq_len=8), make_record(seq_len=16, acc=other)], tmp_path / "en")
    text, texts = text_of(tmp_path, "en"), Texts("en")
    assert (texts("key.alone").strip() in text) == alone
    assert (texts("key.ties", n=1).strip() in text) == (not alone)
    assert texts("tables.ties") in text
    assert texts("tables.correlations") not in text


def test_answers_of_a_single_run_are_not_split(tmp_path: Path, make_record: MakeRecord) -> None:
    """A pick out of one is no pick: nothing is said of optimism."""
    runs = tmp_path / "runs"
    for count in (1, 2):
        record = make_record(seq_len=8 * count)
        write_record(runs / record.run_id, record)
        write_answers(runs / record.run_id, record)
        write_reports(runs, tmp_path / "en")
        assert ("optimism" in text_of(tmp_path, "en")) == (count > 1)
