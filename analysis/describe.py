"""What the reference study prints, as values: counts, group means, correlations, the best run of a model."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from dataclasses import dataclass

import numpy as np
import pandas as pd

from secateur.analysis.runset import GRADIENTS, Runs
from secateur.eval.config import TASKS


@dataclass(frozen=True)
class Group:
    """ACC of the runs that share one level of a factor; `sd` is the population one (ddof = 0)."""

    level: str
    mean: float
    sd: float
    minimum: float
    maximum: float
    n: int


@dataclass(frozen=True)
class ModelSummary:
    """The study's findings about one model.

    Attributes:
        correlations: Gradient statistic -> Pearson r with ACC over all valid rows; NaN when a row is not finite.
    """

    model: str
    total: int
    valid: int
    methods: tuple[Group, ...]
    seq_len: tuple[Group, ...]
    num_samples: tuple[Group, ...]
    correlations: dict[str, float]
    extreme_correlation: float
    extreme: tuple[Group, ...]
    ppl_correlation: float
    best: pd.Series | None

    @property
    def invalid(self) -> int:
        """Runs without a usable ACC."""
        return self.total - self.valid


def groups(frame: pd.DataFrame, factor: str, value: str = "acc_mean") -> tuple[Group, ...]:
    """Mean, population sd, minimum, maximum and count of `value` per level of a factor, sorted by level."""
    rows = frame[frame[factor].notna()]
    if rows.empty:
        return ()
    table = rows.groupby(factor, sort=True)[value].agg(
        ["mean", "min", "max", "count", lambda v: v.std(ddof=0)]
    )
    return tuple(
        Group(level_text(level), float(mean), float(sd), float(low), float(high), int(n))
        for level, mean, low, high, n, sd in table.itertuples(name=None)
    )


def level_text(level: object) -> str:
    """A factor level as text: whole numbers without a decimal point."""
    return f"{level:.0f}" if isinstance(level, float) and level.is_integer() else f"{level}"


def strict_pearson(x: pd.Series, y: pd.Series) -> float:
    """Pearson r over all rows, NaN as soon as one value is missing or infinite (the study's convention)."""
    a, b = x.to_numpy(dtype=float, na_value=np.nan), y.to_numpy(dtype=float, na_value=np.nan)
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def best_run(valid: pd.DataFrame) -> pd.Series | None:
    """The run with the highest mean accuracy; the first of equal ones."""
    return None if valid.empty else valid.loc[valid["acc_mean"].idxmax()]


def summarise(runs: Runs, model: str) -> ModelSummary:
    """The study's findings about one model."""
    valid = runs.valid(model)
    accuracy = valid["acc_mean"]
    return ModelSummary(
        model=model,
        total=len(runs.pruned(model)),
        valid=len(valid),
        methods=groups(valid, "method"),
        seq_len=groups(valid, "seq_len"),
        num_samples=groups(valid, "num_samples"),
        correlations={name: strict_pearson(valid[name], accuracy) for name in GRADIENTS},
        extreme_correlation=strict_pearson(valid["extreme_layers"], accuracy),
        extreme=groups(valid, "extreme_layers"),
        ppl_correlation=strict_pearson(valid["ppl"], accuracy),
        best=best_run(valid),
    )


def task_accuracies(run: pd.Series) -> dict[str, float]:
    """Task -> accuracy of one run, in the order of the tables; absent tasks are left out."""
    return {task: float(run[f"acc_{task}"]) for task in TASKS if pd.notna(run[f"acc_{task}"])}
