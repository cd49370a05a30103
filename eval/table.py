"""The closing table of a run on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from secateur.eval.config import METRIC
from secateur.eval.record import RECORD, Metric, RunRecord


def print_run(record: RunRecord, dense: RunRecord | None, out: Path) -> None:
    """Print what was measured, beside the dense baseline, and where the record is."""
    console = Console()
    console.print(run_table(record, dense))
    for sentence in record.diagnosis:
        console.print(f"[yellow]note[/]: {sentence}")
    console.print(f"record: {out / record.run_id / RECORD}", soft_wrap=True)


def run_table(record: RunRecord, dense: RunRecord | None) -> Table:
    """Metrics of a run, and of its dense baseline where there is one."""
    table = Table(title=record.run_id, caption=_caption(record))
    table.add_column("measure")
    if dense is not None:
        table.add_column("dense", justify="right")
    table.add_column("pruned" if record.kind == "pruned" else "dense", justify="right")
    for name in ordered(record):
        row = [name]
        if dense is not None:
            row.append(_cell(dense.metrics.get(name)))
        table.add_row(*row, _cell(record.metrics[name]), style="bold" if name == "acc_mean" else None)
    return table


def ordered(record: RunRecord) -> list[str]:
    """Names of the metrics that count: the mean, each task's one in the mean, other tasks' all, then perplexities."""
    main = ["acc_mean", *(f"{task}/{metric}" for task, metric in METRIC.items())]
    named = [name for name in main if name in record.metrics]
    others = {name: name.partition("/")[0] for name in record.metrics if "/" in name}
    others = {name: task for name, task in others.items() if task not in METRIC and "@" not in task}
    asked = set(record.config.get("eval", {}).get("tasks", ()))
    if asked - set(METRIC) <= set(others.values()):  # of a group its own numbers; of a tag its tasks'
        others = {name: task for name, task in others.items() if task in asked}
    rest = [
        name for name, metric in record.metrics.items() if metric.unit == "perplexity" and name not in others
    ]
    return [*named, *others, *rest]


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return "-"
    if metric.value is None:
        return metric.note or "not finite"
    if metric.unit == "perplexity":
        return f"{metric.value:,.2f}"
    return f"{metric.value:.4f}" + ("" if metric.stderr is None else f" ± {metric.stderr:.4f}")


def _caption(record: RunRecord) -> str:
    size = record.parameters
    parts = (
        [] if size is None else [f"{size.after:,} of {size.before:,} parameters kept ({1 - size.ratio:.2%})"]
    )
    if "total" in record.timings:
        parts.append(f"{record.timings['total']:.1f} s")
    return "; ".join(parts)
