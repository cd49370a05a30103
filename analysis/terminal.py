"""Runs on the terminal: one run in full, and two runs side by side."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from secateur.analysis.differences import Change, compare_records
from secateur.analysis.formats import show
from secateur.eval.record import FAILED, RECORD, LayerReport, RunRecord, read_record
from secateur.pruning.errors import StorageError

WIDE = 20
PIPED = 400
"""Columns of a line that is read by a program: no id is broken."""
BARS = " ▁▂▃▄▅▆▇█"


def console() -> Console:
    """Where the tables go: a terminal as wide as it is, a pipe without breaks."""
    return Console(width=None if sys.stdout.isatty() else PIPED)


def find_run(name: str, runs: Path) -> tuple[RunRecord, Path]:
    """Read a run by its folder, its record file, its id or the beginning of its id; returns it and its folder.

    Raises:
        StorageError: There is no such run, or the beginning fits several.
    """
    path = Path(name)
    for candidate in (path, runs / name):
        if candidate.is_file() or (candidate / RECORD).is_file() or (candidate / FAILED).is_file():
            return read_record(candidate), candidate.parent if candidate.is_file() else candidate
    fitting = sorted(folder for folder in runs.glob(f"{name}*") if folder.is_dir()) if runs.is_dir() else []
    if len(fitting) == 1:
        return read_record(fitting[0]), fitting[0]
    if fitting:
        names = ", ".join(folder.name for folder in fitting[:6])
        raise StorageError(f"{name} fits {len(fitting)} runs: {names}. Give more of the id.")
    raise StorageError(
        f"{name}: neither a run folder nor a run id in {runs}. Give a folder, or an id and runs=DIR."
    )


def show_run(record: RunRecord, console: Console) -> None:
    """Print one run: what it was, what came out, layer by layer."""
    console.print(f"[bold]{record.run_id}[/bold]  {record.kind}, {record.status}")
    if record.error is not None:
        console.print(
            f"[red]{record.error.stage}: {record.error.type}: {record.error.message}[/red]", highlight=False
        )
    _setting(record, console)
    if record.metrics:
        _metrics(record, console)
    if record.layers:
        _layers(record.layers, console)
    numbers = {key: value for key, value in record.statistics.items() if value is not None}
    if numbers:
        console.print(
            "[bold]statistics[/bold]  " + ", ".join(f"{key} {_text(value)}" for key, value in numbers.items())
        )
    for key, reason in record.notes.items():
        console.print(f"  {key}: {reason}", style="dim")
    for sentence in record.diagnosis:
        console.print(f"  • {sentence}")
    if record.timings:
        total = record.timings.get("total", sum(record.timings.values()))
        parts = ", ".join(
            f"{stage} {seconds:.1f}" for stage, seconds in record.timings.items() if stage != "total"
        )
        console.print(f"[bold]seconds[/bold]  {total:.1f} ({parts})")


def _setting(record: RunRecord, console: Console) -> None:
    config = record.config
    shown = {
        "model": _nested(config, "model", "name"), "method": _nested(config, "method", "name"),
        "calibration": _nested(config, "calibration", "name"), "seq_len": _nested(config, "taylor", "seq_len"),
        "num_samples": _nested(config, "taylor", "num_samples"), "ratio": _nested(config, "budget", "ratio"),
        "seed": config.get("seed"),
    }  # fmt: skip
    console.print(
        "  ".join(f"{key}={value}" for key, value in shown.items() if value is not None), highlight=False
    )
    if record.parameters is not None:
        p = record.parameters
        console.print(f"parameters {p.before:,} -> {p.after:,} ({p.ratio:.2%} removed)", highlight=False)


def _metrics(record: RunRecord, console: Console) -> None:
    table = Table("metric", "value", "± se", "n", box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, metric in record.metrics.items():
        value = metric.note or "-" if metric.value is None else f"{metric.value:.4f}"
        error = "" if metric.stderr is None else f"{metric.stderr:.4f}"
        table.add_row(name, value, error, "" if metric.n is None else str(metric.n))
    console.print(table)


def _layers(layers: Iterable[LayerReport], console: Console) -> None:
    table = Table(
        "layer",
        "MLP kept",
        "",
        "KV groups kept",
        "gradient norm",
        "",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for index in (1, 3, 4):
        table.columns[index].justify = "right"
    for layer in layers:
        share = layer.kept_channels / layer.channels if layer.channels else 0.0
        bar = "█" * int(share * WIDE) + BARS[int(share * WIDE % 1 * 8)].strip()
        norm = "" if layer.grad_norm is None else f"{layer.grad_norm:.4g}"
        table.add_row(
            str(layer.layer), f"{layer.kept_channels}/{layer.channels}", bar,
            f"{layer.kept_kv_groups}/{layer.kv_groups}", norm, "extreme" if layer.extreme else "",
        )  # fmt: skip
    console.print(table)


def show_comparison(left: tuple[RunRecord, Path], right: tuple[RunRecord, Path], console: Console) -> None:
    """Print what differs between two runs (record and folder): protocol, config, plan and results."""
    from secateur.analysis.answers import paired_folders

    difference = compare_records(left[0], right[0], paired_folders(left[1], right[1]))
    console.print(f"[bold]A[/bold] {left[0].run_id}\n[bold]B[/bold] {right[0].run_id}", highlight=False)
    if difference.protocol:
        console.print(
            "[yellow]Measured under different protocols: the results below are not comparable.[/yellow]"
        )
        _changes("protocol", difference.protocol, console)
    _changes("config", difference.config, console)
    _changes("plan", difference.plan, console)
    table = Table("result", "A", "B", "B - A", "± se", "p", box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in difference.results:
        numbers = [_number(value) for value in (row.left, row.right)]
        delta = "" if row.delta is None else f"{row.delta:+.4f}"
        table.add_row(row.name, *numbers, delta, _number(row.se), "" if row.p is None else show("p", row.p))
    console.print(table)
    if difference.paired:
        console.print(
            f"acc_mean: paired on {difference.paired} single answers; other errors treat the runs as independent.",
            style="dim",
        )


def _changes(title: str, changes: tuple[Change, ...], console: Console) -> None:
    if not changes:
        console.print(f"[bold]{title}[/bold]  the same")
        return
    table = Table(title, "A", "B", box=None, header_style="bold", pad_edge=False)
    for change in changes:
        table.add_row(change.name, _text(change.left), _text(change.right))
    console.print(table)


def _nested(config: dict[str, Any], *keys: str) -> Any:
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
