"""Greedy removal in blocks against the plain ways: refits from scratch, and matrices rewritten at every removal."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.pruning.allocation import make_plan
from secateur.pruning.calibration import load_samples
from secateur.pruning.capture.activations import Site
from secateur.pruning.capture.run import run_capture
from secateur.pruning.capture.snapshots import take
from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.capture.workers import Workers
from secateur.pruning.config import (
    BudgetConfig,
    CalibrationConfig,
    CaptureConfig,
    GuardConfig,
    MethodConfig,
    ModelConfig,
    TaylorConfig,
)
from secateur.pruning.errors import NumericsError
from secateur.pruning.greedy_removal import Left, eliminate, greedy_costs, inverted
from secateur.pruning.importance import ESTIMATORS
from secateur.pruning.importance.scores import final_scores
from secateur.pruning.models.loading import LoadedModel, load
from secateur.pruning.world.bundle import MODELS
from tests.pruning.brute import plain_greedy_costs
from tests.pruning.conftest import build, text
from tests.pruning.test_least_squares import problem

REAL = ("stories260K", "babyllama-tok105-940K")


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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("features", "units", "tokens"),
    [(96, 96, 300), (640, 640, 2000), (640, 640, 400), (1100, 1100, 1500), (640, 5, 2000), (1280, 10, 700)],
)  # several groups per round, several folds, fewer tokens than features, units of many features
def test_blocks_give_the_costs_of_the_plain_way(
    features: int, units: int, tokens: int, weighted: bool
) -> None:
    generator = torch.Generator().manual_seed(features + units)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    inputs, slopes = (
        draw(tokens, features) * torch.logspace(0, 2, features, dtype=torch.float64),
        draw(200, 24),
    )
    inputs[:, :: features // 7] = 0  # never active
    weight, gram = draw(24, features), (inputs.T @ inputs).float()
    metric = (slopes.T @ slopes).float() if weighted else None
    expected = plain_greedy_costs(weight, gram, metric, units)
    found = greedy_costs(weight, gram, metric, units)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-12 * float(expected.max()))
    assert torch.equal(found.argsort(stable=True), expected.argsort(stable=True))


def _surgeon(costs: Any) -> Estimator:
    """`surgeon` with another way to the costs."""

    def score(view: ProjectionView) -> torch.Tensor | None:
        if view.gram is None or view.curvature is None:
            return None
        return 0.5 * costs(view.weight, view.gram, view.curvature, view.units) / max(1, view.tokens) ** 2

    return Estimator("surgeon", Level.CURVATURE, score, "as registered")


def _same_plans(folder: str, cache: Path) -> None:
    """Plans at three ratios and costs, by the registered `surgeon` and by the plain way."""
    loaded = load(ModelConfig(path=folder), "cpu")
    taylor = TaylorConfig(num_samples=16, seq_len=64, batch_size=4)
    samples = load_samples(CalibrationConfig(source="world"), taylor, loaded.tokenizer, cache)
    method = MethodConfig(estimator="surgeon")
    plans, scores = [], []
    for estimator in (ESTIMATORS["surgeon"], _surgeon(plain_greedy_costs)):
        capture = run_capture(
            loaded, samples, CaptureConfig(priors=()), taylor, Level.CURVATURE, [16], [estimator]
        )
        found = final_scores(loaded, capture, method, 16, 1.0, 0)
        scores.append(capture.score("surgeon", 16, "mlp"))
        plans.append(
            [
                make_plan(
                    found, loaded.layout, method, BudgetConfig(ratio=ratio), GuardConfig(), "test"
                ).layers
                for ratio in (0.1, 0.2, 0.4)
            ]
        )
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-6, atol=0)
    assert plans[0] == plans[1]
    assert len({str(plan) for plan in plans[0]}) == 3


@pytest.mark.parametrize("name", MODELS)
def test_plans_of_the_shipped_models_are_those_of_the_plain_way(name: str, tmp_path: Path) -> None:
    _same_plans(f"bundled:{name}", tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_plans_of_real_models_are_those_of_the_plain_way(name: str, assets: Path, tmp_path: Path) -> None:
    _same_plans(str(assets / "models" / name), tmp_path)


class _Launches(TorchDispatchMode):
    """Counts operations that a device would run; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("features", "units", "most"), [(14336, 14336, 34), (4096, 8, 55)])
