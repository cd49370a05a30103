"""What the speed statistics find on measurements whose truth is known: 200 seeds each, error rates stated.

Noise is 0.1 % per pass (multiplicative, normal), five passes per cell, as on a quiet machine.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from secateur.analysis.speed.compare import Difference, compare, find_setting, student
from secateur.analysis.speed.fits import Fit, balance, fit_all
from secateur.analysis.speed.measurements import SETTING, Speeds, make
from secateur.pruning.errors import ConfigError

SEEDS = 200
NOISE = 0.001
PROMPTS = np.array([64, 96, 128, 192, 256, 384, 512, 1024])
OUTPUTS = np.array([32, 44, 56, 72, 84, 96, 112, 128])


def sweep(
    dice: np.random.Generator,
    effect: float,
    noise: float = NOISE,
    drift: float = 0.0,
    values: tuple[Any, ...] = (1, 2),
) -> Speeds:
    """One model, 64 cells, five rounds, two values of `bench.threads`; the second is faster by `effect`."""
    rows: list[dict[str, Any]] = []
    passes: list[tuple[np.ndarray, np.ndarray]] = []
    for prompt in PROMPTS:
        for out in OUTPUTS:
            for place, value in enumerate(values):
                seconds = 0.01 + 1e-4 * prompt + 2e-8 * prompt**2
                times = seconds / (1 + effect * place) * (1 + noise * dice.standard_normal(5))
                rows.append({
                    "source": "a", "place": place, "tool": "x", "model": "m", "subject": "m", "phase": "prefill",
                    "n_prompt": int(prompt), "n_gen": int(out), "batch": 1, "largest": False, "tokens": int(prompt),
                    "memory_bytes": np.nan, f"{SETTING}bench.threads": value, f"{SETTING}seed": 0,
                })  # fmt: skip
                passes.append((np.arange(5), times * (1 + drift * np.arange(5))))
    return Speeds(*make(rows, passes))


def many(effect: float, **more: Any) -> list[Difference]:
    found: list[Difference] = []
    for seed in range(SEEDS):
        found += compare(sweep(np.random.default_rng(seed), effect, **more), "bench.threads")
    assert len(found) == SEEDS
    return found


def test_one_percent_under_a_tenth_of_noise_is_found_every_time() -> None:
    found = many(0.01)
    assert all(d.verdict == "faster" for d in found)  # misses: 0 of 200
    assert np.mean([d.effect for d in found]) == pytest.approx(0.01, abs=5e-5)
    covered = sum(d.low <= 0.01 <= d.high for d in found)
    assert covered >= 0.90 * SEEDS  # nominal 95 %


def test_no_difference_is_not_found_more_often_than_the_test_says() -> None:
    found = many(0.0)
    wrong = sum(d.verdict != "none" for d in found)
    assert wrong <= 20  # nominal 10 of 200; more than 20 has a chance below 0.2 %
    assert max(d.bound for d in found if d.verdict == "none") < 0.001  # "no difference larger than 0.1 %"


def test_drift_of_the_machine_meets_both_values_alike() -> None:
    found = many(0.0, drift=0.02)
    assert sum(d.verdict != "none" for d in found) <= 20


def test_pairs_need_everything_else_equal() -> None:
    speeds = sweep(np.random.default_rng(0), 0.01)
    column = f"{SETTING}seed"
    moved = speeds.cells.assign(**{column: speeds.cells[f"{SETTING}bench.threads"]})
    assert compare(Speeds(moved, speeds.samples), "bench.threads") == []


def test_few_cells_are_compared_by_repetitions() -> None:
    speeds = sweep(np.random.default_rng(0), 0.01)
    one = speeds.cells[(speeds.cells["n_prompt"] == 64) & (speeds.cells["n_gen"] == 32)]
    samples = speeds.samples[speeds.samples["cell"].isin(one.index)]
    cells = one.reset_index(drop=True)
    samples = samples.assign(cell=samples["cell"].map({old: new for new, old in enumerate(one.index)}))
    (found,) = compare(Speeds(cells, samples), "bench.threads")
    assert (found.unit, found.n, found.cells) == ("rounds", 5, 1)
    assert found.verdict == "faster"


def test_several_values_are_compared_pair_by_pair() -> None:
    found = compare(sweep(np.random.default_rng(0), 0.01, values=(1, 2, 10)), "bench.threads")
    assert [(d.left, d.right) for d in found] == [("1", "2"), ("1", "10"), ("2", "10")]
    assert [round(d.effect, 3) for d in found] == [0.01, 0.02, 0.01]


def test_intervals_are_student_s() -> None:
    values = np.random.default_rng(1).standard_normal(12) + 0.3
    mean, low, high, _, p = student(values)
    wanted = stats.ttest_1samp(values, 0)
    interval = wanted.confidence_interval()
    assert (mean, low, high, p) == pytest.approx((values.mean(), interval.low, interval.high, wanted.pvalue))


def test_a_setting_is_found_by_its_last_part_and_refused_otherwise() -> None:
    speeds = sweep(np.random.default_rng(0), 0.0)
    assert find_setting(speeds, "threads") == "bench.threads"
    with pytest.raises(
        ConfigError, match=r"one value only here \(0\). Settings with several values: bench.threads"
    ):
        find_setting(speeds, "seed")
    with pytest.raises(ConfigError, match="is no setting of these measurements"):
        find_setting(speeds, "voltage")


TRUTHS: dict[str, tuple[tuple[float, ...], Callable[[np.ndarray], np.ndarray]]] = {
    "constant": ((100.0,), lambda n: 100.0 + 0 * n),
    "linear": ((120.0, -0.03), lambda n: 120.0 - 0.03 * n),
    "quadratic": ((80.0, 0.05, -4e-5), lambda n: 80.0 + 0.05 * n - 4e-5 * n**2),
    "time_linear": ((0.02, 1e-4), lambda n: n / (0.02 + 1e-4 * n)),
    "time_quadratic": ((0.01, 1e-4, 3e-8), lambda n: n / (0.01 + 1e-4 * n + 3e-8 * n**2)),
}


def fits_of(form: str, seed: int) -> list[Fit]:
    dice = np.random.default_rng(seed)
    n = np.repeat(PROMPTS, 8).astype(float)
    speed = TRUTHS[form][1](n) * (1 + NOISE / np.sqrt(5) * dice.standard_normal(len(n)))
    return fit_all(n, speed, n)


@pytest.mark.parametrize("form", list(TRUTHS))
def test_the_true_form_is_chosen_and_its_coefficients_are_recovered(form: str) -> None:
    chosen, inside = 0, np.zeros(len(TRUTHS[form][0]))
    for seed in range(SEEDS):
        fits = fits_of(form, seed)
        assert sum(fit.chosen for fit in fits) == 1
        chosen += next(fit for fit in fits if fit.chosen).form == form
        own = next(fit for fit in fits if fit.form == form)
        assert own.coefficients == pytest.approx(TRUTHS[form][0], rel=0.02)
        inside += [
            low <= truth <= high for truth, low, high in zip(TRUTHS[form][0], own.low, own.high, strict=True)
        ]
    assert chosen >= 0.97 * SEEDS
    assert (inside >= 0.90 * SEEDS).all()  # nominal 95 %


@pytest.mark.parametrize("form", ["constant", "linear", "time_linear"])
def test_a_quadratic_is_not_chosen_where_there_is_none(form: str) -> None:
    wrong = sum(
        next(fit for fit in fits_of(form, seed) if fit.chosen).form in ("quadratic", "time_quadratic")
        for seed in range(1000, 1000 + SEEDS)
    )
    assert wrong <= 4  # nominal: one of 200


def test_the_largest_r2_would_choose_the_quadratic_every_time() -> None:
    """The reference reports' rule, on data that are linear."""
    n = np.repeat(PROMPTS, 8).astype(float)
    for seed in range(SEEDS):
        speed = TRUTHS["linear"][1](n) + 0.05 * np.random.default_rng(seed).standard_normal(len(n))
        left = [np.sum((speed - np.polyval(np.polyfit(n, speed, degree), n)) ** 2) for degree in (1, 2)]
        assert left[1] < left[0]


