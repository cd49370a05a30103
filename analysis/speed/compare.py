"""Two values of one setting, everything else held equal: differences paired over equal cells."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import holm, signed_rank, t_p, t_quantile
from secateur.analysis.speed.measurements import SETTING, Speeds
from secateur.pruning.errors import ConfigError

ALPHA = 0.05
FEW_CELLS = 5
"""With fewer cells than this the repetitions are the units of a comparison, where there are more of them."""
GROUPS = ("model", "method", "bench.run", "budget")
NAMES_ONLY = ("bench.run", "bench.plan", "model.name", "model.path", "bench.label")
"""Settings that name things; they are no reason to call two cells different when a group of settings is compared."""


@dataclass(frozen=True)
class Difference:
    """`right` against `left`: relative difference of throughput, (right - left) / left, geometric mean over cells.

    Attributes:
        unit, n: What the interval counts (`cells` or `rounds`), and how many.
        effect, low, high: With its 95 % interval (Student on log ratios); shares.
        sd: Of the log ratios over the units.
        t_p, t_holm, w_p: Paired t test, the same Holm-adjusted over all comparisons; Wilcoxon's signed-rank test.
        cv_left, cv_right: Mean noise of a single pass under either value (share).
        same_session: Whether both values were measured in one sweep, in one random order.
        verdict: faster, slower, none or few.
    """

    model: str
    phase: str
    left: str
    right: str
    cells: int
    unit: str
    n: int
    effect: float
    low: float
    high: float
    sd: float
    t_p: float
    w_p: float
    cv_left: float
    cv_right: float
    same_session: bool
    t_holm: float = math.nan
    verdict: str = "few"

    @property
    def bound(self) -> float:
        """The largest difference, in either direction, that the interval allows (share)."""
        return max(abs(self.low), abs(self.high))


def find_setting(speeds: Speeds, name: str) -> str:
    """The full name of a setting; its last part, or the part after `n_`, is enough where only one setting fits.

    Raises:
        ConfigError: No or several settings fit, or it has one value only; those with several are listed.
    """
    varied = speeds.varied()
    known = speeds.settings()
    fits = [s for s in known if s == name]
    fits = fits or [s for s in known if s.split(".")[-1].removeprefix("n_").removeprefix("use_") == name]
    several = ", ".join(varied) or "none"
    if len(fits) > 1:
        fits = [s for s in fits if s in varied] or fits
    if len(fits) != 1:
        what = f"fits {', '.join(fits)}" if fits else "is no setting of these measurements"
        raise ConfigError(f"setting={name}: {what}. Settings with several values: {several}")
    if fits[0] not in varied:
        raise ConfigError(
            f"setting={name}: has one value only here ({speeds.cells[SETTING + fits[0]].iloc[0]}). "
            f"Settings with several values: {several}"
        )
    return fits[0]


def values_of(cells: pd.DataFrame, setting: str) -> list[str]:
    """Values of a setting as texts: numbers by size, the rest by name."""
    found = cells[SETTING + setting].map(value_text).unique().tolist()
    return sorted(found, key=lambda text: (0, float(text), text) if _is_number(text) else (1, 0.0, text))


def value_text(value: Any) -> str:
    """A setting's value as a person writes it: no numpy type, whole numbers without a decimal point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return f"{float(value):g}"
    return str(value)


def compare(speeds: Speeds, setting: str) -> list[Difference]:
    """Every pair of values, per model and phase; p-values Holm-adjusted over all of them."""
    cells = prepared(speeds, setting)
    found: list[Difference] = []
    for (_, _), part in cells.groupby(["label", "phase"], sort=True):
        values = [v for v in values_of(speeds.cells, setting) if v in set(part["value"])]
        for left, right in combinations(values, 2):
            difference = _pair(speeds, part, left, right)
            if difference is not None:
                found.append(difference)
    adjusted = holm([d.t_p for d in found])
    return [_judge(replace(d, t_holm=p)) for d, p in zip(found, adjusted, strict=True)]


