"""The statistics of a model against scipy, brute force and hand computation."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from secateur.analysis.association import (
    adjusted,
    associations,
    finite_pearson,
    fisher_interval,
    within_pooled,
)
from secateur.analysis.paired import compare_methods, friedman, matched
from secateur.analysis.pareto import front, objectives
from secateur.analysis.uncertainty import replicate_noise, task_table, with_errors
from secateur.analysis.variance import explain
from secateur.eval.config import TASKS


def small(**columns: list) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"run_id": [f"r{i}" for i in range(n)], **columns})


def test_correlation_leaves_out_and_names_what_is_not_finite() -> None:
    x = [1.0, 2.0, math.inf, 4.0, 5.5, math.nan, 7.0]
    y = [0.2, 0.1, 0.9, 0.4, 0.3, 0.9, 0.6]
    keep = [0, 1, 3, 4, 6]
    a, b = np.array(x)[keep], np.array(y)[keep]
    found = finite_pearson(small(x=x, acc=y), "x", "acc")
    assert (found.n, found.excluded) == (5, ("r2", "r5"))
    expected = stats.pearsonr(a, b)
    assert (found.r, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    rank = stats.spearmanr(a, b)
    assert (found.rho, found.rho_p) == pytest.approx((rank.statistic, rank.pvalue))


def test_correlation_without_an_answer_says_why() -> None:
    assert finite_pearson(small(x=[1.0, 1.0, 1.0], acc=[0.1, 0.2, 0.3]), "x", "acc").why == "constant"
    assert finite_pearson(small(x=[1.0, 2.0, math.nan], acc=[0.1, 0.2, 0.3]), "x", "acc").why == "few"
    perfect = finite_pearson(small(x=[1.0, 2.0, 3.0, 4.0], acc=[0.1, 0.2, 0.3, 0.4]), "x", "acc")
    assert (perfect.r, perfect.p) == pytest.approx((1.0, 0.0), abs=1e-7)
    assert all(math.isnan(v) for v in fisher_interval(0.5, 3))


def test_pooling_hides_an_effect_that_within_methods_shows() -> None:
    # inside each method ACC falls by 0.1 per unit of x; the means of the methods rise with x
    frame = small(
        method=["a"] * 3 + ["b"] * 3, x=[1.0, 2.0, 3.0, 6.0, 7.0, 8.0], acc=[0.3, 0.2, 0.1, 0.9, 0.8, 0.7],
    )  # fmt: skip
    assert finite_pearson(frame, "x", "acc").r > 0.8
    within = within_pooled(frame, "x", "acc", "method")
    assert within.r == pytest.approx(-1.0)
    scopes = [item.scope for item in associations(frame, ("x",), "acc", "method")]
    assert scopes == ["pooled", "within", "a", "b"]


def test_within_p_equals_the_regression_with_method_means() -> None:
    rng = np.random.default_rng(4)
    method = np.repeat(["a", "b", "c"], 8)
    x, noise = rng.normal(size=24), rng.normal(size=24)
    y = 0.3 * x + noise + (method == "b") * 2
    frame = small(method=list(method), x=list(x), acc=list(y))
    found = within_pooled(frame, "x", "acc", "method")
    design = np.column_stack([x, *(method == name for name in "abc")]).astype(float)
    beta, rss, *_ = np.linalg.lstsq(design, y, rcond=None)
    se = math.sqrt(rss[0] / 20 * np.linalg.inv(design.T @ design)[0, 0])
    assert found.p == pytest.approx(2 * stats.t.sf(abs(beta[0] / se), 20))


def test_holm_runs_over_the_statistics_of_one_scope() -> None:
    rng = np.random.default_rng(0)
    frame = small(
        method=["a", "b"] * 10, x=list(rng.normal(size=20)), z=list(rng.normal(size=20)), acc=list(rng.normal(size=20)),
    )  # fmt: skip
    found = associations(frame, ("x", "z"), "acc", "method")
    values = dict(zip([(i.statistic, i.scope) for i in found], adjusted(found), strict=True))
    raw = {(i.statistic, i.scope): i.p for i in found}
    low, high = sorted(("x", "z"), key=lambda name: raw[name, "pooled"])
    assert values[low, "pooled"] == pytest.approx(min(1.0, 2 * raw[low, "pooled"]))
    assert values[high, "pooled"] >= raw[high, "pooled"]


def grid(seed: int = 0, drop: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "method": m,
            "seq_len": float(s),
            "num_samples": float(n),
            "acc_mean": i * 0.1 + 0.02 * s * i + rng.normal(0, 0.01),
        }
        for (i, m), s, n in product(enumerate("abc"), (1, 2, 3, 4), (10, 20))
    ]
    frame = pd.DataFrame(rows).assign(model="m", run_id=[f"r{i}" for i in range(len(rows))])
    return frame.sample(len(frame) - drop, random_state=1).reset_index(drop=True)


def brute_residual(frame: pd.DataFrame, terms: list[tuple[str, ...]]) -> float:
    blocks = [np.ones((len(frame), 1))]
    for term in terms:
        key = frame[list(term)].astype(str).agg("|".join, axis=1)
        for size in range(1, len(term) + 1):
            blocks += [pd.get_dummies(frame[name]).to_numpy(dtype=float) for name in term[:size]]
        blocks.append(pd.get_dummies(key).to_numpy(dtype=float))
    design = np.hstack(blocks)
    y = frame["acc_mean"].to_numpy()
    return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())


FACTORS = ["method", "seq_len", "num_samples"]


def test_variance_of_a_balanced_grid_adds_up() -> None:
    found = explain(grid(), FACTORS)
    assert found is not None
    assert sum(term.eta2 for term in found.terms) == pytest.approx(1.0)
    frame = grid()
    y = frame["acc_mean"]
    between = sum(len(g) * (g.mean() - y.mean()) ** 2 for _, g in y.groupby(frame["method"]))
    method = found.terms[0]
    assert (method.term, method.df, method.ss) == ("method", 2, pytest.approx(between))
    joint = {item.pair: item.share for item in found.joint}
    parts = {term.term: term.eta2 for term in found.terms}
    assert joint["method × seq_len"] == pytest.approx(
        parts["method"] + parts["seq_len"] + parts["method × seq_len"]
    )
    oneway = stats.f_oneway(*(g for _, g in y.groupby(frame["method"])))
    single = explain(frame, ["method"])
    assert single is not None
    assert (single.terms[0].f, single.terms[0].p) == pytest.approx((oneway.statistic, oneway.pvalue))
    ms = single.terms[1].ss / single.terms[1].df
    total = float(((y - y.mean()) ** 2).sum())
    assert single.terms[0].omega2 == pytest.approx((between - 2 * ms) / (total + ms))


def test_variance_of_an_unbalanced_grid_is_type_two() -> None:
    frame = grid(drop=5)
    found = explain(frame, FACTORS)
    assert found is not None
    by_name = {term.term: term for term in found.terms}
    without = brute_residual(frame, [("method",), ("num_samples",), ("method", "num_samples")])
    with_it = brute_residual(frame, [("method",), ("num_samples",), ("method", "num_samples"), ("seq_len",)])
    assert by_name["seq_len"].ss == pytest.approx(without - with_it)
    full = brute_residual(
        frame, [("method", "seq_len"), ("method", "num_samples"), ("seq_len", "num_samples")]
    )
    assert by_name["residual"].ss == pytest.approx(full)
    assert by_name["seq_len"].partial_eta2 == pytest.approx((without - with_it) / (without - with_it + full))


def test_a_saturated_design_takes_its_interaction_as_the_error() -> None:
    frame = grid()
    frame = frame[frame["num_samples"] == 10]
    found = explain(frame, ["method", "seq_len"])
    assert found is not None
    assert [term.term for term in found.terms] == ["method", "seq_len", "residual"]
    assert found.terms[-1].df == (frame["method"].nunique() - 1) * (frame["seq_len"].nunique() - 1)
    assert all(term.p < 1 for term in found.terms[:-1])
    assert math.isnan(found.joint[0].p)  # no cell has two runs
    assert explain(frame.assign(acc_mean=0.5), ["method"]) is None
    assert explain(frame.head(2), ["method"]) is None


def test_methods_are_compared_over_matched_cells() -> None:
    frame = grid(3, drop=4)
    cells = matched(frame, FACTORS)
    found = {(pair.left, pair.right): pair for pair in compare_methods(cells)}
    both = cells[["a", "b"]].dropna()
    pair = found["b", "a"]
    t, w = stats.ttest_rel(both["b"], both["a"]), stats.wilcoxon(both["b"] - both["a"])
    assert (pair.n, pair.mean) == (len(both), pytest.approx(float((both["b"] - both["a"]).mean())))
    assert (pair.t_p, pair.w_p) == pytest.approx((t.pvalue, w.pvalue))
    interval = t.confidence_interval()
    assert (pair.low, pair.high) == pytest.approx((interval.low, interval.high))
    assert pair.wins + pair.ties + pair.losses == pair.n
    assert all(pair.mean >= 0 for pair in found.values())
    assert sorted(p.t_holm / p.t_p for p in found.values())[-1] == pytest.approx(3.0)
    full = cells.dropna()
    expected = stats.friedmanchisquare(*(full[name] for name in full))
    assert friedman(cells)[:2] == pytest.approx((expected.statistic, expected.pvalue))


def test_replicates_of_a_cell_count_once_and_give_the_noise() -> None:
    frame = pd.DataFrame({
        "model": "m", "method": ["a", "a", "a", "b", "b"], "seq_len": [1.0, 1.0, 2.0, 1.0, 2.0],
        "acc_mean": [0.1, 0.3, 0.5, 0.4, 0.9],
    })  # fmt: skip
    cells = matched(frame, ["method", "seq_len"])
    assert (cells["b"] - cells["a"]).tolist() == pytest.approx([0.2, 0.4])
    sd, df = replicate_noise(frame, np.array([0, 0, 1, 2, 3]))
    assert (sd, df) == (pytest.approx(math.sqrt(0.02)), 1)


def test_equal_differences_leave_no_spread_to_test() -> None:
    cells = pd.DataFrame({"a": [0.25, 0.5, 0.75], "b": [0.125, 0.375, 0.625]})
    pair = compare_methods(cells)[0]
    assert (pair.left, pair.mean, pair.low, pair.high) == ("a", 0.125, 0.125, 0.125)
    assert math.isnan(pair.t_p)


def test_pareto_front_equals_brute_force() -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({
        "acc_mean": rng.random(300).round(2), "ppl": rng.random(300).round(2), "params_after": rng.random(300).round(1),
        "speed": np.nan,
    })  # fmt: skip
    frame.loc[5, "ppl"] = np.nan
    names = objectives(frame)
    assert names == ["acc_mean", "ppl", "params_after"]
    values = frame[names].to_numpy() * [1, -1, -1]
    expected = {
        i for i in range(300) if i != 5 and not any(
            (values[j] >= values[i]).all() and (values[j] > values[i]).any() for j in range(300) if j != 5
        )
    }  # fmt: skip
    assert set(front(frame, names)) == expected


def test_errors_of_the_mean_combine_those_of_the_tasks() -> None:
    run = {f"acc_{t}": 0.5 for t in TASKS} | {f"se_{t}": 0.01 * (i + 1) for i, t in enumerate(TASKS)}
    run |= {f"n_{t}": 100.0 for t in TASKS} | {"acc_mean": 0.5, "acc_mean_se": np.nan}
    frame = with_errors(pd.DataFrame([run, run | {"acc_mean_se": 0.02}, run | {"se_piqa": np.nan}]))
    by_hand = math.sqrt(sum((0.01 * k) ** 2 for k in range(1, 8))) / 7
    assert frame["acc_mean_se"].tolist() == pytest.approx([by_hand, 0.02, np.nan], nan_ok=True)
    assert frame["acc_high"][0] == pytest.approx(0.5 + 1.959963984540054 * by_hand)
    table = task_table(frame.iloc[0])
    expected = stats.binomtest(50, 100).proportion_ci(method="wilson")
    assert (table["low"][0], table["high"][0]) == pytest.approx((expected.low, expected.high))
