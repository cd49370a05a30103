"""Plots of the report "models": speed and its noise against every size, and speed-ups with their bounds."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from secateur.analysis.plots.style import Job, canvas, looks, plain_log, wide_range
from secateur.analysis.speed.curves import Curve
from secateur.analysis.speed.measurements import AXES, PHASES, Speeds
from secateur.analysis.speed.pays import speed_table
from secateur.analysis.texts import Texts


def jobs(speeds: Speeds, curves: list[Curve]) -> list[Job]:
    """Every plot that the report has a place for."""
    cells = speeds.cells.assign(label=speeds.cells["subject"])
    listed = [Job("pays", partial(speedups, speeds))]
    for phase in PHASES:
        part = cells[cells["phase"] == phase]
        if len(part):
            listed.append(
                Job(f"{phase}_speed", partial(throughput, part, [c for c in curves if c.phase == phase]))
            )
            listed.append(Job(f"{phase}_cv", partial(noise, part)))
    return listed


def varied_axes(cells: pd.DataFrame) -> list[str]:
    """Sizes with several levels; the prompt length when there is none."""
    return [axis for axis in AXES if cells[axis].nunique() > 1] or ["n_prompt"]


def throughput(cells: pd.DataFrame, curves: list[Curve], texts: Texts) -> Figure | None:
    """A panel per size: cells as points, the chosen curve of every model."""
    axes_of = varied_axes(cells)
    figure, axes = canvas(max(6.0, 4.1 * len(axes_of)), 3.4, 1, len(axes_of), sharey=True)
    style = looks(sorted(cells["label"].unique()))
    log = wide_range(cells["tokens_per_s"].to_numpy(dtype=float), 5.0)
    for panel, axis in zip(axes.flat, axes_of, strict=True):
        for place, (name, (color, marker)) in enumerate(style.items()):
            part = cells[cells["label"] == name]
            shift = (place - (len(style) - 1) / 2) / len(style) * step(cells[axis]) * 0.4
            points(panel, part, axis, shift, name, color, marker)
            for curve in curves:
                if curve.subject == name and curve.axis == axis:
                    _draw(panel, curve, color)
        scales(panel, log)
        panel.set_xlabel(texts(f"plot.{axis}"))
        if log:
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes[0, 0].set_ylabel(texts("plot.speed"))
    legend(figure, axes[0, 0])
    return figure


def scales(panel: Axes, log: bool) -> None:
    """Whole numbers below; on the left a logarithmic scale or one from zero."""
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if log:
        plain_log(panel, "y")
    else:
        panel.set_ylim(bottom=0)


def points(
    panel: Axes, part: pd.DataFrame, axis: str, shift: float, name: str, color: str, marker: str
) -> None:
    """Every cell as a point with the standard deviation of its passes."""
    error = part["sd"].astype(float).fillna(0.0)
    panel.errorbar(
        part[axis] + shift, part["tokens_per_s"], yerr=error, ls="", marker=marker, ms=3.5, color=color, alpha=0.6,
        mec="none", elinewidth=0.6, label=name,
    )  # fmt: skip


def _draw(panel: Axes, curve: Curve, color: str) -> None:
    """The chosen curve over the range of its points; tokens of a pass between the points by interpolation."""
    order = np.argsort(curve.points.n, kind="stable")
    levels, first = np.unique(curve.points.n[order], return_index=True)
    means = [float(curve.points.tokens[order][curve.points.n[order] == level].mean()) for level in levels]
    at = np.linspace(float(levels[0]), float(levels[-1]), 80)
    assert len(first) == len(means)
    panel.plot(at, curve.chosen.speed(at, np.interp(at, levels, means)), "-", color=color, lw=1.5)


def step(values: pd.Series) -> float:
    """Smallest distance between two levels, so that the points of several models stand side by side."""
    levels = np.unique(values.to_numpy(dtype=float))
    return min(float(np.diff(levels).min()), float(np.ptp(levels)) / 12) if len(levels) > 1 else 1.0


def legend(figure: Figure, panel: Axes) -> None:
    """One legend above all panels."""
    handles, names = panel.get_legend_handles_labels()
    room = figure.get_figwidth() / (0.5 + 0.075 * max(map(len, names)))  # over the longest entry's inches
    figure.legend(handles, names, loc="outside upper center", ncols=max(1, min(4, len(names), int(room))))


def noise(cells: pd.DataFrame, texts: Texts) -> Figure | None:
    """A panel per size: the CV of every cell, and its median per level."""
    known = cells[cells["cv"].notna()]
    if known.empty:
        return None
    axes_of = varied_axes(known)
    figure, axes = canvas(max(6.0, 4.1 * len(axes_of)), 3.1, 1, len(axes_of), sharey=True)
    log = wide_range(known["cv"].to_numpy(dtype=float), 20.0)
    for panel, axis in zip(axes.flat, axes_of, strict=True):
        for name, (color, marker) in looks(sorted(known["label"].unique())).items():
            part = known[known["label"] == name]
            panel.plot(part[axis], 100 * part["cv"].astype(float), ls="", marker=marker, ms=3.4, color=color, alpha=0.5,
                       mec="none", label=name)  # fmt: skip
            middle = 100 * part.groupby(axis)["cv"].median().astype(float)
            panel.plot(middle.index, middle, "-", color=color, lw=1.3)
        scales(panel, log)
        panel.set_xlabel(texts(f"plot.{axis}"))
    axes[0, 0].set_ylabel(texts("plot.cv"))
    legend(figure, axes[0, 0])
    return figure


def speedups(speeds: Speeds, texts: Texts) -> Figure | None:
    """Speed-up of every pruned model with its interval, beside what FLOPs and bytes allow."""
    table = speed_table(speeds)
    if table.empty:
        return None
    figure, axes = canvas(7.6, 0.42 * len(table) + 1.5)
    panel = axes[0, 0]
    at = np.arange(len(table))[::-1]
    middle = table["speedup"].to_numpy(dtype=float)
    low, high = (table[name].to_numpy(dtype=float) for name in ("speedup_low", "speedup_high"))
    error = np.nan_to_num(np.stack([middle - low, high - middle]))
    panel.barh(at, middle, height=0.55, color="#56B4E9", xerr=error, ecolor="#333333", error_kw={"lw": 1.0})
    panel.plot(table["flop_bound"], at, "D", color="#D55E00", ms=5, label=texts("plot.flop"))
    panel.plot(table["byte_bound"], at, "|", color="#000000", ms=11, mew=2, label=texts("plot.byte"))
    panel.axvline(1.0, color="#444444", lw=0.8, ls="--")
    batch = texts("columns.batch")
    names = [
        " · ".join([row["subject"], texts("phases." + row["phase"]), f"{batch} {row['batch']}"])
        for row in table.to_dict("records")
    ]
    panel.set_yticks(at, names)
    panel.set_xlabel(texts("plot.speedup"))
    panel.set_xlim(left=0)
    legend(figure, panel)
    return figure
