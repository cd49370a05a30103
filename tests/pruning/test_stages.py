"""Iterative schedules: trajectories share their beginnings, and go on from what is stored with the same bits."""

from pathlib import Path

import pytest
import torch

from secateur.eval.config import RunConfig
from secateur.pruning import pipeline
from secateur.pruning.compose import compose, register
from secateur.pruning.config import validate
from secateur.pruning.errors import StorageError
from secateur.pruning.pipeline import Pruned

OVERRIDES = (
    "model=tiny_llama", "method=taylor_gate", "calibration=world", "taylor.seq_len=32", "taylor.num_samples=8",
    "method.schedule.kind=iterative", "method.schedule.step=0.05", "method.compensation.kind=least_squares",
)  # fmt: skip


def cut(out: Path, ratio: float, *more: str) -> Pruned:
    """One iterative run."""
    register(RunConfig)
    return pipeline.run(
        validate(RunConfig, compose("run", [*OVERRIDES, f"budget.ratio={ratio}", f"out={out}", *more]))
    )


def same(one: Pruned, two: Pruned) -> bool:
    """Whether two pruned models have the same bits."""
    left, right = one.loaded.model.state_dict(), two.loaded.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_longer_trajectory_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    short = cut(tmp_path / "shared", 0.15)
    assert short.story["cuts"] == [0.05, 0.1, 0.15]
    longer, alone = cut(tmp_path / "shared", 0.2), cut(tmp_path / "alone", 0.2)
    assert longer.plan == alone.plan
    assert same(longer, alone)
    one_pass = alone.work["backward_tokens"] // 4
    assert one_pass == 8 * 32
    assert longer.work["backward_tokens"] == one_pass  # three of four captures were there
    assert abs(longer.plan.removed - longer.plan.target) < longer.loaded.layout.layers[0].channel_cost


def test_a_finished_trajectory_is_restored_bit_for_bit(tmp_path: Path) -> None:
    first, again = cut(tmp_path, 0.1), cut(tmp_path, 0.1)
    assert again.work == {"forward_tokens": 0, "backward_tokens": 0}
    assert again.plan == first.plan
    assert same(first, again)


@pytest.mark.parametrize("kind", ["none", "bias"])
def test_trajectories_without_refit_are_restored_too(tmp_path: Path, kind: str) -> None:
    option = f"method.compensation.kind={kind}"
    first = cut(tmp_path, 0.1, option)
    again = cut(tmp_path, 0.1, option)
    assert again.work["backward_tokens"] == 0
    assert same(first, again)


def test_every_ratio_on_the_way_is_a_plan(tmp_path: Path) -> None:
    found = cut(tmp_path, 0.15)
    plans = [pipeline.PruningPlan.load(path) for path in (tmp_path / "cache" / "stages").glob("*/plan.json")]
    assert sorted(round(plan.ratio, 2) for plan in plans) == [0.05, 0.1, 0.15]
    before = min(plans, key=lambda plan: plan.removed)
    for early, late in zip(before.layers, found.plan.layers, strict=True):
        assert set(late.kept_channels) <= set(early.kept_channels)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    cut(tmp_path, 0.1)
    for path in (tmp_path / "cache" / "stages").glob("*/weights.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StorageError, match="damaged"):
        cut(tmp_path, 0.1)
