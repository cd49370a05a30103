"""Where in the model is cut, and where are the gradients? One run and many."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from secateur.analysis.per_model import ModelFindings
from secateur.analysis.plots.style import canvas, looks, plain_log, wide_range
from secateur.analysis.texts import Texts

MOST = 60


def layers(found: ModelFindings, table: pd.DataFrame, texts: Texts) -> Figure | None:
    """Kept share and gradient norm per layer: the best run above, the best of all runs below as rows of colour.

    `table` holds the layers of all runs, labelled by `row` as in `Runs.layers`.
    """
    if found.best is None or table.empty:
        return None
    order = found.valid.sort_values("acc_mean", ascending=False, kind="stable")
    order = order[order.index.isin(table["row"].unique())].head(MOST)
    if order.empty:
        return None
    mine = table[table["row"].isin(order.index)]
    mlp = mine.pivot_table(index="row", columns="layer", values="kept_mlp").reindex(order.index)
    attention = mine.pivot_table(index="row", columns="layer", values="kept_attention").reindex(order.index)
    many, image = len(order) > 1, None
    heights = [1.0, max(0.9, 0.028 * len(order) + 0.5)] if many else [1.0]
    figure, axes = canvas(9.6, 2.7 * sum(heights), len(heights), 2, height_ratios=heights)
    _one(axes[0, 0], mlp.iloc[0], attention.iloc[0], order.iloc[0]["setting"], texts)
    _gradients(axes[0, 1], mine, order, texts)
    if many:
        for panel, values, word in (
            (axes[1, 0], mlp, "plot.kept_mlp"),
            (axes[1, 1], attention, "plot.kept_attention"),
        ):
            image = panel.imshow(values.to_numpy(), cmap="cividis", vmin=0, vmax=1, aspect="auto",
                                 interpolation="nearest", extent=_extent(values))  # fmt: skip
            panel.grid(visible=False)
            panel.set_title(texts(word))
            panel.set_xlabel(texts("plot.layer"))
            panel.set_ylabel(texts("plot.runs_by_acc"))
        figure.colorbar(image, ax=list(axes[1]), label=texts("plot.kept"), pad=0.015)
    for panel in axes.flat:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _extent(values: pd.DataFrame) -> tuple[float, float, float, float]:
    return (float(values.columns.min()) - 0.5, float(values.columns.max()) + 0.5, len(values) + 0.5, 0.5)


def _one(panel: Axes, mlp: pd.Series, attention: pd.Series, name: str, texts: Texts) -> None:
    at = mlp.index.to_numpy(dtype=float)
    panel.bar(at - 0.2, mlp.to_numpy(), 0.4, color="#0072B2", label=texts("plot.mlp"))
    panel.bar(at + 0.2, attention.to_numpy(), 0.4, color="#E69F00", label=texts("plot.attention"))
    panel.axhline(0.5, color="#444444", ls=":", lw=1)
    panel.set_ylim(0, 1.22)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1])
    panel.set_title(texts("plot.best_kept", setting=name))
    panel.set_xlabel(texts("plot.layer"))
    panel.set_ylabel(texts("plot.kept"))
    panel.legend(loc="upper right", ncols=2)


def _gradients(panel: Axes, mine: pd.DataFrame, order: pd.DataFrame, texts: Texts) -> None:
    profile = (
        mine.pivot_table(index="row", columns="layer", values="grad_norm")
        .reindex(order.index)
        .dropna(how="all")
    )
    panel.set_title(texts("plot.gradient"))
    panel.set_xlabel(texts("plot.layer"))
    if profile.empty:
        panel.text(0.5, 0.5, texts("plot.not_measured"), ha="center", va="center", transform=panel.transAxes)
        panel.set_axis_off()
        return
    style = looks(sorted(order["method"].unique()))
    at = profile.columns.to_numpy(dtype=float)
    for label, values in profile.iloc[1:].iterrows():
        panel.plot(at, values.to_numpy(), color=style[order.loc[label, "method"]][0], lw=0.6, alpha=0.35)
    best = order.loc[profile.index[0]]
    panel.plot(at, profile.iloc[0].to_numpy(), color=style[best["method"]][0], lw=2, marker="o", ms=3)
    if wide_range(profile.to_numpy()):
        plain_log(panel, "y")
    panel.set_ylabel(texts("plot.grad_norm"))
    panel.legend(handles=[
        Line2D([], [], color="#444444", lw=2, marker="o", ms=3, label=texts("plot.best")),
        Line2D([], [], color="#444444", lw=0.6, alpha=0.6, label=texts("plot.other_runs")),
    ])  # fmt: skip
