"""Everything that is found out about one model."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from secateur.analysis.answers import read_answers
from secateur.analysis.association import Association, adjusted, associations
from secateur.analysis.describe import ModelSummary, summarise
from secateur.analysis.factors import cell_key, setting_texts
from secateur.analysis.paired import Paired, compare_methods, friedman, matched
from secateur.analysis.pareto import front, objectives
from secateur.analysis.runset import GRADIENTS, Runs
from secateur.analysis.selection import HeldOut, Ties, hold_out_questions, hold_out_tasks, not_distinguishable
from secateur.analysis.uncertainty import replicate_noise, task_table, with_errors
from secateur.analysis.variance import Variance, explain
from secateur.eval.config import TASKS

STATISTICS = (*GRADIENTS, "grad_std_ratio", "grad_max_ratio", "extreme_layers", "ppl")


@dataclass(frozen=True)
class ModelFindings:
    """What is known about one model; the rows of `valid` are labelled by their place in `Runs.frame`.

    Attributes:
        valid: Ranked runs with `acc_low`, `acc_high`, `setting`, and `gap` (dense ACC - ACC), `kept_acc` (ACC / dense
            ACC) and `ppl_factor` (PPL / dense PPL) when the dense model was measured under the same protocol.
        ties: None without a valid run.
        omnibus: Friedman over all methods: chi-squared, p, cells.
        noise: Pooled sd between runs that differ only in the seed, and its degrees of freedom.
        front: Labels of the Pareto front over `front_of`.
    """

    model: str
    summary: ModelSummary
    valid: pd.DataFrame
    dense: pd.Series | None
    factors: tuple[str, ...]
    tasks: pd.DataFrame
    ties: Ties | None
    pairs: tuple[Paired, ...]
    omnibus: tuple[float, float, int]
    variance: Variance | None
    associations: tuple[Association, ...]
    association_holm: tuple[float, ...]
    noise: tuple[float, int]
    held_out: tuple[HeldOut, ...]
    front: tuple[int, ...]
    front_of: tuple[str, ...]

    @property
    def best(self) -> pd.Series | None:
        """The run with the highest ACC, with its added columns."""
        return None if self.valid.empty else self.valid.loc[self.valid["acc_mean"].idxmax()]

    @property
    def calmest(self) -> pd.Series | None:
        """The run with the lowest perplexity."""
        finite = self.valid[np.isfinite(self.valid["ppl"].to_numpy(dtype=float))]
        return None if finite.empty else finite.loc[finite["ppl"].idxmin()]


def analyse_model(runs: Runs, model: str, factors: list[str]) -> ModelFindings:
    """All findings about one model."""
    valid = with_errors(runs.valid(model))
    dense = runs.dense(model)
    valid = valid.assign(setting=setting_texts(valid, factors) if len(valid) else pd.Series(dtype="str"))
    valid = _beside_dense(valid, dense)
    own = [name for name in factors if valid[name].nunique(dropna=False) > 1]
    cells = matched(valid, own) if len(valid) else pd.DataFrame()
    answers = read_answers(valid) if len(valid) else None
    found = associations(valid, STATISTICS, "acc_mean", "method") if len(valid) else []
    names = objectives(valid)
    held_out = (hold_out_tasks(valid), hold_out_questions(valid, answers))
    return ModelFindings(
        model=model,
        summary=summarise(runs, model),
        valid=valid,
        dense=None if dense is None else with_errors(dense.to_frame().T.infer_objects()).iloc[0],
        factors=tuple(own),
        tasks=_task_comparison(valid, dense),
        ties=not_distinguishable(valid, answers) if len(valid) else None,
        pairs=tuple(compare_methods(cells)),
        omnibus=friedman(cells) if len(cells) else (math.nan, math.nan, 0),
        variance=explain(valid, own),
        associations=tuple(found),
        association_holm=tuple(adjusted(found)),
        noise=replicate_noise(valid, cell_key(valid, [n for n in own if n != "seed"]))
        if len(valid)
        else (math.nan, 0),
        held_out=tuple(item for item in held_out if item is not None),
        front=tuple(int(label) for label in front(valid, names)) if len(names) > 1 else (),
        front_of=tuple(names),
    )


def _beside_dense(valid: pd.DataFrame, dense: pd.Series | None) -> pd.DataFrame:
    if dense is None:
        return valid
    changes = {
        "gap": float(dense["acc_mean"]) - valid["acc_mean"],
        "kept_acc": valid["acc_mean"] / float(dense["acc_mean"]),
    }
    if pd.notna(dense["ppl"]):
        changes["ppl_factor"] = valid["ppl"] / float(dense["ppl"])
    return valid.assign(**changes)


def _task_comparison(valid: pd.DataFrame, dense: pd.Series | None) -> pd.DataFrame:
    """Per task: the best run with its interval, the mean and best of all runs, and the dense model."""
    if valid.empty:
        return pd.DataFrame()
    best = valid.loc[valid["acc_mean"].idxmax()]
    table = task_table(best)
    if table.empty:
        return table
    columns = [f"acc_{task}" for task in table["task"]]
    table["mean_of_runs"] = valid[columns].mean().to_numpy()
    table["best_of_runs"] = valid[columns].max().to_numpy()
    if dense is not None:
        table["dense"] = dense[[f"acc_{task}" for task in TASKS if f"acc_{task}" in columns]].to_numpy(
            dtype=float
        )
        table["gap"] = table["dense"] - table["acc"]
    return table
