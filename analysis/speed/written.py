"""Tables in words: phases, forms and verdicts in the report's language, changes with their interval."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportReturnType=false

from typing import Any

import pandas as pd

from analysis.speed.words import SpeedTexts, bound_text, interval_text, size_text

WORDS = {"phase": "phases", "axis": "axes", "form": "forms", "counted": "counted", "batch_kind": "batches"}
"""Column -> where the words of its values stand."""


def spoken(frame: pd.DataFrame, texts: SpeedTexts) -> pd.DataFrame:
    """The table with the values of its naming columns as words; verdicts become words, changes get intervals."""
    changes: dict[str, Any] = {
        name: frame[name].map(lambda value, place=place: texts.get(f"{place}.{value}", str(value)))
        for name, place in WORDS.items()
        if name in frame
    }
    result = frame.assign(**changes)
    if {"verdict", "change"} <= set(frame.columns) and len(frame):
        rows = frame.to_dict("records")
        result = result.assign(verdict=[verdict_word(row, texts) for row in rows])
        ends = [(row["change"], row["change_low"], row["change_high"]) for row in rows]
        result.insert(
            list(result.columns).index("change"), "change_text", [interval_text(*end) for end in ends]
        )
    return result


UNCLEAR = 0.1
"""A difference that may be larger than this (share) is not called none."""


def verdict_kind(row: dict[Any, Any]) -> str:
    """faster, slower, none, unclear or few."""
    wide = row["verdict"] == "none" and max(abs(row["change_low"]), abs(row["change_high"])) > UNCLEAR
    return "unclear" if wide else str(row["verdict"])


def verdict_word(row: dict[Any, Any], texts: SpeedTexts) -> str:
    """What a comparison says, in a word or two."""
    ends = (abs(row["change_low"]), abs(row["change_high"]))
    bound = bound_text(max(ends)) if verdict_kind(row) == "none" else ""
    return texts(f"short.{verdict_kind(row)}", bound=bound)


def verdict_text(row: dict[Any, Any], texts: SpeedTexts, setting: str = "") -> str:
    """What a comparison says, plainly."""
    key = f"{setting.split('.')[-1]}=" if setting else ""
    names = {"reference": f"{key}{row['reference']}", "compared": f"{key}{row['compared']}"}
    kind, low, high = verdict_kind(row), row["change_low"], row["change_high"]
    if kind == "few":
        return texts("verdict.few", **names)
    if kind == "unclear":
        return texts("verdict.unclear", low=f"{100 * low:+.0f}", high=f"{100 * high:+.0f}", **names)
    if kind == "none":
        return texts("verdict.none", bound=bound_text(max(abs(low), abs(high))), **names)
    cv = max(row["cv_reference"], row["cv_compared"])
    small = abs(row["change"]) < cv
    noise = texts("verdict.noise", cv=f"{cv:.2%}") if small else ""
    return texts(f"verdict.{row['verdict']}", size=size_text(row["change"], low, high), noise=noise, **names)
