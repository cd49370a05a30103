"""Hydra's own submitit launcher, for a quick sweep without a plan."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.slurm.plan import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_multirun_sends_each_point_to_slurm_and_finished_ones_skip(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = [
        sys.executable, "-P", "-m", "secateur", "run", "--multirun", "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1", "hydra.launcher.mem_gb=1",
        "hydra.launcher.timeout_min=30", "model=tiny_llama", "method=random,magnitude", "eval=none",
        f"out={tmp_path}/runs",
    ]  # fmt: skip
    env = {**os.environ, **cluster, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, env=env, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    records = {
        path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/record.json")
    }
    assert sorted(name.split("-")[1] for name in records) == ["magnitude", "random"]
    assert list((tmp_path / ".submitit").rglob("*_log.out")), "the points ran as jobs"
