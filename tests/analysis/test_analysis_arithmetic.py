"""Every piece of arithmetic against scipy or against numbers worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from secateur.analysis.arithmetic import (
    chi2_p,
    f_p,
    holm,
    normal_p,
    normal_quantile,
    ranks,
    signed_rank,
    t_p,
    t_quantile,
    wilson,
)


def test_quantiles_and_tails_equal_scipy() -> None:
    assert normal_quantile(0.95) == pytest.approx(stats.norm.ppf(0.975))
    assert t_quantile(7, 0.9) == pytest.approx(stats.t.ppf(0.95, 7))
    assert normal_p(1.3) == pytest.approx(2 * stats.norm.sf(1.3))
    assert t_p(-2.2, 9) == pytest.approx(2 * stats.t.sf(2.2, 9))
    assert f_p(3.1, 4, 20) == pytest.approx(stats.f.sf(3.1, 4, 20))
    assert chi2_p(5.5, 2) == pytest.approx(stats.chi2.sf(5.5, 2))


def test_ranks_share_ties() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0])
    assert ranks(values).tolist() == stats.rankdata(values).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


def test_holm_by_hand() -> None:
    # sorted .01 .02 .04 times 3 2 1 -> .03 .04 .04; NaN is no test
    assert holm([0.04, float("nan"), 0.01, 0.02]) == pytest.approx(
        [0.04, float("nan"), 0.03, 0.04], nan_ok=True
    )
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (10, 10), (381, 500)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("n", [3, 15, 49, 80])
def test_signed_rank_equals_scipy(n: int) -> None:
    d = np.random.default_rng(n).normal(0.4, 1, n)
    expected = stats.wilcoxon(d)
    assert signed_rank(d) == pytest.approx((expected.statistic, expected.pvalue))


def test_signed_rank_with_ties_and_zeros_equals_scipy() -> None:
    d = np.array([1.0, 1.0, 2.0, -1.0, 0.0, 3.0, 3.0, -2.0, 4.0, 5.0, 5.0, 6.0, 1.0])
    expected = stats.wilcoxon(d, method="approx")
    assert signed_rank(d) == pytest.approx((expected.statistic, expected.pvalue))
    assert signed_rank(np.zeros(4))[1] == 1.0
