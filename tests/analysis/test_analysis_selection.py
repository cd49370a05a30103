"""Ties, hold-outs and answers: by hand and by simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from secateur.analysis.answers import Answers, paired_difference, paired_folders, read_answers
from secateur.analysis.load import load_runs
from secateur.analysis.selection import hold_out_questions, hold_out_tasks, not_distinguishable
from secateur.analysis.uncertainty import with_errors
from secateur.eval.config import TASKS


def frame(accuracies: list[float], se: float = 0.01) -> pd.DataFrame:
    rows = [{"run_id": f"r{i}", "acc_mean": acc, "acc_mean_se": se} for i, acc in enumerate(accuracies)]
    return pd.DataFrame(rows).assign(**{f"acc_{task}": accuracies for task in TASKS})


def test_ties_follow_from_the_standard_errors() -> None:
    ties = not_distinguishable(frame([0.50, 0.60, 0.59, 0.55]), None)
    assert ties.labels == (1, 2)
    table = ties.table.set_index("run_id")
    p = 2 * stats.norm.sf(0.05 / np.hypot(0.01, 0.01))
    assert table.loc["r3", "p"] == pytest.approx(p)
    assert table.loc["r3", "p_holm"] == pytest.approx(2 * p)
    assert set(table["basis"]) == {"errors"}


def test_without_errors_only_equal_runs_are_ties() -> None:
    assert not_distinguishable(frame([0.6, 0.5, 0.6], float("nan")), None).labels == (0, 2)


def answers_of(right: list[list[int]], task: list[int]) -> Answers:
    return Answers(
        tuple(range(len(right))), np.array(right, dtype=np.int8), np.array(task), ("x", "y")[: max(task) + 1]
    )


def test_paired_difference_by_hand() -> None:
    answers = answers_of([[1, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0]], [0, 0, 0, 0, 1, 1])
    # task x: differences 0 1 0 0 (mean 1/4, variance 1/4); task y: 1 0 (mean 1/2, variance 1/2)
    difference, se = paired_difference(answers, 0, 1)
    assert difference == pytest.approx((0.25 + 0.5) / 2)
    assert se == pytest.approx(np.sqrt(0.25 / 4 + 0.5 / 2) / 2)


def test_answers_make_the_tie_set_smaller(run_folder: Path) -> None:
    valid = with_errors(load_runs(run_folder).valid("alpha"))
    answers = read_answers(valid)
    assert answers is not None
    assert len(answers.rows) == 18
    assert answers.right.shape == (18, 1400)
    np.testing.assert_allclose(
        answers.right @ answers.weights(), valid.loc[list(answers.rows), "acc_mean"], atol=0.003
    )
    with_questions, without = not_distinguishable(valid, answers), not_distinguishable(valid, None)
    assert with_questions.labels[0] == without.labels[0]
    assert len(with_questions.labels) < len(without.labels)
    assert (with_questions.table["basis"].iloc[1:] == "questions").all()


def test_paired_folders_need_the_same_questions(run_folder: Path, tmp_path: Path) -> None:
    a, b = (run_folder / f"alpha-{method}-64x128-s0" for method in ("taylor", "blockwise"))
    found = paired_folders(a, b)
    assert found is not None
    assert found[2] == 1400
    assert found[0] == pytest.approx(-0.06, abs=0.01)
    table = pd.read_parquet(b / "answers.parquet")
    table.iloc[::-1].to_parquet(tmp_path / "answers.parquet")
    assert paired_folders(a, tmp_path) is None
    assert paired_folders(a, run_folder) is None


def test_leaving_one_task_out_by_hand() -> None:
    table = pd.DataFrame({f"acc_{task}": [0.5, 0.6] for task in TASKS}) if TASKS else pd.DataFrame()
    table["run_id"] = ["steady", "lucky"]
    table["acc_boolq"] = [0.9, 0.1]
    found = hold_out_tasks(table)
    assert found is not None
    rows = found.table.set_index("task")
    # without boolq the second run looks best and then loses on it; with boolq in, the first is picked
    assert rows.loc["boolq", ["picked", "acc", "rank"]].tolist() == ["lucky", 0.1, 2]
    assert rows.loc["boolq", "regret"] == pytest.approx(0.8)
    assert rows.loc["piqa", "picked"] == "steady"
    assert found.naive == pytest.approx((0.9 + 6 * 0.5) / 7)
    assert found.honest == pytest.approx((0.1 + 6 * 0.5) / 7)


def test_picking_among_equals_flatters_and_the_hold_out_shows_it() -> None:
    rng = np.random.default_rng(0)
    n = 40
    right = (rng.random((n, 700)) < 0.5).astype(np.int8)
    task = np.repeat(np.arange(7), 100)
    answers = Answers(tuple(range(n)), right, task, TASKS)
    mean = right @ answers.weights()
    valid = pd.DataFrame({"run_id": [f"r{i}" for i in range(n)], "acc_mean": mean})
    found = hold_out_questions(valid, answers)
    assert found is not None
    assert found.naive == pytest.approx(mean.max())
    assert found.naive > 0.53
    assert found.honest == pytest.approx(mean.mean(), abs=0.02)
    assert found.optimism > 0.03
    assert found.table["picked_share"].sum() == pytest.approx(1.0)
    assert hold_out_questions(valid, None) is None


def test_a_clear_winner_is_picked_in_every_split() -> None:
    rng = np.random.default_rng(1)
    right = (rng.random((5, 400)) < np.array([[0.9], [0.4], [0.4], [0.4], [0.4]])).astype(np.int8)
    answers = Answers(tuple(range(5)), right, np.repeat([0, 1], 200), ("x", "y"))
    found = hold_out_questions(pd.DataFrame({"run_id": list("abcde")}), answers)
    assert found is not None
    assert found.table["picked_share"].tolist() == [1.0]
    assert abs(found.optimism) < 0.02
