"""The closing table of a benchmark on the terminal."""

from collections import defaultdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from secateur.eval.speed.journal import Entry, Facts, Sample, Sweep


def print_sweep(sweep: Sweep, entries: list[Entry], folder: Path) -> None:
    """One line per setting: median speeds and what they ran in; the report has the rest."""
    table = Table(title=f"{sweep.name}: median over all passes, tokens/s")
    for name in ("setting", "parameters", "prefill", "decode", "first token", "cells"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    samples: dict[int, list[Sample]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, Sample):
            samples[entry.variant].append(entry)
    parameters = {e.variant: e.parameters for e in entries if isinstance(e, Facts)}
    for place, variant in enumerate(sweep.variants):
        rows = samples[place]
        if not rows:
            table.add_row(_title(sweep, place), "-", "-", "-", "-", "0")
            continue
        decode = [s.batch * s.n_gen / s.decode_s for s in rows if s.decode_s]
        table.add_row(
            _title(sweep, place),
            f"{parameters[place]:,}",
            f"{median(s.batch * s.n_prompt / s.prefill_s for s in rows):,.0f}",
            f"{median(decode):,.0f}" if decode else "-",
            f"{1000 * median(s.first_token_s for s in rows):.2f} ms",
            f"{len({(s.n_prompt, s.n_gen, s.batch) for s in rows})}/{len(variant.cells)}",
        )
    console = Console()
    console.print(table)
    left = sum(len(variant.left_out) for variant in sweep.variants)
    if left:
        console.print(
            f"[yellow]note[/]: {left} cells are longer than their model's context and were left out"
        )
    console.print(f"samples: {folder}; reports: secateur analyze report=models runs={folder}", soft_wrap=True)


def _title(sweep: Sweep, place: int) -> str:
    variant = sweep.variants[place]
    words = [f"{key}={variant.settings[key]}" for key in sweep.swept if key in variant.settings]
    return " ".join([variant.subject, *words])
