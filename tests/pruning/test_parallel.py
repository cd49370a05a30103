"""Two processes give what one gives, whichever launcher starts them."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from secateur.pruning.capture.result import Capture
from secateur.pruning.capture.views import Level
from tests.pruning.commands import Outcome, Place, call, child_environment, leftovers, only_record, place

pytestmark = pytest.mark.slow
SCORES = 1e-5


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A model with biases and texts, made once."""
    return place(tmp_path_factory.mktemp("parallel"), "llama-mha-bias")


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def two(launcher: str, *argv: str) -> Outcome:
    """`secateur ARGV` in two processes that work together, on the CPU."""
    if launcher == "accelerate":
        launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port())]
    else:
        launch = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port())]
    done = subprocess.run(
        [sys.executable, "-m", *launch, "-m", "secateur", *argv],
        capture_output=True, text=True, timeout=90, check=False, env=child_environment(),
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def captured(here: Place) -> Capture:
    """The one capture below an output folder."""
    (path,) = here.out.glob("cache/captures/*/*/capture.json")
    return Capture.load(path.parent)


def same(two: Capture, one: Capture) -> None:
    """Everything that a capture holds agrees to 1e-5."""
    assert (two.level, two.snapshots, two.tensors) == (one.level, one.snapshots, one.tensors)
    assert two.scores.keys() == one.scores.keys()
    assert one.scores
    for name, value in one.scores.items():
        np.testing.assert_allclose(two.scores[name], value, rtol=SCORES, atol=1e-9, err_msg=name)
    for kind in ("loss", "cosine", "gate"):
        a, b = two.priors(kind), one.priors(kind)
        assert a is not None
        assert b is not None
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=SCORES, atol=1e-6, err_msg=kind)
    assert two.batch_statistics.shape == one.batch_statistics.shape
    np.testing.assert_allclose(two.batch_statistics, one.batch_statistics, rtol=1e-4, atol=1e-7)
    for count in one.snapshots if one.level >= Level.GRADIENTS else ():
        a, b = two.accumulated_statistics[count], one.accumulated_statistics[count]
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for fact in ("samples", "text", "forward_tokens", "backward_tokens", "skipped_batches"):
        assert two.facts[fact] == one.facts[fact], fact
    assert two.facts["mean_loss"] == pytest.approx(one.facts["mean_loss"], rel=SCORES)
    assert (two.facts["workers"], one.facts["workers"]) == (2, 1)


@pytest.mark.parametrize(
    ("launcher", "method", "segments"),
    [("accelerate", "taylor_gate", 1), ("torchrun", "taylor_second", 1), ("torchrun", "taylor", 3)],
)
def test_two_processes_capture_what_one_captures(
    here: Place, tmp_path: Path, launcher: str, method: str, segments: int
) -> None:
    """Levels GATE, SQUARES, and GRADIENTS in segments; priors of every sample.

    Seven batches, so that the processes have unequal shares.
    """
    alone = replace(here, folder=tmp_path / "alone")
    overrides = (
        f"method={method}",
        "taylor.num_samples=13",
        "capture.snapshots=[6]",
        "capture.prior_share=1.0",
        f"capture.segments={segments}",
    )
    assert call("capture", *alone.arguments(*overrides)).code == 0
    outcome = two(launcher, "capture", *here.arguments(*overrides))
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("capture computed") == 1  # one of the two speaks
    assert leftovers(here.out) == []
    same(captured(here), captured(alone))


def test_a_process_without_a_batch_and_a_run_to_its_end(here: Place, tmp_path: Path) -> None:
    """One batch for two processes; then pruning, perplexity and one record, and a third process reuses it all."""
    alone = replace(here, folder=tmp_path / "alone")
    overrides = ("method=blockwise", "taylor.num_samples=2", "capture.prior_share=1.0", "save_model=true")
    argv = (*overrides, *here.perplexity())
    assert call("run", *alone.arguments(*argv)).code == 0
    outcome = two("torchrun", "run", *here.arguments(*argv))
    assert outcome.code == 0, outcome.err
    same(captured(here), captured(alone))
    pair, single = only_record(here.out), only_record(alone.out)
    assert pair["run_id"] == single["run_id"]
    assert pair["parameters"] == single["parameters"]
    for name, metric in single["metrics"].items():
        assert pair["metrics"][name]["value"] == pytest.approx(metric["value"], rel=1e-4)
    assert (here.out / pair["run_id"] / "model" / "model.safetensors").is_file()
    assert leftovers(here.out) == []
    again = call("run", *here.arguments(*argv))
    assert again.code == 0
    assert "done already" in again.err
