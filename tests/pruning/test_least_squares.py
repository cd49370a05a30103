"""Closed forms against the plain way: `lstsq`."""

import pytest
import torch

from secateur.pruning.least_squares import NormalEquations, best_refit, block_cost, ridge_refit


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


def test_the_held_out_error_is_the_squared_error_less_that_of_the_weights() -> None:
    weight, inputs, _ = problem()
    kept, target = torch.tensor([0, 1, 4]), inputs @ weight.T + 0.1
    change = torch.randn(3, 4, dtype=torch.float64)
    found = NormalEquations.of(weight, (inputs.T @ inputs, inputs.T @ target), kept).error(change)
    before, after = (
        (inputs[:, kept] @ columns.T - target).square().sum()
        for columns in (weight[:, kept], weight[:, kept] + change.T)
    )
    torch.testing.assert_close(found, after - before)


def test_an_indefinite_gram_matrix_is_solved_as_it_is() -> None:
    gram = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    weight, cross = torch.ones(1, 2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    found = ridge_refit(weight, gram, cross, torch.tensor([0, 1]), 0.0)
    torch.testing.assert_close(gram @ found.T, cross)


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


def test_float32_products_are_not_enough_for_a_refit_on_few_tokens() -> None:
    """Why Gram matrices of a refit are float64: below full rank, rounding of the products competes with the ridge."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 256, generator=generator, dtype=torch.float64)
    moved: dict[int, float] = {}
    for tokens in (128, 1024):
        rows = torch.randn(tokens, 256, generator=generator) * torch.logspace(-1, 1, 256)
        wide = rows.double()
        grams = wide.T @ wide, (rows.T @ rows).double()
        exact, rough = (ridge_refit(weight, g, g @ weight.T, torch.arange(200), 1e-6) for g in grams)
        moved[tokens] = float((rough - exact).norm() / exact.norm())
    assert moved[128] > 1e-3
    assert moved[1024] < 1e-5


def test_block_cost_is_the_weighted_output() -> None:
    weight, inputs, metric = problem()
    output = inputs @ weight.T
    plain = sum(float(o @ metric @ o) for o in output)
    assert float(block_cost(weight, inputs.T @ inputs, metric)) == pytest.approx(plain)
