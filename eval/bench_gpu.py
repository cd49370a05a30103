"""Everything that should be fast on a GPU, in one go: each row with its floor and the ratio.

`python -m secateur.eval.bench_gpu [shape=llama3_8b|llama100m|tiny] [device=cuda] [out=bench_gpu.json] [minutes=8]
[steps=...]`
prints every row as it ends and writes all of them so far to `out`, so that a stop half-way leaves numbers. Random
weights, bfloat16 on a GPU, float32 on a CPU. A floor is what the measured peaks of a matrix product and of reading
memory allow for the operations and bytes that no implementation can do without.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from secateur.eval.bench_gpu_eval import (
    dense_evaluation,
    dense_speed,
    pruned_evaluation,
    pruned_speed,
    rounded_speed,
)
from secateur.eval.bench_gpu_pruning import calibration, one_layer, whole_model
from secateur.eval.bench_gpu_row import Bench, Row
from secateur.eval.speed.roof import measure_roof
from secateur.pruning.bench_capture import SHAPES, build
from secateur.pruning.errors import ConfigError, SecateurError
from secateur.pruning.files import write_json
from secateur.pruning.models.loading import resolve_device
from secateur.pruning.provenance import provenance

STEPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "calibration": calibration,
    "dense_speed": dense_speed,
    "dense_evaluation": dense_evaluation,
    "one_layer": one_layer,
    "whole_model": whole_model,  # leaves the model pruned
    "pruned_evaluation": pruned_evaluation,
    "pruned_speed": pruned_speed,
    "rounded_speed": rounded_speed,
}
DEFAULTS = {
    "shape": "llama3_8b", "device": "cuda", "out": "bench_gpu.json", "minutes": "8", "steps": ",".join(STEPS),
}  # fmt: skip


def options_of(words: list[str]) -> dict[str, str]:
    """The options of a command line.

    Raises:
        ConfigError: One is unknown, or names a shape, step or device that does not exist.
    """
    given = dict(word.split("=", 1) for word in words if "=" in word)
    unknown = [word for word in words if word.split("=", 1)[0] not in DEFAULTS or "=" not in word]
    options = DEFAULTS | given
    if unknown:
        raise ConfigError(f"{unknown[0]}: options are {', '.join(f'{name}=' for name in DEFAULTS)}")
    if options["shape"] not in SHAPES:
        raise ConfigError(f"shape={options['shape']}: shapes are {', '.join(SHAPES)}")
    for step in options["steps"].split(","):
        if step not in STEPS:
            raise ConfigError(f"steps={step}: steps are {', '.join(STEPS)}")
    resolve_device(options["device"])
    return options


def main(argv: list[str]) -> int:
    """Run the steps, and keep what they found as they go."""
    console = Console(width=140)
    try:
        options = options_of(argv)
    except ConfigError as error:
        console.print(f"error: {error}", style="red")
        return 2
    if options["device"] == "cpu":
        torch.set_num_threads(1)
    device, started = torch.device(options["device"]), time.perf_counter()
    loaded = build(options["shape"], options["device"])
    dtype: torch.dtype = loaded.model.dtype  # type: ignore[assignment]
    roofs = {kind: measure_roof(device, kind) for kind in {dtype, torch.float64}}
    bench = Bench(options["shape"], loaded, roofs[dtype], roofs[torch.float64])
    rows, failed, left_out = list[dict[str, object]](), dict[str, str](), list[str]()
    report = {
        "bench": "gpu",
        "options": options,
        "provenance": provenance(),
        "roof": {roof.dtype: roof.model_dump() for roof in roofs.values()},
        "rows": rows,
        "failed": failed,
        "left_out": left_out,
    }
    for name in options["steps"].split(","):
        try:
            for row in _in_time(STEPS[name](bench), started + 60 * float(options["minutes"])):
                rows.append({"step": name, **asdict(row), "ratio": row.ratio})
                console.print(f"{name}: {row.text()}")
                write_json(Path(options["out"]), report)
        except TimeoutError:
            left_out.append(name)
            console.print(f"{name}: no time left for (all of) it")
        except (SecateurError, RuntimeError, MemoryError) as error:
            failed[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
            console.print(f"{name}: failed: {failed[name]}")
        write_json(Path(options["out"]), report)
    console.print(f"{len(rows)} rows in {time.perf_counter() - started:.0f} s: {options['out']}")
    return min(len(failed), 1)


def _in_time(rows: Iterator[Row], end: float) -> Iterator[Row]:
    """The rows of a step as long as there is time to begin another one.

    Raises:
        TimeoutError: There is none left.
    """
    while True:
        if time.perf_counter() > end:
            raise TimeoutError
        row = next(rows, None)
        if row is None:
            return
        yield row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