def test_rounds_of_an_8b_neither_wait_for_the_device_nor_launch_much(
    features: int, units: int, most: int
) -> None:
    """On `meta` tensors every wait (`item`, `bool`, `tolist`, a mask as index) is an error."""
    matrix = torch.empty(features, features, dtype=torch.float64, device="meta")
    left = Left(matrix, matrix, units)
    with _Launches() as launches:
        costs = eliminate(left)
    rounds = min(units, 512)
    assert costs.shape == (units,)
    assert left.count == 0
    assert launches.seen.total() <= most * rounds
    assert max(part.numel() for part in left.panels) <= 512 * features


def test_a_gram_matrix_that_rounding_made_indefinite_gets_more_damping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gram = torch.eye(4, dtype=torch.float64)
    gram[:2, :2] = torch.tensor([[1.0, 1.002], [1.002, 1.0]])  # least eigenvalue -0.002
    inverse = inverted(gram, 1e-4)
    assert "not positive definite" in caplog.text
    torch.testing.assert_close(inverse @ (gram + 1e-2 * torch.eye(4)), torch.eye(4, dtype=torch.float64))


def test_a_gram_matrix_that_stays_indefinite_is_refused() -> None:
    gram = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    with pytest.raises(NumericsError, match="more calibration samples"):
        greedy_costs(torch.ones(3, 2), gram, None, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_costs_that_are_not_finite_are_refused(value: float) -> None:
    weight = torch.ones(3, 4)
    weight[1, 2] = value
    with pytest.raises(NumericsError):
        greedy_costs(weight, torch.eye(4), None, 4)


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_scores_are_computed_once_per_snapshot_and_block(segments: int) -> None:
    seen: list[tuple[int, int]] = []

    def score(view: ProjectionView) -> torch.Tensor | None:
        if view.gram is not None:
            seen.append((view.tokens, view.layer))
        return None

    samples, counting = text(6), Estimator("counting", Level.CURVATURE, score, "counts")
    config, taylor = (
        CaptureConfig(priors=(), segments=segments),
        TaylorConfig(seq_len=20, num_samples=6, batch_size=1),
    )
    run_capture(build("llama"), samples, config, taylor, Level.CURVATURE, [2, 6], [counting])
    assert sorted(seen) == sorted(
        (count * 20, layer) for count in (2, 6) for layer in range(4) for _ in range(2)
    )


class _SeenError(Exception):
    """Carries what an estimator was shown."""


@pytest.mark.parametrize("name", ["gram", "curvature"])
def test_matrices_that_waited_on_the_host_are_scored_on_the_models_device(name: str) -> None:
    """`capture.offload`: `meta` stands for the accelerator."""
    loaded, device = build("llama"), torch.device("meta")
    loaded.model.to(device)
    loaded = LoadedModel(loaded.model, None, loaded.adapter, loaded.layout, "test", device, None)
    empty = torch.zeros(32, dtype=torch.float64, device=device)
    site = Site(0, "attention", 4, empty, empty, empty[:4])
    setattr(site, name, torch.eye(32))

    def score(view: ProjectionView) -> torch.Tensor | None:
        if view.activation_sum is not None:
            raise _SeenError(view)
        return None

    with pytest.raises(_SeenError) as caught:
        take(
            loaded,
            range(1),
            [Estimator("seen", Level.CURVATURE, score, "shows")],
            [site],
            [],
            Workers(),
            1,
            1,
        )
    view = caught.value.args[0]
    assert view.weight.device == getattr(view, name).device == device


def test_slopes_that_overflow_are_named_as_such() -> None:
    """Not as a Gram matrix that more samples would mend."""
    metric = torch.full((3, 3), torch.inf)
    with pytest.raises(NumericsError, match="gradients explode"):
        greedy_costs(torch.ones(3, 4), torch.eye(4), metric, 2)
