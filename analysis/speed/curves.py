"""Speed against each size, for every model and phase: the points, the candidates, the chosen curve."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false, reportReturnType=false

from dataclasses import dataclass

import numpy as np
import pandas as pd

from secateur.analysis.speed.compare import joined_text, value_text
from secateur.analysis.speed.fits import FORMS, Balanced, Fit, balance, fit_all
from secateur.analysis.speed.measurements import AXES, PHASES, Speeds
from secateur.analysis.speed.words import short, signed_terms

TERMS = ("a", "b", "c")


@dataclass(frozen=True)
class Curve:
    """One model, phase and size: its candidates (`fits`, one chosen) and the points that they were fitted to."""

    subject: str
    phase: str
    axis: str
    points: Balanced
    fits: tuple[Fit, ...]

    @property
    def chosen(self) -> Fit:
        """The curve that was chosen."""
        return next(fit for fit in self.fits if fit.chosen)


def labels(cells: pd.DataFrame, varied: list[str]) -> pd.Series:
    """What tells the models of a report apart: the subject, and the settings that differ within it."""
    parts = [cells["subject"].astype("str")]
    for name in varied:
        column = cells[f"set.{name}"].map(value_text)
        within = column.groupby(cells["subject"].astype("str")).transform("nunique") > 1
        if within.any():
            short = name.split(".")[-1]
            parts.append(
                column.map(lambda v, key=short: "" if v == "–" else f" {key}={v}")
                .where(within, "")
                .astype("str")
            )
    text = parts[0].str.cat(parts[1:]) if len(parts) > 1 else parts[0]
    several = cells.groupby("subject")["tool"].transform("nunique") > 1
    return text.where(~several, text + " · " + cells["tool"].astype("str"))


def all_curves(speeds: Speeds) -> list[Curve]:
    """Every curve that the grid has points for: a size with three levels or more."""
    found: list[Curve] = []
    for subject in dict.fromkeys(speeds.cells["subject"]):
        for phase in PHASES:
            part = speeds.cells[(speeds.cells["subject"] == subject) & (speeds.cells["phase"] == phase)]
            found += [curve for axis in AXES if (curve := _curve(part, str(subject), phase, axis))]
    return found


def _curve(part: pd.DataFrame, subject: str, phase: str, axis: str) -> Curve | None:
    if part[axis].nunique() < 3:
        return None
    others = [name for name in AXES if name != axis]
    other = pd.factorize(joined_text(part[others]))[0]
    numbers = {name: part[name].to_numpy(dtype=float) for name in (axis, "tokens_per_s", "tokens")}
    points = balance(numbers[axis], other, numbers["tokens_per_s"], numbers["tokens"])
    if len(np.unique(points.n)) < 3:
        return None
    fits = fit_all(points.n, points.speed, points.tokens, points.taken)
    return Curve(subject, phase, axis, points, tuple(fits)) if fits else None


def fits_frame(curves: list[Curve]) -> pd.DataFrame:
    """Every candidate of some curves as a table row."""
    rows: list[dict[str, object]] = []
    for curve in curves:
        for fit in curve.fits:
            row: dict[str, object] = {
                "subject": curve.subject, "phase": curve.phase, "axis": curve.axis, "form": fit.form,
                "equation": equation(fit), "coefficients": coefficients(fit), "points": fit.points,
                "fit_error": fit.error, "cross_error": fit.cross, "delta_aicc": fit.delta, "r2": fit.r2,
                "chosen": fit.chosen,
            }  # fmt: skip
            for place, name in enumerate(TERMS):
                known = place < len(fit.coefficients)
                row[name] = fit.coefficients[place] if known else None
                row[f"{name}_low"] = fit.low[place] if known else None
                row[f"{name}_high"] = fit.high[place] if known else None
            rows.append(row)
    return pd.DataFrame(rows)


def equation(fit: Fit) -> str:
    """The curve as a formula: y in tokens/s, t in milliseconds."""
    if FORMS[fit.form][0] == "time":
        return "t = " + signed_terms(tuple(1000 * c for c in fit.coefficients), " ms")
    return "y = " + signed_terms(fit.coefficients, "")


def coefficients(fit: Fit) -> str:
    """Intervals of the coefficients, in the units of the formula."""
    factor = 1000 if FORMS[fit.form][0] == "time" else 1
    named = zip(TERMS, fit.low, fit.high, strict=False)
    return "; ".join(f"{name}: {short(factor * low)} … {short(factor * high)}" for name, low, high in named)