@pytest.mark.parametrize("form", ["constant", "time_linear"])
def test_loud_noise_is_no_reason_for_a_curve(form: str) -> None:
    """A busy machine: 40 % noise. Speed and time are still compared fairly, and nothing richer is made up."""
    n = np.repeat(PROMPTS, 8).astype(float)
    terms: list[int] = []
    for seed in range(SEEDS):
        noise = np.exp(0.4 * np.random.default_rng(seed).standard_normal(len(n)))
        chosen = next(fit for fit in fit_all(n, TRUTHS[form][1](n) * noise, n) if fit.chosen)
        terms.append(len(chosen.coefficients))
    assert (
        sum(count > len(TRUTHS[form][0]) for count in terms) <= 8
    )  # nominal: four candidates of one in 200 each


def test_leave_one_out_error_is_that_of_leaving_out() -> None:
    fit = next(f for f in fits_of("time_quadratic", 3) if f.form == "time_quadratic")
    dice = np.random.default_rng(3)
    n = np.repeat(PROMPTS, 8).astype(float)
    speed = TRUTHS["time_quadratic"][1](n) * (1 + NOISE / np.sqrt(5) * dice.standard_normal(len(n)))
    errors: list[float] = []
    for place in range(len(n)):
        keep = np.arange(len(n)) != place
        t = n / speed
        design = np.vander(n, 3, increasing=True) / t[:, None]
        solution = np.linalg.lstsq(design[keep], np.ones(keep.sum()), rcond=None)[0]
        errors.append(1 - float(design[place] @ solution))
    assert fit.cross == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-2)


def test_a_cut_off_grid_is_not_averaged_over_what_is_missing() -> None:
    """Short prompts meet all outputs, long ones the short outputs only; the speed depends on the output alone."""
    table = pd.DataFrame([(p, g) for p in range(8) for g in range(8) if p + g < 10], columns=["n", "other"])
    speed = 100.0 + 10.0 * table["other"].to_numpy()
    found = balance(table["n"].to_numpy(), table["other"].to_numpy(), speed, np.ones(len(table)))
    naive = [speed[table["n"] == p].mean() for p in range(8)]
    assert np.ptp(naive) > 20
    assert np.ptp(found.speed) < 1e-9
    assert found.taken == len(set(table["other"].to_numpy()[found.rows])) - 1
    counts = np.unique(found.n, return_counts=True)[1]
    assert len(set(counts.tolist())) == 1  # a full rectangle
