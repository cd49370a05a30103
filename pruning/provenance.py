"""Where a result comes from: versions, commit, hardware; and how much memory it took."""

import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from secateur import __version__

PACKAGES = (
    "torch",
    "transformers",
    "lm-eval",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "hydra-core",
)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=1)
def code_version() -> dict[str, Any]:
    """Secateur's version and, from a checkout, the commit and whether files differ from it."""
    root = Path(__file__).resolve().parent.parent
    commit, dirty = None, None
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--untracked-files=no")
        dirty = None if status is None else bool(status)
    return {"secateur": __version__, "commit": commit, "dirty": dirty}


def provenance() -> dict[str, Any]:
    """Versions of everything that can change a number, and the machine."""
    return {
        **code_version(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": _devices(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def peak_memory() -> dict[str, int | None]:
    """Largest memory of this process so far, in bytes: `host`, and `device` where there is an accelerator."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host = peak if sys.platform == "darwin" else peak * 1024
    torch = sys.modules.get("torch")
    device = None
    if torch is not None and torch.cuda.is_available():
        device = int(torch.cuda.max_memory_allocated())
    return {"host": host, "device": device}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607  (whichever git the user has)
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _devices() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
