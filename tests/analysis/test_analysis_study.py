"""`style=study`: a small table worked out by hand, and the reference study's own tables."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from secateur.analysis.describe import summarise
from secateur.analysis.findings import analyse
from secateur.analysis.foreign import load_csv
from secateur.analysis.report import write_reports
from secateur.analysis.runset import Runs, join
from secateur.analysis.study import study_text
from secateur.eval.config import TASKS

HEADER = (
    "taylor_seq_len,taylor_num_samples,output_dir,ppl,acc_mean," + ",".join(f"acc_{t}" for t in TASKS)
    + ",pruning_ratio,grad_mean_ratio,grad_norm_ratio,grad_mean_range,grad_norm_range,extreme_pruning_layers,"
    + "success,pruning_method"
)  # fmt: skip
#        seq  n  ppl   acc  mean_r norm_r mean_rg norm_rg extreme success method
ROWS = (
    (16, 128, 30.0, 0.40, 1.0, 5.0, 0.10, 9.0, 2, True, "taylor"),
    (16, 256, 20.0, 0.50, 2.0, math.inf, 0.30, 7.0, 1, True, "taylor"),
    (32, 128, 15.0, 0.60, 3.0, 6.0, 0.20, 8.0, 1, True, "blockwise"),
    (32, 256, 12.0, 0.70, 5.0, 9.0, 0.40, 1.0, 0, True, "blockwise"),
    (32, 512, 99.0, "", 5.0, 9.0, 0.40, 1.0, 0, False, "blockwise"),
)


def write_table(path: Path, rows: tuple[tuple, ...] = ROWS) -> Path:
    lines = [HEADER]
    for index, (seq, n, ppl, acc, *statistics, extreme, success, method) in enumerate(rows):
        tasks = ["" if acc == "" else f"{acc:.4f}"] * 7
        lines.append(
            ",".join(
                map(
                    str,
                    [
                        seq,
                        n,
                        f"exp_{index}",
                        ppl,
                        acc,
                        *tasks,
                        0.2,
                        *statistics,
                        f"{extreme}.0",
                        success,
                        method,
                    ],
                )
            )
        )
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Runs:
    return join([load_csv(write_table(tmp_path / "tiny.csv"))])


def test_report_of_a_small_table_by_hand(tiny: Runs) -> None:
    text = study_text(tiny, [summarise(tiny, "Tiny")], "en", "x.json")
    accuracy, mean_ratio = [0.4, 0.5, 0.6, 0.7], [1.0, 2.0, 3.0, 5.0]
    r = stats.pearsonr(mean_ratio, accuracy).statistic
    for line in (
        "Total runs: 5, valid: 4, invalid: 1",
        "BLOCKWISE       0.6500       0.0500     0.6000     0.7000     2       ",
        "TAYLOR          0.4500       0.0500     0.4000     0.5000     2       ",
        "✓ Best pruning method: BLOCKWISE (ACC: 0.7000)",
        "32           0.6500       0.0500     2       ",
        "✓ Best seq_len: 32 (mean ACC: 0.6500)",
        "256          0.6000       0.1000     2       ",
        "✓ Best num_samples: 256 (mean ACC: 0.6000)",
        f"{'grad_mean_ratio':<25} {r:>11.4f}",
        "grad_norm_ratio                   nan",
        f"  • grad_mean_ratio: strong positive correlation ({r:.3f})",
        "  • grad_norm_range: strong negative correlation (-0.826)",
        "Correlation with ACC: -0.9487",
        "1        0.5500       2       ",
        f"Correlation of PPL with ACC: {stats.pearsonr([30, 20, 15, 12], accuracy).statistic:.4f}",
        "ACC mean: 0.7000", "PPL: 12.00", "taylor_seq_len: 32", "grad_norm_ratio: 9.00", "extreme_pruning_layers: 0",
        "  • BOOLQ          : 0.7000",
        "Tiny         BLOCKWISE    0.7000       12.00        4           ",
    ):  # fmt: skip
        assert line in text.splitlines(), line
    finite = stats.pearsonr([5, 6, 9], [0.4, 0.6, 0.7]).statistic
    assert (
        f"Tiny  grad_norm_ratio: r = {finite:.4f}, n = 3; 1 row(s) are not finite and left out: Tiny/taylor/16x256"
        in text
    )


def test_all_texts_of_both_languages_carry_the_same_numbers(tiny: Runs) -> None:
    texts = [study_text(tiny, [summarise(tiny, "Tiny")], lang, "x.json") for lang in ("en", "zh")]
    numbers = [
        re.findall(r"-?\d+\.\d+|nan|\b\d+\b", text.split("NOTES")[0].split("附注")[0]) for text in texts
    ]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) > 60


def test_runs_without_any_result_still_give_a_text(tmp_path: Path) -> None:
    rows = tuple((*row[:3], "", *row[4:9], False, row[10]) for row in ROWS)
    runs = join([load_csv(write_table(tmp_path / "none.csv", rows))])
    text = study_text(runs, [summarise(runs, "None")], "en", "x.json")
    assert "Total runs: 5, valid: 0, invalid: 5" in text
    assert "No valid run: nothing to compare." in text


def reference_runs(shared: Path) -> Runs:
    return join(
        [load_csv(shared / "reference" / "tables" / f"{name}.csv") for name in ("llama", "qwen", "mistral")]
    )


@pytest.mark.shared
def test_the_study_is_reproduced_line_for_line(shared: Path, tmp_path: Path) -> None:
    paths = write_reports(reference_runs(shared), tmp_path, "zh", "study")
    ours = paths[0].read_text(encoding="utf-8").splitlines()
    theirs = (shared / "reference" / "reports" / "pruning_study.txt").read_text(encoding="utf-8").splitlines()
    assert len(theirs) > 250
    assert ours[: len(theirs) - 1] == theirs[:-1]
    assert theirs[-1].split(":")[0] == ours[len(theirs) - 1].split(":")[0]
    theirs_json = json.loads((shared / "reference" / "tables" / "cross_model_comparison.json").read_text())
    ours_json = {entry["model"]: entry for entry in json.loads(paths[1].read_text())}
    for entry in theirs_json:
        mine = ours_json[entry["model"]]
        assert set(entry) <= set(mine)
        for key in ("total_experiments", "valid_experiments", "best_method", "best_acc", "best_ppl"):
            assert mine[key] == entry[key]
        for name, value in entry["correlations"].items():
            assert np.isfinite(mine["correlations"][name])
            assert math.isnan(value) or mine["correlations"][name] == pytest.approx(value, abs=1e-12)


@pytest.mark.shared
def test_cells_that_were_nan_and_values_within_methods(shared: Path) -> None:
    found = {model.model: model for model in analyse(reference_runs(shared)).models}
    table = {
        (name, item.statistic, item.scope): (round(item.r, 4), item.n)
        for name, model in found.items() for item in model.associations
    }  # fmt: skip
    assert table["Llama", "grad_norm_ratio", "pooled"] == (0.6075, 42)
    assert table["Llama", "grad_norm_range", "pooled"] == (0.5358, 42)
    assert table["Mistral", "grad_norm_ratio", "pooled"] == (-0.0767, 36)
    assert table["Mistral", "grad_norm_range", "pooled"] == (-0.2989, 36)
    within = [
        round(table["Llama", "extreme_layers", scope][0], 2)
        for scope in ("taylor", "layerwise", "blockwise", "pooled")
    ]
    assert within == [-0.94, -0.86, 0.39, -0.29]
    for model in found.values():
        assert model.variance is not None
        joint = {item.pair: item.share for item in model.variance.joint}
        assert 0.92 <= joint["method × seq_len"] <= 0.985
        assert {term.term: term.eta2 for term in model.variance.terms}["num_samples"] <= 0.025
