import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_bench import Bench, make_bench

from secateur.slurm.dev.cluster import down, missing_programs, up
from secateur.slurm.dev.configs import Shape


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """A real Slurm of two nodes with two fake GPUs each, for the whole session."""
    missing = missing_programs()
    if missing:
        text = f"no Slurm here ({', '.join(missing)} missing): apt-get install slurm-wlm munge"
        if os.environ.get("REQUIRE_SLURM") == "1":
            pytest.fail(text)
        pytest.skip(text)
    with tempfile.TemporaryDirectory(prefix="sl", dir="/tmp") as folder:
        base = Path(folder) / "c"
        yield up(base, Shape(nodes=2, gpus=2, cpus=8, max_array=3, extra=("Licenses=prune:2",)))
        down(base)
