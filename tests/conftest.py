"""What all tests share: one thread, no network, and where the real models and data are when they are there."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(
    path
)  # children find this checkout, installed or not, from any folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def device() -> "torch.device":
    """Where tests of the `gpu` tier run: `SECATEUR_TEST_DEVICE`, else the GPU of this machine, else its CPU."""
    import torch

    name = os.environ.get("SECATEUR_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip(
            f"SECATEUR_TEST_DEVICE={name}: there is no CUDA device; cpu runs what can run without one"
        )
    return torch.device(name)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with the real models and data; the test is skipped where there is none."""
    folder = Path(os.environ.get("SECATEUR_SHARED", ROOT.parent / "shared")) / "assets"
    if not folder.is_dir():
        if os.environ.get("REQUIRE_SHARED") == "1":
            pytest.fail(f"REQUIRE_SHARED=1, but there is no {folder}")
        pytest.skip(f"real models and data are not here ({folder}); set SECATEUR_SHARED")
    return folder
