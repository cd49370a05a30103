"""The header's counts add up, and what is piped is whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from secateur.analysis.load import from_records
from secateur.analysis.story import header, tell
from secateur.analysis.texts import Texts
from secateur.eval.record import RunRecord, write_record
from tests.analysis.conftest import build_record, failed_record


def test_the_counts_of_the_header_are_those_of_the_runs(records: list[RunRecord]) -> None:
    odd = [failed_record(seed=9).model_copy(update={"run_id": "broken"}), *records, records[1]]
    counts = header(from_records(odd))
    assert counts["read"] == len(odd) == sum(counts.values()) - counts["read"]
    assert (counts["dense"], counts["failed"], counts["duplicate"]) == (2, 1, 1)


@pytest.mark.parametrize("word", ["show", "compare"])
def test_piped_tables_break_no_id(tmp_path: Path, word: str) -> None:
    names = [f"{letter}{'-long' * 14}" for letter in "ab"]
    for name, acc in zip(names, (0.3, 0.7), strict=True):
        write_record(tmp_path / name, build_record(acc=acc).model_copy(update={"run_id": name}))
    ids = names[:1] if word == "show" else names
    command = [sys.executable, "-m", "secateur", word, *ids, f"runs={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in ids:
        assert any(name in line for line in done.stdout.splitlines())
    assert " 0.0000\n" not in done.stdout.replace(" \n", "\n") or word == "show"


def test_settings_of_one_level_have_no_table() -> None:
    from secateur.analysis.findings import analyse

    runs = from_records([build_record(method=method, acc=acc) for method, acc in (("a", 0.5), ("b", 0.6))])
    found = analyse(runs, False)
    document = tell(found.runs, found.models, found.cross, found.factors, Texts("en"))
    assert not [table.name for table in document.tables() if table.name.endswith(("seq_len", "num_samples"))]
