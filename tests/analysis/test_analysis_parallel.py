"""Many processes give what one gives."""

import os
from pathlib import Path

import pandas as pd
import pytest

import secateur.analysis.load
from secateur.analysis.load import load_runs
from secateur.analysis.parallel import fork_map


def test_results_come_in_order_and_from_other_processes() -> None:
    table = {place: place**2 for place in range(9)}
    assert fork_map(lambda place: table[place], 9, 2) == [place**2 for place in range(9)]
    assert fork_map(lambda _: os.getpid(), 2, 3) == [os.getpid()] * 2
    if (os.cpu_count() or 1) > 1:
        assert os.getpid() not in fork_map(lambda _: os.getpid(), 4, 2)


def test_an_error_in_a_process_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        fork_map(lambda place: 1 // (place - 2), 4, 2)


def test_reading_in_parts_gives_the_same_runs(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_runs(run_folder)
    monkeypatch.setattr(secateur.analysis.load, "CHUNK", 7)
    parts = load_runs(run_folder)
    pd.testing.assert_frame_equal(whole.frame, parts.frame[list(whole.frame.columns)])
    pd.testing.assert_frame_equal(whole.layers, parts.layers)
    assert whole.protocols == parts.protocols