def prepared(speeds: Speeds, setting: str) -> pd.DataFrame:
    """Cells with `value`, `key` (all that is held equal but where it was measured) and `label` (the model's name)."""
    cells = speeds.cells
    skip = {SETTING + setting, *(SETTING + name for name in NAMES_ONLY if setting.startswith(GROUPS))}
    group = setting.split(".")[0] if setting in ("model.name", "method.name") else None
    held = [
        name
        for name in cells.columns
        if name.startswith(SETTING)
        and name not in skip
        and not (group and name.startswith(f"{SETTING}{group}."))
    ]
    sizes = cells["batch"].astype("str").where(~cells["largest"].astype(bool), "max")
    own = [] if group == "model" else ["model"]
    key = cells[[*own, "tool", "phase", "n_prompt", "n_gen", *held]].astype("str").assign(size=sizes)
    joined = joined_text(key)
    result = cells.assign(
        value=cells[SETTING + setting].map(value_text), key=joined, row=np.arange(len(cells))
    )
    one = result.groupby("key")["subject"].transform("nunique") == 1
    return result.assign(label=result["subject"].where(one, result["model"] if own else "*"))


def joined_text(frame: pd.DataFrame) -> pd.Series:
    """All columns of each row as one text; equal exactly where the rows are."""
    rows = ["\x1f".join(map(str, row)) for row in frame.itertuples(index=False, name=None)]
    return pd.Series(rows, index=frame.index, dtype="str")


def _pair(speeds: Speeds, part: pd.DataFrame, left: str, right: str) -> Difference | None:
    """Left and right over the cells that have both: within one sweep where that is possible."""
    for session in (True, False):
        index = ["key", "source"] if session else ["key"]
        a, b = (part[part["value"] == value].groupby(index)["row"].agg(list) for value in (left, right))
        both = pd.concat([a, b], axis=1, keys=["a", "b"], join="inner")
        if len(both):
            return _difference(speeds, part, both, left, right, session)
    return None


def _difference(
    speeds: Speeds, part: pd.DataFrame, both: pd.DataFrame, left: str, right: str, session: bool
) -> Difference:
    log = np.log(part.set_index("row")["tokens_per_s"].astype(float))
    logs = np.array([log[b].mean() - log[a].mean() for a, b in zip(both["a"], both["b"], strict=True)])
    unit = "cells"
    cells = len(logs)
    if cells < FEW_CELLS:
        rounds = _by_round(speeds, both)
        if len(rounds) > cells:
            logs, unit = rounds, "rounds"
    mean, low, high, sd, p = student(logs)
    _, w = signed_rank(logs)
    noise = [
        float(part.loc[part["row"].isin([r for rows in both[s] for r in rows]), "cv"].mean()) for s in "ab"
    ]
    return Difference(
        model=str(part["label"].iloc[0]), phase=str(part["phase"].iloc[0]), left=left, right=right, cells=cells,
        unit=unit, n=len(logs), effect=math.expm1(mean), low=math.expm1(low), high=math.expm1(high), sd=sd, t_p=p,
        w_p=w, cv_left=noise[0], cv_right=noise[1], same_session=session,
    )  # fmt: skip


def _by_round(speeds: Speeds, both: pd.DataFrame) -> np.ndarray:
    """Mean log ratio over all cells of every round that both values have in every cell."""
    log = speeds.samples.assign(log=np.log(speeds.samples["tokens_per_s"].astype(float)))
    means: list[pd.Series] = []
    for side, sign in (("a", -1.0), ("b", 1.0)):
        means += [sign * log[log["cell"].isin(rows)].groupby("round")["log"].mean() for rows in both[side]]
    if not means:
        return np.array([])
    table = pd.concat(means, axis=1, join="inner")
    return table.sum(axis=1).to_numpy(dtype=float) / len(both)


def student(values: np.ndarray) -> tuple[float, float, float, float, float]:
    """Mean, its 95 % interval, standard deviation and two-sided p against 0; NaN where one value is all there is."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return mean, math.nan, math.nan, math.nan, math.nan
    sd = float(values.std(ddof=1))
    if sd <= 1e-15:
        return mean, mean, mean, sd, 1.0 if abs(mean) <= 1e-15 else 0.0
    half = t_quantile(n - 1) * sd / math.sqrt(n)
    return mean, mean - half, mean + half, sd, t_p(mean / (sd / math.sqrt(n)), n - 1)


def _judge(d: Difference) -> Difference:
    if math.isnan(d.low):
        return d
    found = d.t_holm < ALPHA and (d.low > 0 or d.high < 0)
    return replace(d, verdict=("faster" if d.effect > 0 else "slower") if found else "none")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
