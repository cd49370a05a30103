"""Closed forms against the plain way: `lstsq`, and removal of one unit at a time with a full refit."""

import pytest
import torch

from pruning.least_squares import best_refit, block_cost, greedy_costs, refit_error, ridge_refit


def problem(
    features: int = 6, outputs: int = 4, tokens: int = 50
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights [D, F], activations [T, F] and a metric [D, D], float64; features depend on each other."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    slopes = draw(tokens, outputs)
    return draw(outputs, features), draw(tokens, features) @ draw(features, features), slopes.T @ slopes


def test_ridge_refit_is_the_least_squares_solution() -> None:
    weight, inputs, _ = problem()
    kept = torch.tensor([0, 2, 5])
    target = inputs @ weight.T + 0.1
    found = ridge_refit(weight, inputs.T @ inputs, inputs.T @ target, kept, ridge=0.0)
    torch.testing.assert_close(found, torch.linalg.lstsq(inputs[:, kept], target).solution.T)


def test_a_large_ridge_keeps_the_weights() -> None:
    weight, inputs, _ = problem()
    kept = torch.tensor([1, 3])
    found = ridge_refit(weight, inputs.T @ inputs, inputs.T @ (inputs @ weight.T), kept, ridge=1e9)
    torch.testing.assert_close(found, weight[:, kept], rtol=1e-6, atol=1e-6)


def test_refit_error_is_the_squared_error() -> None:
    weight, inputs, _ = problem()
    kept, target = torch.tensor([0, 1, 4]), inputs @ weight.T
    found = refit_error(weight[:, kept], inputs.T @ inputs, inputs.T @ target, kept)
    plain = (inputs[:, kept] @ weight[:, kept].T - target).square().sum() - target.square().sum()
    torch.testing.assert_close(found, plain)


def test_the_ridge_is_the_best_on_held_out_tokens() -> None:
    weight, inputs, _ = problem(tokens=14)
    kept, candidates = torch.tensor([0, 1, 2]), (1e-6, 1e-2, 1.0, 100.0)
    target = (
        inputs @ weight.T
        + torch.randn(14, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    )
    moments = [(a.T @ a, a.T @ b) for a, b in ((inputs[:8], target[:8]), (inputs[8:], target[8:]))]
    _, ridge = best_refit(weight, moments[0], moments[1], kept, candidates)
    errors = {
        r: (inputs[8:, kept] @ ridge_refit(weight, *moments[0], kept, r).T - target[8:]).square().sum()
        for r in candidates
    }
    assert ridge == min(errors, key=errors.__getitem__)
    assert ridge != candidates[0]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_greedy_costs_equal_refits_from_scratch(size: int, weighted: bool) -> None:
    """Each unit's cost is the rise of the best achievable error when it goes next, by a refit of all that is left."""
    weight, inputs, metric = problem()
    metric = metric if weighted else torch.eye(4, dtype=torch.float64)
    units, target = 6 // size, inputs @ weight.T
    alive, errors, expected = list(range(units)), {(): 0.0}, torch.zeros(units, dtype=torch.float64)
    floor = 0.0
    while alive:
        trials = {}
        for unit in alive:
            kept = [u * size + k for u in alive if u != unit for k in range(size)]
            rest = target
            if kept:
                rest = target - inputs[:, kept] @ torch.linalg.lstsq(inputs[:, kept], target).solution
            trials[unit] = float(((rest @ metric) * rest).sum()) - errors[()]
        unit = min(trials, key=trials.__getitem__)
        errors[()] += trials[unit]
        floor = max(floor, trials[unit])
        expected[unit] = floor
        alive.remove(unit)
    found = greedy_costs(weight, inputs.T @ inputs, metric if weighted else None, units, ridge=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_many_units_go_in_groups_and_none_is_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2000, 700, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 700, generator=generator, dtype=torch.float64)
    costs = greedy_costs(weight, inputs.T @ inputs, None, 700)
    assert bool((costs > 0).all())
    scale = torch.linspace(0.01, 1, 700, dtype=torch.float64)
    ordered = greedy_costs(weight * 0 + scale, inputs.T @ inputs, None, 700)
    assert ordered[:100].mean() < 0.1 * ordered[-100:].mean()


def test_a_dead_feature_costs_nothing() -> None:
    weight, inputs, _ = problem()
    inputs[:, 2] = 0
    costs = greedy_costs(weight, inputs.T @ inputs, None, 6)
    assert costs[2] == pytest.approx(0.0, abs=1e-9)
    assert sum(float(c) > 1e-6 for c in costs) == 5


def test_block_cost_is_the_weighted_output() -> None:
    weight, inputs, metric = problem()
    output = inputs @ weight.T
    plain = sum(float(o @ metric @ o) for o in output)
    assert float(block_cost(weight, inputs.T @ inputs, metric)) == pytest.approx(plain)
