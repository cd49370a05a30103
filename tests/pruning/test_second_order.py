"""`obs` and `surgeon` against refitting every set of units from scratch, on what plain hooks and `backward()` saw."""

from collections.abc import Callable

import pytest
import torch

from secateur.pruning.calibration import Samples
from secateur.pruning.capture.views import Level
from secateur.pruning.models.adapter import STRUCTURES, linear
from tests.pruning.conftest import build, capture_of, text
from tests.pruning.test_baselines import Watch

RIDGE = 1e-4
"""Damping of the Gram matrix, relative to the mean of its diagonal."""


def lost(weight: torch.Tensor, gram: torch.Tensor, metric: torch.Tensor, gone: list[int]) -> float:
    """Least sum over tokens of e^T M e that any weight without the columns `gone` can reach, by `lstsq`."""
    root = torch.linalg.cholesky(gram)  # sum over tokens of |(V - W) a|^2 = |(V - W) root|^2
    kept = [i for i in range(len(gram)) if i not in gone]
    goal = weight @ root
    fitted = torch.linalg.lstsq(root[kept].T, goal.T).solution.T if kept else goal[:, :0]
    error = goal - fitted @ root[kept]
    return float((metric @ error * error).sum())


def greedy(weight: torch.Tensor, gram: torch.Tensor, metric: torch.Tensor, units: int) -> torch.Tensor:
    """Cost of each unit at its turn: every set refitted from scratch, cheapest next unit first. float64 [U]."""
    gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    size = len(gram) // units
    costs, gone, before, floor = torch.zeros(units, dtype=torch.float64), [], 0.0, 0.0
    while len(gone) < units:
        trials = {
            unit: lost(weight, gram, metric, [u * size + i for u in [*gone, unit] for i in range(size)])
            for unit in range(units)
            if unit not in gone
        }
        unit = min(trials, key=trials.__getitem__)
        floor = max(floor, trials[unit] - before)
        costs[unit], before = floor, trials[unit]
        gone.append(unit)
    return costs


def check_greedy(
    variant: str, name: str, metric: Callable[[torch.Tensor], torch.Tensor], factor: Callable[[int], float]
) -> None:
    """Scores of an estimator against `greedy` on what plain hooks saw."""
    loaded, samples = build(variant, torch.float64, intermediate_size=8), text(6)
    watch = Watch(loaded, samples)
    capture = capture_of(loaded, samples, Level.CURVATURE, [6])
    tokens = samples.ids.numel()
    for structure in STRUCTURES:
        expected: list[torch.Tensor] = []
        for index, layer in enumerate(loaded.adapter.decoder_layers(loaded.model)):
            module = linear(layer, loaded.adapter.output(structure))
            assert module is not None
            rows = watch.inputs[index, structure]
            slopes = metric(watch.slopes[index, structure])
            units = loaded.layout.layers[index].units(structure)
            expected.append(greedy(module.weight.detach(), rows.T @ rows, slopes, units) * factor(tokens))
        torch.testing.assert_close(
            capture.score(name, 6, structure).double(), torch.cat(expected), rtol=1e-4, atol=0
        )


def test_obs_equals_refitting_every_set_from_scratch(variant: str) -> None:
    check_greedy(variant, "obs", lambda g: torch.eye(g.shape[1], dtype=g.dtype), lambda tokens: 1 / tokens)


def test_surgeon_equals_refitting_every_set_under_the_fisher_metric(variant: str) -> None:
    check_greedy(variant, "surgeon", lambda g: g.T @ g, lambda tokens: 0.5 / tokens**2)


def uneven(lengths: tuple[int, ...]) -> Samples:
    """Samples of several lengths, padded."""
    found = text(len(lengths))
    return Samples(found.ids, torch.tensor(lengths), "random")


@pytest.mark.parametrize("lengths", [(20,) * 6, (20, 7, 12, 20, 3, 15)])
def test_surgeon_does_not_know_the_batch_size(variant: str, lengths: tuple[int, ...]) -> None:
    """The slope is that of the summed loss, so that batches and padding are no matter."""
    samples = uneven(lengths)
    found = [
        capture_of(
            build(variant, torch.float64, intermediate_size=8), samples, Level.CURVATURE, [6], batch_size=size
        )
        for size in (1, 2, 6)
    ]
    for name in ("surgeon", "obs", "block_rise"):
        for structure in STRUCTURES:
            one, two, six = (capture.score(name, 6, structure) for capture in found)
            assert float(one.min()) > 0
            torch.testing.assert_close(two, one, rtol=1e-4, atol=0)
            torch.testing.assert_close(six, one, rtol=1e-4, atol=0)
