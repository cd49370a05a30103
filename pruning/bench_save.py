"""Saving a model against a plain `cp` of as many bytes, all flushed to disk.

`python -m secateur.pruning.bench_save [shape=llama100m] [rounds=3] [shard=BYTES]` alternates the copy, Transformers'
own way and
ours, in one file and in files of `shard` bytes (a quarter of the model by default); medians, and ratios to `cp`.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from secateur.pruning import shards
from secateur.pruning.bench_capture import build
from secateur.pruning.shards import save_weights


def flushed(folder: Path) -> None:
    """Force all files of a folder to disk."""
    for path in folder.iterdir():
        with path.open("rb") as handle:
            os.fsync(handle.fileno())


def main(argv: list[str]) -> int:
    """Measure, and print."""
    options = {"shape": "llama100m", "rounds": "3", **dict(word.split("=", 1) for word in argv)}
    disable_progress_bar()
    model: Any = build(options["shape"], "cpu").model
    size = sum(parameter.nbytes for parameter in model.parameters())
    parts = int(options.get("shard", size // 4))
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source"
        model.save_pretrained(source)
        flushed(source)

        def ours(folder: Path, shard: int) -> None:
            shards.SHARD = shard
            save_weights(model, folder)

        sides: dict[str, Callable[[Path], object]] = {
            "cp": lambda folder: subprocess.run(["cp", "-r", str(source), str(folder)], check=True),  # noqa: S607
            "save_pretrained": model.save_pretrained,
            "ours, one file": lambda folder: ours(folder, 2 * size),
            f"ours, files of {parts / 1e6:.0f} MB": lambda folder: ours(folder, parts),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(int(options["rounds"])):
            for side, work in sides.items():
                target = Path(place) / "target"
                start = time.perf_counter()
                work(target)
                flushed(target)
                seconds[side].append(time.perf_counter() - start)
                shutil.rmtree(target)
    base = statistics.median(seconds["cp"])
    for side, found in seconds.items():
        middle = statistics.median(found)
        print(f"{side}: {middle:.2f} s for {size / 1e6:.0f} MB, {middle / base:.2f} of cp")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
