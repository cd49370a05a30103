"""What carries over from model to model? Best ACC per method and model; rank correlation and regret of settings."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportAttributeAccessIssue=false

import numpy as np
from matplotlib.figure import Figure

from secateur.analysis.cross_model import CrossFindings
from secateur.analysis.per_model import ModelFindings
from secateur.analysis.plots.style import annotate_heat, canvas, looks
from secateur.analysis.texts import Texts


def methods_by_model(findings: list[ModelFindings], texts: Texts) -> Figure | None:
    """Per model and method: the best run with its interval, the mean of all runs, the dense model."""
    usable = [found for found in findings if len(found.valid)]
    if not usable:
        return None
    style = looks(sorted({str(name) for found in usable for name in found.valid["method"].unique()}))
    figure, axes = canvas(max(5.2, 1.7 * len(usable) + 2.2), 3.5)
    panel = axes[0, 0]
    step = 0.7 / max(1, len(style))
    for shift, (method, (color, marker)) in enumerate(style.items()):
        for place, found in enumerate(usable):
            rows = found.valid[found.valid["method"] == method]
            if rows.empty:
                continue
            x = place + (shift - (len(style) - 1) / 2) * step
            best = rows.loc[rows["acc_mean"].idxmax()]
            error = [[best["acc_mean"] - best["acc_low"]], [best["acc_high"] - best["acc_mean"]]]
            panel.errorbar(x, best["acc_mean"], yerr=None if np.isnan(error[0][0]) else error, marker=marker, ms=6,
                           color=color, capsize=2.5, ls="", label=method if place == 0 else None)  # fmt: skip
            panel.plot(
                [x - step * 0.3, x + step * 0.3],
                [rows["acc_mean"].mean()] * 2,
                color=color,
                lw=1.2,
                alpha=0.7,
            )
    for place, found in enumerate(usable):
        if found.dense is not None:
            panel.plot([place - 0.42, place + 0.42], [found.dense["acc_mean"]] * 2, color="#444444", ls="--", lw=1.1,
                       label=texts("plot.dense") if place == 0 else None)  # fmt: skip
    panel.plot([], [], color="#444444", lw=1.2, label=texts("plot.mean_of_runs"))
    panel.set_xticks(range(len(usable)), [found.model for found in usable])
    panel.grid(axis="x", visible=False)
    panel.set_ylabel(texts("plot.acc"))
    handles, labels = panel.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place] not in style)
    panel.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )
    return figure


def transfer(cross: CrossFindings, texts: Texts) -> Figure | None:
    """Rank correlation of settings between models, and the regret of using A's best setting on B."""
    table = cross.transfer
    if table.empty:
        return None
    models = list(dict.fromkeys([*table["source"], *table["target"]]))
    size = len(models)
    figure, axes = canvas(max(6.4, 1.9 * size + 2.4), max(2.8, 0.55 * size + 1.5), 1, 2)
    for panel, name, cmap, layout, low, high in (
        (axes[0, 0], "rho", "PuOr", "{:+.2f}", -1.0, 1.0),
        (axes[0, 1], "regret", "cividis_r", "{:.3f}", 0.0, None),
    ):
        values = table.pivot_table(index="source", columns="target", values=name).reindex(
            index=models, columns=models
        )
        image = panel.imshow(values.to_numpy(), cmap=cmap, vmin=low, vmax=high, aspect="auto")
        annotate_heat(panel, image, values.to_numpy(), layout)
        panel.grid(visible=False)
        panel.set_xticks(range(size), models)
        panel.set_yticks(range(size), models)
        panel.set_title(texts(f"plot.transfer_{name}"))
        panel.set_xlabel(texts("plot.target"))
        figure.colorbar(image, ax=panel, shrink=0.9)
    axes[0, 0].set_ylabel(texts("plot.source"))
    return figure
