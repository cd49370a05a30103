"""What a column is: a setting, a measurement and which way is better, a spread, a time, a name."""

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml

from secateur.analysis.insight.units import SHARE, Unit, split_name

Role = Literal[
    "subject", "condition", "setting", "replicate", "measure", "spread", "time", "identity", "text"
]
Better = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        metric: Canonical metric (`acc`, `throughput`, ...) of a measure, or its own normalised name.
        words: What a text calls the metric, in lower case.
        plain: The normalised name, without unit.
        rank: What it is worth to a decision: 0 an outcome, 1 a cost, 2 unknown, 3 bookkeeping.
    """

    name: str
    plain: str
    role: Role
    unit: Unit | None = None
    better: Better = "none"
    metric: str = ""
    words: tuple[str, ...] = field(default=())
    rank: int = 2


@dataclass(frozen=True)
class _Rules:
    patterns: dict[str, re.Pattern[str]]
    metrics: dict[str, tuple[re.Pattern[str], dict[str, Any]]]


@cache
def _rules() -> _Rules:
    text = (resources.files("secateur.analysis.insight") / "metrics.yaml").read_text(encoding="utf-8")
    raw: dict[str, Any] = yaml.safe_load(text)
    metrics = {name: (re.compile(about["pattern"]), about) for name, about in raw.pop("metrics").items()}
    return _Rules({name: re.compile(pattern) for name, pattern in raw.items()}, metrics)


def normal(name: str) -> str:
    """A column name in lower case with `_` between its words, last part of a dotted path first choice."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[\s\-./,:]+", "_", text.lower()).strip("_")


CONFIGURED = frozenset({
    "config", "configs", "configuration", "args", "arguments", "params", "hyperparameters", "settings", "options",
    "environment", "env", "versions", "provenance", "higher_is_better", "n-shot",
})  # fmt: skip
"""Mappings whose entries say what was asked for: nothing below them is a measurement."""


@cache
def describe(name: str) -> Column:
    """What the name alone says about a column."""
    about = _described(name)
    if about.role in ("measure", "spread") and not CONFIGURED.isdisjoint(name.lower().split(".")[:-1]):
        return Column(name, about.plain, "setting", about.unit)
    return about


def _described(name: str) -> Column:
    base, _, statistic = name.partition("·")  # `x·mean` and `x·sd` are ours, of a list of numbers `x`
    short, unit = split_name(base)
    rules = _rules()
    plain = normal(re.sub(r",none$", "", short))
    last = normal(re.sub(r",none$", "", short).rsplit(".", 1)[-1])
    tests: tuple[Role, ...] = ("time", "subject", "condition", "replicate", "identity", "setting")
    for role in tests:
        if rules.patterns[role].search(plain) or rules.patterns[role].search(last):
            return Column(name, plain, role, unit)
    metric, words, better, share, rank = "", (plain.replace("_", " "), plain), "none", False, 2
    for key, (pattern, about) in rules.metrics.items():
        if pattern.search(plain):
            metric, better, share = key, about["better"], about.get("share", False)
            rank = int(about["rank"])
            words = (*words, *str(about["en"]).split("|"), *str(about["zh"]).split("|"))
            break
    if unit is None and share:
        unit = SHARE
    spread = statistic in ("sd", "n") or rules.patterns["spread"].search(plain)
    role: Role = "spread" if spread else "measure"
    return Column(name, plain, role, unit, better, metric or plain, tuple(dict.fromkeys(words)), rank)
