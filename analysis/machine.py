"""Findings for programs: the two JSON files, each checked against the schema that ships with it."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportCallIssue=false

import json
import math
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.cross_model import CrossFindings
from secateur.analysis.document import Document
from secateur.analysis.formats import about
from secateur.analysis.per_model import ModelFindings
from secateur.analysis.runset import DUPLICATE, GRADIENTS, STATES, VALID, Runs
from secateur.eval.config import TASKS

MOST = 1000
"""Names listed in one JSON list; rows of one table in findings.json. The CSV and parquet files have all."""


@cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of `cross_model_comparison` or `findings`."""
    text = (resources.files("secateur.analysis") / "schema" / f"{name}.schema.json").read_text(
        encoding="utf-8"
    )
    return json.loads(text)


def check(name: str, value: Any) -> None:
    """Assert that what we write is what we promise."""
    import jsonschema

    jsonschema.Draft202012Validator(schema(name)).validate(value)


def plain(value: Any) -> Any:
    """A value as strict JSON: no NaN, no infinity, no numpy."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or value is pd.NA:
        return None
    return value


def cross_model_comparison(
    runs: Runs, findings: list[ModelFindings], cross: CrossFindings
) -> list[dict[str, Any]]:
    """One entry per model; the keys of the study's file come first."""
    return [plain(_entry(runs, found, cross)) for found in findings]


def _entry(runs: Runs, found: ModelFindings, cross: CrossFindings) -> dict[str, Any]:
    best, calm = found.best, found.calmest
    pooled = {item.statistic: item.r for item in found.associations if item.scope == "pooled"}
    states = runs.pruned(found.model)["state"].value_counts()
    return {
        "model": found.model,
        "total_experiments": found.summary.total,
        "valid_experiments": found.summary.valid,
        "best_method": None if best is None else best["method"],
        "best_acc": None if best is None else best["acc_mean"],
        "best_ppl": None if best is None else best["ppl"],
        "correlations": {name: pooled.get(name) for name in GRADIENTS},
        "schema_version": 1,
        "protocols": sorted(found.valid["protocol"].dropna().unique()),
        "mixed": runs.mixed,
        "ppl_protocol": runs.ppl_protocol,
        "invalid": {state: int(states.get(state, 0)) for state in STATES if state not in (VALID, DUPLICATE)},
        "best": _run(best),
        "min_ppl": _run(calm),
        "dense": _run(found.dense),
        "not_distinguishable": [] if found.ties is None else _names(found, found.ties.labels),
        "held_out": [
            {"basis": item.basis, "naive": item.naive, "honest": item.honest, "honest_sd": item.honest_sd,
             "optimism": item.optimism, "splits": item.splits}
            for item in found.held_out
        ],
        "correlation_details": [
            {"statistic": item.statistic, "scope": item.scope, "n": item.n, "pearson": item.r, "p": item.p,
             "p_holm": adjusted, "low": item.low, "high": item.high, "spearman": item.rho,
             "spearman_p": item.rho_p, "excluded": len(item.excluded), "why": item.why}
            for item, adjusted in zip(found.associations, found.association_holm, strict=True)
        ],
        "variance": None if found.variance is None else {
            "terms": {term.term: term.eta2 for term in found.variance.terms},
            "joint": {item.pair: item.share for item in found.variance.joint},
        },
        "methods": _methods(found, cross),
        "method_pairs": [
            {"left": pair.left, "right": pair.right, "n": pair.n, "difference": pair.mean, "low": pair.low,
             "high": pair.high, "t_p_holm": pair.t_holm, "wilcoxon_p_holm": pair.w_holm}
            for pair in found.pairs
        ],
        "pareto": _names(found, found.front),
        "transfer": _transfer(found.model, cross.transfer),
        "notes": [f"{item.statistic} ({item.scope}): {len(item.excluded)} rows are not finite and left out"
                  for item in found.associations if item.scope == "pooled" and item.excluded],
    }  # fmt: skip


def _names(found: ModelFindings, labels: tuple[int, ...]) -> list[str]:
    return [str(name) for name in found.valid.loc[list(labels[:MOST]), "run_id"]]


def _run(run: pd.Series | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "run_id": str(run["run_id"]), "method": run["method"], "setting": str(run.get("setting", run["method"])),
        "seq_len": run["seq_len"], "num_samples": run["num_samples"], "acc": run["acc_mean"],
        "acc_stderr": run["acc_mean_se"], "acc_low": run["acc_low"], "acc_high": run["acc_high"], "ppl": run["ppl"],
        "tasks": {task: run[f"acc_{task}"] for task in TASKS},
    }  # fmt: skip


def _methods(found: ModelFindings, cross: CrossFindings) -> dict[str, Any]:
    won = cross.wins[cross.wins["model"] == found.model].set_index("method")["cells_won"]
    return {
        group.level: {"mean": group.mean, "sd": group.sd, "min": group.minimum, "max": group.maximum, "n": group.n,
                      "cells_won": won.get(group.level)}
        for group in found.summary.methods
    }  # fmt: skip


def _transfer(model: str, table: pd.DataFrame) -> dict[str, Any]:
    names = ["n", "rho", "p", "setting", "acc", "regret", "rank"]
    rows = table[table["source"] == model].set_index("target")[names].rename(columns={"rho": "spearman"})
    return {str(target): row for target, row in rows.to_dict("index").items()}


def findings_json(runs: Runs, document: Document, factors: list[str]) -> dict[str, Any]:
    """Every table of the document, with the unit and meaning of each column."""
    return {
        "schema_version": 1,
        "lang": document.lang,
        "mixed": runs.mixed,
        "ppl_protocol": runs.ppl_protocol,
        "factors": list(factors),
        "protocols": plain(runs.protocols),
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "columns": [
                    {
                        "name": str(name),
                        "unit": about(str(name))["unit"],
                        "meaning": about(str(name))["meaning"],
                    }
                    for name in table.frame.columns
                ],
                "rows": [
                    plain(list(row)) for row in table.frame.head(MOST).itertuples(index=False, name=None)
                ],
            }
            for table in document.tables()
        ],
    }
