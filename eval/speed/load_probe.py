"""One load in a process of its own: `python -m secateur.eval.speed.load_probe CONFIG.json` prints seconds and bytes."""

import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from secateur.eval.speed.config import SpeedConfig
from secateur.pruning.errors import ModelError
from secateur.pruning.files import write_json


def probe(config: SpeedConfig) -> dict[str, Any]:
    """Load once in a fresh process.

    Raises:
        ModelError: The process ended with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        write_json(path, config.model_dump(mode="json"))
        done = subprocess.run(
            [sys.executable, "-m", "secateur.eval.speed.load_probe", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ModelError(f"{config.model.name}: loading in a process of its own failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _child(path: Path) -> dict[str, Any]:
    import torch

    from secateur.eval.speed.models import make
    from secateur.eval.speed.timing import prompt, synchronise
    from secateur.pruning.memory import host_peak, reset_host_peak, resident
    from secateur.pruning.models.loading import outline

    config = SpeedConfig.model_validate_json(path.read_text(encoding="utf-8"))
    if config.bench.threads is not None:
        torch.set_num_threads(config.bench.threads)
    outline(config.model)  # imports what the family needs, so that none of it counts as loading
    gc.collect()
    reset_host_peak()
    before = resident()
    start = time.perf_counter()
    ready = make(config)
    synchronise(ready.device)
    load_s = time.perf_counter() - start
    loaded, peak = resident(), host_peak()
    ids = prompt(ready.vocabulary, 1, 8, ready.device)
    start = time.perf_counter()
    with torch.inference_mode():
        ready.forward(input_ids=ids)
    synchronise(ready.device)
    return {
        "load_s": load_s,
        "first_pass_s": time.perf_counter() - start,
        "rss_before": before,
        "rss_loaded": loaded,
        "rss_after_pass": resident(),
        "rss_peak": max(loaded, peak or 0),
    }


if __name__ == "__main__":
    print(json.dumps(_child(Path(sys.argv[1]))))
