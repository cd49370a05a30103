"""Tables in words: phases, forms and verdicts in the report's language, changes with their interval."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportReturnType=false

import math
from typing import Any

import pandas as pd

from secateur.analysis.speed.words import SpeedTexts, bound_text, interval_text, size_text

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


def wanted(n: float, low: float, high: float) -> str:
    """About how many units would narrow an interval of `n` of them to +- `UNCLEAR`: it shrinks with their root."""
    more = max(n + 1, n * ((high - low) / 2 / UNCLEAR) ** 2)
    step = 10 ** max(0, math.floor(math.log10(more)) - 1)
    return f"{math.ceil(more / step) * step:,}"


def verdict_text(row: dict[Any, Any], texts: SpeedTexts, setting: str = "") -> str:
    """What a comparison says, the verdict first; what is undecided has no size, but what would decide it."""
    key = f"{setting.split('.')[-1]}=" if setting else ""
    names = {"reference": f"{key}{row['reference']}", "compared": f"{key}{row['compared']}"}
    kind, low, high = verdict_kind(row), row["change_low"], row["change_high"]
    values: dict[str, str] = {}
    if kind == "unclear":
        values = {"wanted": wanted(row["n"], low, high), "n": str(row["n"]), "least": f"{100 * UNCLEAR:.0f}",
                  "counted": texts(f"counted.{row['counted']}")}  # fmt: skip
    elif kind == "none":
        values = {"bound": bound_text(max(abs(low), abs(high)))}
    elif kind != "few":
        values = {"size": size_text(row["change"], low, high)}
    return texts(f"verdict.{kind}", **names, **values)


def pays_text(row: dict[Any, Any], texts: SpeedTexts) -> str:
    """Whether a pruned model is faster than its dense one: the verdict, and numbers only where it is decided."""
    low, high = row["speedup_low"] - 1, row["speedup_high"] - 1
    if math.isnan(low):
        return texts("pays.few")
    if low > 0 or high < 0:
        ends = {key: f"{row[name]:.2f}" for key, name in PAYS.items()}
        return texts("pays.faster" if low > 0 else "pays.slower", **ends)
    bound = max(abs(low), abs(high))
    if bound <= UNCLEAR:
        return texts("pays.none", bound=bound_text(bound))
    return texts("pays.unclear", wanted=wanted(row["n"], low, high), least=f"{100 * UNCLEAR:.0f}")


PAYS = {"speedup": "speedup", "low": "speedup_low", "high": "speedup_high"}
