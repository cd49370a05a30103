"""Which runs are best, and how sure is that? Intervals, Pareto front, tasks."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from secateur.analysis.per_model import ModelFindings
from secateur.analysis.plots.style import CROWD, canvas, looks, plain_log, wide_range
from secateur.analysis.texts import Texts
from secateur.eval.seven import CHANCE

MOST = 30


def intervals(found: ModelFindings, texts: Texts) -> Figure | None:
    """The best runs with 95 % intervals; filled = not distinguishable from the best; dashed = dense model."""
    if found.ties is None or found.best is None:
        return None
    rows = found.valid.sort_values("acc_mean", ascending=False, kind="stable").head(MOST)
    style = looks(sorted(found.valid["method"].unique()))
    same = set(found.ties.labels)
    figure, axes = canvas(7.6, 0.19 * len(rows) + 1.25)
    panel = axes[0, 0]
    at = np.arange(len(rows))[::-1]
    best = found.best
    if np.isfinite(best["acc_low"]):
        panel.axvspan(best["acc_low"], best["acc_high"], color="#0072B2", alpha=0.07, lw=0)
    tied = rows.index.isin(same)
    for method, (color, marker) in style.items():
        of = (rows["method"] == method).to_numpy()
        panel.hlines(at[of], rows["acc_low"][of], rows["acc_high"][of], color=color, lw=1.2)
        panel.plot(rows["acc_mean"][of & tied], at[of & tied], ls="", marker=marker, ms=6, color=color)
        panel.plot(
            rows["acc_mean"][of & ~tied], at[of & ~tied], ls="", marker=marker, ms=6, color=color, mfc="white"
        )
    panel.set_yticks(at, rows["setting"])
    panel.set_ylim(-0.8, len(rows) - 0.2)
    panel.set_xlabel(texts("plot.acc_interval"))
    handles = [Line2D([], [], marker=m, color=c, ls="", label=name) for name, (c, m) in style.items()]
    handles.append(
        Line2D([], [], marker="o", ls="", color="#444444", mfc="#444444", label=texts("plot.tied"))
    )
    handles.append(Line2D([], [], marker="o", ls="", color="#444444", mfc="white", label=texts("plot.worse")))
    if found.dense is not None:
        panel.axvline(found.dense["acc_mean"], color="#444444", ls="--", lw=1)
        handles.append(Line2D([], [], color="#444444", ls="--", lw=1, label=texts("plot.dense")))
    panel.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def pareto(found: ModelFindings, texts: Texts) -> Figure | None:
    """ACC against PPL, the front over these two as a line, best ACC and lowest PPL named."""
    valid = found.valid[np.isfinite(found.valid["ppl"].to_numpy(dtype=float))]
    if len(valid) < 2 or valid["ppl"].nunique() < 2:
        return None
    figure, axes = canvas(6.6, 4.1)
    panel = axes[0, 0]
    for method, (color, marker) in looks(sorted(found.valid["method"].unique())).items():
        rows = valid[valid["method"] == method]
        panel.plot(rows["ppl"], rows["acc_mean"], ls="", marker=marker, ms=5.5 if len(valid) < CROWD else 2,
                   color=color, alpha=0.85, mec="white", mew=0.4, label=method,
                   rasterized=len(valid) > CROWD)  # fmt: skip
    order = valid.sort_values(["ppl", "acc_mean"], ascending=[True, False])
    front = order[order["acc_mean"] > order["acc_mean"].cummax().shift(fill_value=-1)]
    panel.step(
        front["ppl"], front["acc_mean"], where="post", color="#444444", lw=1.1, label=texts("plot.front")
    )
    shown = (
        valid["ppl"] if found.dense is None else pd.concat([valid["ppl"], pd.Series([found.dense["ppl"]])])
    )
    middle = (shown.min() + shown.max()) / 2
    named = {texts("plot.best"): found.best, texts("plot.min_ppl"): found.calmest}
    for index, (word, run) in enumerate(named.items()):
        if run is not None and np.isfinite(run["ppl"]):
            left = run["ppl"] > middle
            panel.annotate(f"{word}: {run['setting']}", (run["ppl"], run["acc_mean"]), fontsize=8,
                           xytext=(-12 if left else 12, 10 if index == 0 else -16), textcoords="offset points",
                           ha="right" if left else "left",
                           arrowprops={"arrowstyle": "-", "color": "#444444", "lw": 0.7})  # fmt: skip
    if found.dense is not None and np.isfinite(found.dense["ppl"]):
        panel.plot(found.dense["ppl"], found.dense["acc_mean"], marker="*", ms=12, color="#444444", ls="",
                   label=texts("plot.dense"))  # fmt: skip
    if wide_range(valid["ppl"].to_numpy(dtype=float), 4):
        plain_log(panel)
    panel.margins(x=0.06, y=0.12)
    panel.set_xlabel(texts("plot.ppl", protocol=""))
    panel.set_ylabel(texts("plot.acc"))
    panel.legend(loc="best")
    return figure


def tasks(found: ModelFindings, texts: Texts) -> Figure | None:
    """Accuracy per task: best run with 95 % interval, lowest-PPL run, mean of all runs, dense model, chance."""
    table = found.tasks
    if table.empty:
        return None
    figure, axes = canvas(6.6, 0.42 * len(table) + 1.15)
    panel = axes[0, 0]
    at = np.arange(len(table))[::-1]
    panel.hlines(at, 0, 1, color="#eeeeee", lw=4, zorder=0)
    panel.plot([CHANCE[name] for name in table["task"]], at, ls="", marker="|", ms=13, color="#999999",
               label=texts("plot.chance"))  # fmt: skip
    panel.plot(
        table["mean_of_runs"], at, ls="", marker="D", ms=5, color="#56B4E9", label=texts("plot.mean_of_runs")
    )
    if found.calmest is not None:
        panel.plot([found.calmest[f"acc_{name}"] for name in table["task"]], at, ls="", marker="s", ms=6,
                   color="#E69F00", mfc="white", label=texts("plot.min_ppl"))  # fmt: skip
    if found.dense is not None and "dense" in table:
        panel.plot(table["dense"], at, ls="", marker="*", ms=10, color="#444444", label=texts("plot.dense"))
    error = np.stack([table["acc"] - table["low"], table["high"] - table["acc"]]).clip(
        min=0
    )  # rounding at 0 and 1
    panel.errorbar(table["acc"], at, xerr=error, ls="", marker="o", ms=6, capsize=2.5, color="#0072B2",
                   label=texts("plot.best_ci"))  # fmt: skip
    panel.set_yticks(at, table["task"])
    columns = [name for name in ("low", "high", "mean_of_runs", "dense") if name in table]
    low, high = np.nanmin(table[columns].to_numpy()), np.nanmax(table[columns].to_numpy())
    panel.set_xlim(max(0, min(0.2, low - 0.05)), min(1.0, high + 0.05))
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(texts("plot.task_acc"))
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
