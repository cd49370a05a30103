"""Plots of the report "setting": every model by value, with paired differences; all models together."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportReturnType=false

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from secateur.analysis.model_names import slug
from secateur.analysis.plots.style import MARKERS, PALETTE, Job, canvas
from secateur.analysis.speed.compare import Difference, prepared, values_of
from secateur.analysis.speed.measurements import PHASES, Speeds
from secateur.analysis.speed.plots import legend, points, step, varied_axes
from secateur.analysis.texts import Texts

Looks = dict[str, tuple[str, str]]


def jobs(speeds: Speeds, setting: str, found: list[Difference]) -> list[Job]:
    """Every plot that the report has a place for."""
    cells = prepared(speeds, setting)
    style = {
        value: (PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)])
        for place, value in enumerate(values_of(speeds.cells, setting))
    }
    listed: list[Job] = []
    for phase in PHASES:
        part = cells[cells["phase"] == phase]
        if part.empty:
            continue
        listed.append(Job(f"aggregate_{phase}", partial(aggregate, part, style)))
        for subject in part["label"].unique():
            mine = [d for d in found if d.phase == phase and d.model == subject]
            one = part[part["label"] == subject]
            listed.append(Job(f"{slug(str(subject))}_{phase}", partial(single, one, style, mine)))
    return listed


def single(cells: pd.DataFrame, style: Looks, found: list[Difference], texts: Texts) -> Figure | None:
    """Left: throughput of every cell by value. Right: paired change in every cell, the mean with its interval."""
    if cells.empty or not found:
        return None
    axis = varied_axes(cells)[0]
    figure, axes = canvas(8.4, 3.2, 1, 2)
    left, right = axes[0]
    offset = _offsets(cells[axis], len(style))
    for place, (value, (color, marker)) in enumerate(style.items()):
        part = cells[cells["value"] == value]
        points(left, part, axis, float(offset[place]), value, color, marker)
    left.set_ylabel(texts("plot.speed"))
    left.set_ylim(bottom=0)
    reference = found[0].left if found else next(iter(style))
    _changes(right, cells, style, [d for d in found if d.left == reference], axis)
    right.set_ylabel(texts("plot.change", reference=reference))
    for panel in (left, right):
        panel.set_xlabel(texts(f"plot.{axis}"))
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, left)
    return figure


def _changes(panel: Axes, cells: pd.DataFrame, style: Looks, found: list[Difference], axis: str) -> None:
    panel.axhline(0, color="#444444", lw=0.9)
    for d in found:
        color, marker = style[d.right]
        log = np.log(cells["tokens_per_s"].astype(float))
        table = cells.assign(log=log).pivot_table(
            index=["key", axis], columns="value", values="log", aggfunc="mean"
        )
        both = table[[d.left, d.right]].dropna()
        change = 100 * np.expm1((both[d.right] - both[d.left]).to_numpy(dtype=float))
        at = both.index.get_level_values(axis).to_numpy(dtype=float)
        panel.plot(at, change, ls="", marker=marker, ms=3.6, color=color, alpha=0.6, mec="none")
        if np.isfinite(d.low):
            panel.axhspan(100 * d.low, 100 * d.high, color=color, alpha=0.22, lw=0)
        panel.axhline(100 * d.effect, color=color, lw=1.3)


def _offsets(values: pd.Series, count: int) -> np.ndarray:
    """Sideways shifts of the values, so that their points do not hide each other."""
    return (np.arange(count) - (count - 1) / 2) / count * step(values) * 0.5


def aggregate(cells: pd.DataFrame, style: Looks, texts: Texts) -> Figure | None:
    """Rows: relative throughput, CV; columns: sizes. Means over models and cells with their standard error."""
    mean = cells.groupby("label")["tokens_per_s"].transform(lambda s: s.astype(float).mean())
    table = cells.assign(
        relative=cells["tokens_per_s"].astype(float) / mean, percent=100 * cells["cv"].astype(float)
    )
    axes_of = varied_axes(cells)
    rows = ["relative", "percent"] if table["percent"].notna().any() else ["relative"]
    figure, axes = canvas(4.2 * len(axes_of), 2.7 * len(rows) + 0.3, len(rows), len(axes_of))
    for row, name in enumerate(rows):
        for column, axis in enumerate(axes_of):
            panel = axes[row, column]
            for value, (color, marker) in style.items():
                groups = table[table["value"] == value].groupby(axis)[name]
                middle, error = groups.mean().astype(float), groups.sem().astype(float).fillna(0.0)
                panel.errorbar(middle.index, middle, yerr=error, color=color, marker=marker, ms=4, capsize=2,
                               label=value)  # fmt: skip
            panel.set_xlabel(texts(f"plot.{axis}"))
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if column == 0:
                panel.set_ylabel(texts("plot.relative" if name == "relative" else "plot.cv"))
            if name == "percent":
                panel.set_ylim(bottom=0)
    legend(figure, axes[0, 0])
    return figure
