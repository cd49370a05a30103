"""What holds from one model to another: who wins where, and whether a setting carries over."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from dataclasses import dataclass

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import ranks
from secateur.analysis.association import correlation_p
from secateur.analysis.factors import cell_key, setting_texts
from secateur.analysis.paired import Paired, compare_methods, matched
from secateur.analysis.per_model import ModelFindings


@dataclass(frozen=True)
class CrossFindings:
    """Findings over several models.

    Attributes:
        table: One row per model, highest best ACC first.
        wins: Per model and method: best and mean ACC, and in how many matched cells the method is the best.
        transfer: Per ordered pair of models: common settings, Spearman of their ACC, regret of A's best on B.
        settings: Common settings: ACC per model, regret per model, mean and worst regret; best on average first.
        pairs: Methods compared over the matched cells of all models.
    """

    table: pd.DataFrame
    wins: pd.DataFrame
    transfer: pd.DataFrame
    settings: pd.DataFrame
    pairs: tuple[Paired, ...]


def compare_models(findings: list[ModelFindings], factors: list[str]) -> CrossFindings:
    """All findings over models."""
    usable = [found for found in findings if len(found.valid)]
    frame = pd.concat([found.valid for found in usable]) if usable else pd.DataFrame()
    names = [name for name in factors if name != "seed"]
    by_setting = _by_setting(frame, names) if usable else pd.DataFrame()
    return CrossFindings(
        table=_table(findings),
        wins=_wins(usable, factors),
        transfer=_transfer(by_setting),
        settings=_settings(by_setting),
        pairs=tuple(compare_methods(matched(frame, factors))) if usable else (),
    )


def _table(findings: list[ModelFindings]) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for found in findings:
        best, dense, calm = found.best, found.dense, found.calmest
        row: dict[str, object] = {
            "model": found.model, "total": found.summary.total, "valid": found.summary.valid,
            "best_method": None, "setting": None, "best_acc": np.nan,
        }  # fmt: skip
        if best is not None:
            honest = {item.basis: item.honest for item in found.held_out}
            row |= {
                "best_method": best["method"], "setting": best["setting"], "best_acc": best["acc_mean"],
                "low": best["acc_low"], "high": best["acc_high"],
                "ties": len(found.ties.labels) if found.ties else 1, "honest": honest.get("questions", np.nan),
                "best_ppl": best["ppl"], "dense_acc": np.nan if dense is None else dense["acc_mean"],
                "kept_acc": best.get("kept_acc", np.nan), "min_ppl": np.nan if calm is None else calm["ppl"],
                "min_ppl_acc": np.nan if calm is None else calm["acc_mean"],
            }  # fmt: skip
        rows.append(row)
    table = pd.DataFrame(rows).sort_values("best_acc", ascending=False, kind="stable", ignore_index=True)
    return table.dropna(axis=1, how="all")


def _wins(findings: list[ModelFindings], factors: list[str]) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for found in findings:
        cells = matched(found.valid, factors)
        full = cells.dropna(how="any")
        top = full.eq(full.max(axis=1), axis=0)
        won = top.div(top.sum(axis=1), axis=0).sum() if len(full) else pd.Series(0.0, index=cells.columns)
        groups = found.valid.groupby("method")["acc_mean"].agg(["max", "mean", "count"])
        best = groups["max"].max()
        for method, (maximum, mean, count) in zip(groups.index, groups.to_numpy(), strict=True):
            rows.append({
                "model": found.model, "method": method, "best_acc": maximum, "mean_acc": mean, "n": int(count),
                "cells_won": float(won[method]), "cells": len(full), "wins": bool(maximum == best),
            })  # fmt: skip
    columns = ["model", "method", "best_acc", "mean_acc", "n", "cells_won", "cells", "wins"]
    return pd.DataFrame(rows, columns=columns)


def _by_setting(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Settings x models: mean ACC (over seeds)."""
    key = cell_key(frame, names)
    words = pd.Series(setting_texts(frame, names).to_numpy()).groupby(key).first()
    table = pd.DataFrame(
        {"key": key, "model": frame["model"].to_numpy(), "y": frame["acc_mean"].to_numpy(dtype=float)}
    )
    wide = table.pivot_table(index="key", columns="model", values="y", aggfunc="mean", sort=False)
    wide = wide[list(dict.fromkeys(frame["model"]))]
    wide.index = pd.Index(words[wide.index].to_numpy(), name="setting")
    return wide


def _transfer(settings: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for source in settings.columns:
        for target in settings.columns:
            if source == target:
                continue
            common = settings[[source, target]].dropna()
            n = len(common)
            if n < 2:
                continue
            a, b = common[source].to_numpy(), common[target].to_numpy()
            rho = _spearman(a, b)
            pick = int(a.argmax())
            rows.append({
                "source": source, "target": target, "n": n, "rho": rho, "p": correlation_p(rho, n),
                "setting": common.index[pick], "acc": b[pick], "best_acc": b.max(), "regret": b.max() - b[pick],
                "rank": int((b > b[pick]).sum()) + 1, "mean_regret": b.max() - b.mean(),
            })  # fmt: skip
    columns = [
        "source",
        "target",
        "n",
        "rho",
        "p",
        "setting",
        "acc",
        "best_acc",
        "regret",
        "rank",
        "mean_regret",
    ]
    return pd.DataFrame(rows, columns=columns)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    x, y = ranks(a), ranks(b)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _settings(settings: pd.DataFrame) -> pd.DataFrame:
    """Settings that every model has, with the regret on each; empty with one model."""
    common = settings.dropna()
    if common.shape[1] < 2 or common.empty:
        return pd.DataFrame()
    regret = common.max() - common
    table = common.copy()
    table.columns = [f"acc · {name}" for name in common.columns]
    table["mean_regret"] = regret.mean(axis=1)
    table["worst_regret"] = regret.max(axis=1)
    return table.sort_values("mean_regret", kind="stable").reset_index()
