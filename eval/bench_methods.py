"""Every method beside Torch-Pruning at equal parameters: same calibration samples, same perplexity.

`python -m secateur.eval.bench_methods model=DIR train=FILE text=FILE [ratios=0.1,0.2,0.4] [methods=secateur,...]
[samples=256] [length=128] [window=256] [max_tokens=60000] [blank_lines=single] [limit=120] [out=FOLDER]` prints a table
and writes `methods.json` into `out`. Torch-Pruning (`pip install 'secateur[bench]'`) has `limit` seconds for a cut.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from secateur.eval.bench_torch_pruning import gradients, limited, prune_to
from secateur.eval.config import RunConfig
from secateur.eval.perplexity import perplexity
from secateur.eval.protocols import protocols
from secateur.eval.unseen import evaluation_text
from secateur.pruning import pipeline
from secateur.pruning.compose import compose, options, register
from secateur.pruning.config import validate
from secateur.pruning.errors import BudgetError, ConfigError, SecateurError
from secateur.pruning.files import write_json
from secateur.pruning.models.loading import LoadedModel, load
from secateur.pruning.obtain import samples_for

OURS = ("secateur", "secateur_search")
SLOW = ("secateur_search", "taylor_iterative")
"""Left to the end; the search is run only when it is asked for."""
TORCH_PRUNING = {"torch_pruning_mlp": False, "torch_pruning": True}
"""Names of Torch-Pruning's rows, and whether attention is cut as well."""
DEFAULTS = {
    "ratios": "0.1,0.2,0.4", "samples": "256", "length": "128", "window": "256", "max_tokens": "60000",
    "blank_lines": "single", "device": "cpu", "seed": "0", "limit": "120",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One method at one ratio; without a perplexity `note` says why."""

    method: str
    ratio: float
    removed: float | None = None
    perplexity: float | None = None
    seconds: float = 0.0
    note: str = ""


def config_of(given: dict[str, str], method: str, ratio: float, out: Path) -> RunConfig:
    """The run of a method at a ratio."""
    words = [
        "model=local", f"model.path={given['model']}", f"method={method}", "calibration=text_file",
        f"calibration.path={given['train']}", f"calibration.blank_lines={given['blank_lines']}",
        f"calibration.seed={given['seed']}", f"seed={given['seed']}", f"taylor.num_samples={given['samples']}",
        f"taylor.seq_len={given['length']}", "eval=ppl", f"eval.ppl.text={given['text']}",
        f"eval.ppl.window={given['window']}", f"eval.ppl.max_tokens={given['max_tokens']}",
        f"eval.ppl.blank_lines={given['blank_lines']}", f"device={given['device']}", f"out={out}",
        f"budget.ratio={ratio}", "progress=false",
    ]  # fmt: skip
    return validate(RunConfig, compose("run", words))


def measured(model: Any, loaded: LoadedModel, config: RunConfig) -> float | None:
    """Perplexity by eval's own window code; None where it is not finite."""
    (protocol,) = protocols(config.eval)
    return perplexity(model, loaded.tokenizer, config.eval, protocol)[0].value


def run_ours(given: dict[str, str], method: str, ratio: float, out: Path) -> Row:
    """One of secateur's methods."""
    config, started = config_of(given, method, ratio, out), time.perf_counter()
    try:
        found = pipeline.run(config, exclude=evaluation_text(config.eval))
    except BudgetError as error:
        return Row(method, ratio, note=str(error))
    value = measured(found.loaded.model, found.loaded, config)
    return Row(method, ratio, found.plan.ratio, value, time.perf_counter() - started)


def run_theirs(given: dict[str, str], name: str, ratios: Sequence[float], out: Path) -> list[Row]:
    """Torch-Pruning at every ratio, on the samples that secateur's methods see."""
    config, rows = config_of(given, "taylor", ratios[0], out), list[Row]()
    loaded = load(config.model, config.device)
    ids = samples_for(config, loaded, evaluation_text(config.eval)).ids
    slopes = gradients(loaded, ids, config.taylor.batch_size)
    for ratio in ratios:
        started = time.perf_counter()
        try:
            with limited(float(given["limit"])):
                cut = prune_to(loaded, slopes, ratio, attention=TORCH_PRUNING[name])
        except ImportError:
            rows.append(Row(name, ratio, note="pip install 'secateur[bench]'"))
            continue
        except TimeoutError as error:
            return rows + [Row(name, left, note=str(error)) for left in ratios[len(rows) :]]
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:  # on what it cannot cut
            rows.append(Row(name, ratio, note=f"failed: {(str(error) or type(error).__name__)[:60]}"))
            continue
        value = measured(cut.model, loaded, config)
        rows.append(Row(name, ratio, cut.ratio, value, time.perf_counter() - started))
    return rows


def compare(given: dict[str, str], out: Path, console: Console) -> list[Row]:
    """All rows, the dense model first; each is printed as it comes."""
    ratios = [float(word) for word in given["ratios"].split(",")]
    known = [name for name in options("method") if name != "dense"]
    standard = sorted(set(known) - {"secateur_search"}, key=lambda n: (n not in OURS, n in SLOW, n))
    asked = given["methods"].split(",") if "methods" in given else ["secateur", *TORCH_PRUNING, *standard[1:]]
    unknown = sorted(set(asked) - {*known, *TORCH_PRUNING})
    if unknown:
        raise ConfigError(f"methods={','.join(unknown)}: choose from {', '.join([*TORCH_PRUNING, *known])}")
    first = config_of(given, "taylor", ratios[0], out)
    dense = load(first.model, first.device)
    rows = [Row("dense", 0.0, 0.0, measured(dense.model, dense, first))]
    for name in asked:
        new = (
            run_theirs(given, name, ratios, out)
            if name in TORCH_PRUNING
            else [run_ours(given, name, ratio, out) for ratio in ratios]
        )
        for row in new:
            console.print(f"{row.method} {row.ratio}: {_cell(row)} in {row.seconds:.1f} s", highlight=False)
        rows += new
        write_json(out / "methods.json", {"options": given, "rows": [asdict(row) for row in rows]})
    return rows


def _cell(row: Row) -> str:
    if row.perplexity is None or row.removed is None:
        return (row.note or "not finite")[:32]
    return f"{row.perplexity:.3f} ({100 * row.removed:.2f} %)"


def table_of(rows: Sequence[Row], given: dict[str, str]) -> Table:
    """Methods down, ratios across; the lowest perplexity of each ratio in bold."""
    ratios = sorted({row.ratio for row in rows if row.ratio > 0})
    by_place = {(row.method, row.ratio): row for row in rows}
    table = Table(
        title=f"{Path(given['model']).name}: perplexity (parameters removed); dense {rows[0].perplexity:.3f}"
    )
    table.add_column("method")
    for ratio in ratios:
        table.add_column(f"{ratio:.0%}", justify="right")
    best = {
        ratio: min((r.perplexity for r in rows if r.ratio == ratio and r.perplexity), default=None)
        for ratio in ratios
    }
    for name in dict.fromkeys(row.method for row in rows if row.ratio > 0):
        cells: list[str] = []
        for ratio in ratios:
            row = by_place[name, ratio]
            mark = row.perplexity is not None and row.perplexity == best[ratio]
            cells.append(f"[bold]{_cell(row)}[/]" if mark else _cell(row))
        table.add_row(name, *cells)
    return table


def main(argv: list[str]) -> int:
    """Run the benchmark."""
    given = {**DEFAULTS, **dict(word.split("=", 1) for word in argv)}
    console = Console(width=120)
    missing = [key for key in ("model", "train", "text") if key not in given]
    if missing:
        console.print(f"give {' '.join(f'{key}=...' for key in missing)}; see eval/bench_methods.py")
        return 2
    quiet = logging.getLogger("secateur.pruning")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    register(RunConfig)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(given.get("out", scratch))
        try:
            rows = compare(given, out, console)
        except SecateurError as error:
            console.print(str(error))
            return 2
        finally:
            quiet.setLevel(level)
    console.print(table_of(rows, given))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
