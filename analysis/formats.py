"""How a value is printed: one rule per kind of column, the kinds from `columns.yaml`."""

import math
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd
import yaml

from secateur.eval.config import TASKS

ABSENT = "–"


@cache
def columns() -> dict[str, dict[str, str]]:
    """Column name -> kind, unit and meaning."""
    folder = resources.files("secateur.analysis")
    table: dict[str, dict[str, str]] = {}
    for place in (folder / "speed" / "columns.yaml", folder / "columns.yaml"):
        table |= yaml.safe_load(place.read_text(encoding="utf-8"))
    for task in TASKS:
        table[f"acc_{task}"] = {"kind": "acc", "unit": "share", "meaning": f"accuracy on {task}"}
        table[f"se_{task}"] = {"kind": "se", "unit": "share", "meaning": f"standard error on {task}"}
        table[f"n_{task}"] = {"kind": "int", "unit": "questions", "meaning": f"questions of {task}"}
    return table


def about(name: str) -> dict[str, str]:
    """Kind, unit and meaning of a column, those of open families included."""
    table = columns()
    if name in table:
        return table[name]
    if name.startswith("set."):
        return {"kind": "text", "unit": "", "meaning": f"setting {name.removeprefix('set.')}"}
    if name.startswith("acc · "):
        return {"kind": "acc", "unit": "share", "meaning": f"ACC on {name.removeprefix('acc · ')}"}
    if name.startswith("config."):
        return {"kind": "text", "unit": "", "meaning": f"config value {name.removeprefix('config.')}"}
    if name.startswith("metric."):
        return {"kind": "number", "unit": "", "meaning": f"metric {name.removeprefix('metric.')}"}
    raise KeyError(name)


def is_text(name: str) -> bool:
    """Whether a column is set flush left."""
    return about(name)["kind"] in ("text", "flag")


def show(name: str, value: Any) -> str:
    """A value as it stands in a report."""
    if isinstance(value, tuple | list):
        return ", ".join(str(item) for item in value) or ABSENT
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ABSENT
    kind = about(name)["kind"]
    if isinstance(value, str) or kind == "text":
        return f"{value:g}" if isinstance(value, float) else str(value)
    if kind == "flag":
        return "✓" if value else ""
    number = float(value)
    return ("∞" if number > 0 else "-∞") if math.isinf(number) else _number(kind, number)


def _number(kind: str, number: float) -> str:
    if kind in WRITTEN:
        return WRITTEN[kind](number)
    if kind == "int" and not number.is_integer():
        return f"{number:g}"
    layout = {
        "int": "{:.0f}", "acc": "{:.4f}", "se": "{:.4f}", "diff": "{:+.4f}", "ppl": "{:.2f}", "share": "{:.1%}",
        "r": "{:+.3f}", "number": "{:.4g}", "change": "{:+.2%}", "times": "{:.2f}×", "delta": "{:.1f}",
    }[kind]  # fmt: skip
    return layout.format(number + 0.0)


def _bytes(x: float) -> str:
    return (
        f"{x / 2**30:.2f} GiB"
        if x >= 2**30
        else f"{x / 2**20:.0f} MiB"
        if x >= 10 * 2**20
        else f"{x / 2**20:.2g} MiB"
    )


WRITTEN: dict[str, Callable[[float], str]] = {
    "p": lambda x: "<0.0001" if x < 1e-4 else f"{x:.4f}",
    "bytes": _bytes,
    "seconds": lambda x: f"{x / 3600:.2f} h" if x >= 3600 else f"{x:.1f} s",
    "seconds_ms": lambda x: f"{1000 * x:.3g} ms" if x < 1 else f"{x:.2f} s",
    "params": lambda x: f"{x / 1e9:.3f} B" if x >= 1e9 else f"{x / 1e6:.3f} M",
    "rate": lambda x: f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}",
    "cv": lambda x: "<0.01%" if 0 < x < 5e-5 else f"{x:.2%}",
}
"""Kinds whose layout depends on the number."""
