"""What goes with ACC? Each statistic against ACC, with the fits inside and over the methods."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportReturnType=false

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secateur.analysis.per_model import ModelFindings
from secateur.analysis.plots.style import CROWD, canvas, looks, plain_log, wide_range
from secateur.analysis.texts import Texts

MOST = 6


def scatter(found: ModelFindings, texts: Texts) -> Figure | None:
    """A panel per statistic: points by method, a line per method, the pooled line dashed; r and rho in the title."""
    pooled = {item.statistic: item for item in found.associations if item.scope == "pooled" and not item.why}
    names = list(pooled)[:MOST]
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = canvas(3.35 * columns, 2.75 * rows + 0.3, rows, columns, sharey=True)
    style = looks(sorted(found.valid["method"].unique()))
    for place, name in enumerate(names):
        panel = axes.flat[place]
        log = wide_range(found.valid[name].to_numpy(dtype=float))
        for method, (color, marker) in style.items():
            rows_of = _finite(found.valid[found.valid["method"] == method], name)
            panel.plot(rows_of[name], rows_of["acc_mean"], ls="", marker=marker,
                       ms=4.5 if len(found.valid) < CROWD else 1.5,
                       color=color, alpha=0.8, mec="white", mew=0.3, label=method,
                       rasterized=len(found.valid) > CROWD)  # fmt: skip
            _line(panel, rows_of, name, color, "-", log)
        _line(panel, _finite(found.valid, name), name, "#222222", "--", log)
        if log:
            plain_log(panel)
        item = pooled[name]
        panel.set_title(
            texts("plot.r_title", r=item.r, rho=item.rho, n=item.n), fontsize=8.5, fontweight="normal"
        )
        panel.set_xlabel(texts.get(f"plot.{name}", name) if name != "ppl" else texts("plot.ppl", protocol=""))
        if place % columns == 0:
            panel.set_ylabel(texts("plot.acc"))
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)))
    return figure


def _finite(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    return rows[np.isfinite(rows[name].to_numpy(dtype=float, na_value=np.nan))]


def _line(panel: Axes, rows: pd.DataFrame, name: str, color: str, dash: str, log: bool) -> None:
    """Least-squares line of ACC on the statistic, as fitted for Pearson r (drawn curved on a log axis)."""
    x, y = rows[name].to_numpy(dtype=float), rows["acc_mean"].to_numpy(dtype=float)
    if len(x) < 3 or np.ptp(x) == 0:
        return
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    at = np.geomspace(x.min(), x.max(), 30) if log else np.array([x.min(), x.max()])
    panel.plot(at, y.mean() + slope * (at - x.mean()), dash, color=color, lw=1.1, alpha=0.9)
