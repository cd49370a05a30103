"""Where in the grid is ACC high? Heat map of method x seq_len x samples, and the means over it."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportReturnType=false

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from secateur.analysis.arithmetic import t_quantile
from secateur.analysis.per_model import ModelFindings
from secateur.analysis.plots.style import annotate_heat, canvas, looks
from secateur.analysis.texts import Texts

MOST = 9
"""Methods shown, best first."""


def heat_map(found: ModelFindings, texts: Texts) -> Figure | None:
    """One panel per method: samples down, sequence length across, mean ACC as colour; the best cell is framed."""
    valid = found.valid.dropna(subset=["seq_len", "num_samples"])
    if len(valid) < 2 or valid[["seq_len", "num_samples"]].drop_duplicates().shape[0] < 2:
        return None
    methods = list(valid.groupby("method")["acc_mean"].max().sort_values(ascending=False).index[:MOST])
    lengths, samples = sorted(valid["seq_len"].unique()), sorted(valid["num_samples"].unique())
    columns = min(3, len(methods))
    rows = -(-len(methods) // columns)
    width = max(2.2, 0.52 * len(lengths) + 0.9) * columns + 1.1
    height = (max(1.2, 0.36 * len(samples) + 0.7) + 0.35) * rows + 0.5
    figure, axes = canvas(min(width, 14), min(height, 11), rows, columns, sharex=True, sharey=True)
    tables = {
        name: valid[valid["method"] == name]
        .pivot_table(index="num_samples", columns="seq_len", values="acc_mean", aggfunc="mean")
        .reindex(index=samples, columns=lengths).to_numpy()
        for name in methods
    }  # fmt: skip
    values = np.stack(list(tables.values()))
    low, high = np.nanmin(values), np.nanmax(values)
    image = None
    for place, name in enumerate(methods):
        panel = axes.flat[place]
        image = panel.imshow(tables[name], cmap="cividis", vmin=low, vmax=high, aspect="auto", origin="lower")
        panel.set_title(name)
        panel.grid(visible=False)
        panel.set_xticks(range(len(lengths)), [f"{v:g}" for v in lengths])
        panel.set_yticks(range(len(samples)), [f"{v:g}" for v in samples])
        if len(lengths) <= 10 and len(samples) <= 10:
            annotate_heat(panel, image, tables[name], "{:.3f}")
        if np.nanmax(tables[name]) == high:
            row, column = np.argwhere(tables[name] == high)[0]
            frame = Rectangle(
                (column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor="#D55E00", linewidth=2.5
            )
            panel.add_patch(frame)
        if place % columns == 0:
            panel.set_ylabel(texts("plot.num_samples"))
        if place // columns == rows - 1:
            panel.set_xlabel(texts("plot.seq_len"))
    for panel in axes.flat[len(methods) :]:
        panel.set_visible(False)
    figure.colorbar(image, ax=axes, label=texts("plot.acc"), shrink=0.9, pad=0.015)
    return figure


def effects(found: ModelFindings, texts: Texts) -> Figure | None:
    """Mean ACC per level of each size, a line per method, bars = 95 % intervals of the mean over the other knobs."""
    valid = found.valid
    names = [name for name in ("seq_len", "num_samples", "ratio") if valid[name].nunique() > 1]
    if not names:
        return None
    style = looks(sorted(valid["method"].unique()))
    figure, axes = canvas(4.3 * len(names), 3.1, 1, len(names), sharey=True)
    for panel, name in zip(axes.flat, names, strict=True):
        levels = sorted(valid[name].dropna().unique())
        for shift, (method, (color, marker)) in enumerate(style.items()):
            table = _means(valid[valid["method"] == method], name).reindex(levels)
            at = np.arange(len(levels)) + (shift - (len(style) - 1) / 2) * 0.06
            panel.errorbar(at, table["mean"], yerr=table["half"], color=color, marker=marker, ms=5, capsize=2,
                           elinewidth=0.9, label=method)  # fmt: skip
        panel.set_xticks(range(len(levels)), [f"{v:g}" for v in levels])
        panel.set_xlabel(texts(f"plot.{name}"))
    axes[0, 0].set_ylabel(texts("plot.acc"))
    axes[0, -1].legend(title=texts("plot.method"))
    return figure


def _means(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    table = rows.groupby(name)["acc_mean"].agg(["mean", "std", "count"])
    quantile = np.array([t_quantile(n - 1) if n > 1 else np.nan for n in table["count"]])
    table["half"] = quantile * table["std"] / np.sqrt(table["count"])
    return table
