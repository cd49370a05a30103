"""`style=study`: the report of the reference study, line for line, from the same numbers.

The study's conventions hold here (population sd, Pearson over all rows, `nan` as soon as one row is infinite).
What reads `nan` is repeated below the report over the finite rows, with their number.
"""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

import math
from typing import Any

import pandas as pd

from secateur.analysis.association import finite_pearson
from secateur.analysis.describe import Group, ModelSummary, level_text, strict_pearson, task_accuracies
from secateur.analysis.runset import GRADIENTS, Runs
from secateur.analysis.texts import read_texts

WIDTH = 80
STRONG, MEDIUM = 0.7, 0.5


def study_text(runs: Runs, summaries: list[ModelSummary], lang: str, saved: str) -> str:
    """The whole report as text; `saved` is the path of the cross-model JSON that its last line names."""
    texts = read_texts("study")[lang]
    lines: list[str] = []
    for summary in summaries:
        lines += _model(summary, texts)
    lines += ["", *_cross(summaries, texts), "", texts["saved"].format(path=saved)]
    notes = _notes(runs, summaries, texts)
    return "\n".join(lines + (["", "─" * WIDTH, texts["notes"], *notes] if notes else [])) + "\n"


def _model(summary: ModelSummary, texts: dict[str, Any]) -> list[str]:
    lines = ["", "=" * WIDTH, texts["title"].format(model=summary.model.upper()), "=" * WIDTH]
    lines.append(texts["counts"].format(total=summary.total, valid=summary.valid, invalid=summary.invalid))
    if summary.best is None:
        return [*lines, "", texts["empty"]]
    return [
        *lines, "",
        *_head(texts["s1"]), *_methods(summary, texts), "",
        *_head(texts["s2"]), "", *_sizes(summary, texts), "",
        *_head(texts["s3"]), *_correlations(summary, texts), "",
        *_head(texts["s4"]), *_extreme(summary, texts), "",
        *_head(texts["s5"]), texts["ppl"].format(value=summary.ppl_correlation), "",
        *_head(texts["s6"]), *_best(summary.best, texts),
    ]  # fmt: skip


def _head(title: str) -> list[str]:
    return ["─" * WIDTH, title, "─" * WIDTH]


def _methods(summary: ModelSummary, texts: dict[str, Any]) -> list[str]:
    layout = "{:<15} {:<12} {:<10} {:<10} {:<10} {:<8}"
    lines = [layout.format(*texts["methods"]), "-" * WIDTH]
    for group in summary.methods:
        numbers = [f"{value:.4f}" for value in (group.mean, group.sd, group.minimum, group.maximum)]
        lines.append(layout.format(group.level.upper(), *numbers, group.n))
    best = summary.best
    assert best is not None
    return [*lines, "", texts["best_method"].format(name=str(best["method"]).upper(), value=best["acc_mean"])]


def _sizes(summary: ModelSummary, texts: dict[str, Any]) -> list[str]:
    return [
        *_levels(summary.seq_len, "seq_len", texts), "",
        *_levels(summary.num_samples, "num_samples", texts),
    ]  # fmt: skip


def _levels(levels: tuple[Group, ...], name: str, texts: dict[str, Any]) -> list[str]:
    layout = "{:<12} {:<12} {:<10} {:<8}"
    lines = [texts[f"by_{name}"], layout.format(*texts[name]), "-" * 50]
    lines += [layout.format(g.level, f"{g.mean:.4f}", f"{g.sd:.4f}", g.n) for g in levels]
    if levels:
        best = max(levels, key=lambda group: group.mean)
        lines.append(texts[f"best_{name}"].format(name=best.level, value=best.mean))
    return lines


def _correlations(summary: ModelSummary, texts: dict[str, Any]) -> list[str]:
    # the study sorts by |r| with nan among the values, which leaves the order as it is where nan stands
    items = sorted(summary.correlations.items(), key=lambda item: abs(item[1]), reverse=True)
    head = texts["correlation"]
    lines = [f"{head[0]:<25} {head[1]:<12}", "-" * 40]
    lines += [f"{name:<25} {value:>11.4f}" for name, value in items]
    lines += ["", texts["meaning"]]
    for name, value in items:
        if abs(value) > MEDIUM:
            strength = texts["strong" if abs(value) > STRONG else "medium"]
            sign = texts["positive" if value > 0 else "negative"]
            lines.append(texts["reading"].format(name=name, strength=strength, sign=sign, value=value))
    return lines


def _extreme(summary: ModelSummary, texts: dict[str, Any]) -> list[str]:
    layout = "{:<8} {:<12} {:<8}"
    lines = [texts["with_acc"].format(value=summary.extreme_correlation), "", texts["by_extreme"]]
    lines += [layout.format(*texts["extreme"]), "-" * 30]
    return lines + [layout.format(g.level, f"{g.mean:.4f}", g.n) for g in summary.extreme]


def _best(best: pd.Series, texts: dict[str, Any]) -> list[str]:
    lines = [texts["method"].format(value=str(best["method"]).upper()), f"ACC mean: {best['acc_mean']:.4f}"]
    lines += [f"PPL: {best['ppl']:.2f}"]
    lines += [
        f"taylor_seq_len: {level_text(best['seq_len'])}",
        f"taylor_num_samples: {level_text(best['num_samples'])}",
    ]
    lines += [f"grad_norm_ratio: {best['grad_norm_ratio']:.2f}"]
    lines += [f"extreme_pruning_layers: {level_text(best['extreme_layers'])}", "", texts["tasks"]]
    return lines + [f"  • {task.upper():<15}: {value:.4f}" for task, value in task_accuracies(best).items()]


def _cross(summaries: list[ModelSummary], texts: dict[str, Any]) -> list[str]:
    layout = "{:<12} {:<12} {:<12} {:<12} {:<12}"
    lines = [
        "",
        "=" * WIDTH,
        texts["cross"],
        "=" * WIDTH,
        "",
        layout.format(*texts["cross_head"]),
        "-" * WIDTH,
    ]
    ranked = [(s, s.best) for s in summaries if s.best is not None]
    ranked.sort(key=lambda pair: -pair[1]["acc_mean"])
    for summary, best in ranked:
        numbers = (f"{best['acc_mean']:.4f}", f"{best['ppl']:.2f}", summary.valid)
        lines.append(layout.format(summary.model, str(best["method"]).upper(), *numbers))
    if not ranked:
        return [*lines, texts["empty"]]
    summary, best = ranked[0]
    method = texts["overall_method"].format(value=str(best["method"]).upper())
    return [
        *lines, "", texts["overall"].format(model=summary.model.upper()), method,
        f"  - ACC: {best['acc_mean']:.4f}", f"  - PPL: {best['ppl']:.2f}",
    ]  # fmt: skip


def _notes(runs: Runs, summaries: list[ModelSummary], texts: dict[str, Any]) -> list[str]:
    """One line per correlation that is nan above and finite over the finite rows."""
    lines: list[str] = []
    for summary in summaries:
        valid = runs.valid(summary.model)
        for name in (*GRADIENTS, "extreme_layers", "ppl"):
            if not math.isnan(strict_pearson(valid[name], valid["acc_mean"])):
                continue
            found = finite_pearson(valid, name, "acc_mean")
            if not math.isnan(found.r):
                rows = ", ".join(found.excluded[:8]) + (" ..." if len(found.excluded) > 8 else "")
                lines.append(texts["note"].format(
                    model=summary.model, name=name, r=found.r, n=found.n, excluded=len(found.excluded), rows=rows,
                ))  # fmt: skip
    return lines
