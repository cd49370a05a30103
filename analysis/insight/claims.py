"""Numbered facts: what a writer is given, and the only numbers that its text may contain."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false

import math
from collections import Counter
from dataclasses import dataclass, replace

import pandas as pd

from secateur.analysis.insight.datasets import KINDS, Dataset
from secateur.analysis.insight.findings.base import Evidence, Finding, Number
from secateur.analysis.insight.ingest import Ingested
from secateur.analysis.insight.phenomena import Phenomenon, group
from secateur.analysis.insight.tables import FILE, ROW
from secateur.analysis.insight.units import Unit

LEVELS = 40
"""Distinct values of settings that are numbered."""


@dataclass(frozen=True)
class Claim:
    """One numbered fact.

    Attributes:
        id: Its number: `F<id>`.
        words: What a text calls the thing that is measured or counted, in lower case.
        names: What a text calls the thing that it is measured on (model, method, file), in lower case.
        how: Empty when the value stands in a file; else the computation.
        about: The same in words, for the writer and the list of sources.
        signed: A change: its direction is checked against the words around it.
        error: Its standard error where one is known: digits beyond a hundredth of it are not printed.
    """

    id: int
    value: float
    unit: Unit | None
    words: tuple[str, ...]
    names: tuple[str, ...]
    about: str
    evidence: tuple[Evidence, ...]
    how: str = ""
    signed: bool = False
    digits: int | None = None
    error: float = math.nan


@dataclass(frozen=True)
class Told:
    """A finding and the claim of each of its numbers."""

    finding: Finding
    claims: dict[str, Claim]


@dataclass(frozen=True)
class Facts:
    """All claims, by inventory key and by finding; `phenomena` are places in `told`."""

    claims: tuple[Claim, ...]
    inventory: dict[str, Claim]
    told: tuple[Told, ...]
    names: frozenset[str]
    phenomena: tuple[Phenomenon, ...] = ()

    def groups(self, part: str) -> list[list[Told]]:
        """The phenomena of a part of the report: their findings, the one that is told first."""
        return [[self.told[place] for place in item.places] for item in self.phenomena if item.part == part]


COUNTS: dict[str, tuple[str, ...]] = {
    "files": ("files", "file", "文件"), "read": ("read", "files", "读取", "文件"),
    "unreadable": ("unreadable", "damaged", "broken", "cannot be read", "无法读取", "损坏"),
    "excluded": ("excluded", "left out", "not read", "skipped", "排除", "跳过"),
    "rows": ("rows", "records", "results", "result", "行", "记录", "结果"),
    "facts": ("facts", "numbers", "values", "事实", "数值"),
    "datasets": ("data sets", "datasets", "tables", "数据集"), "findings": ("findings", "发现"),
}  # fmt: skip


def number_facts(given: Ingested, datasets: list[Dataset], findings: list[Finding], facts: int) -> Facts:
    """Number the inventory's counts, the numbers of the findings, and the values of settings."""
    claims: list[Claim] = []

    def add(claim: Claim) -> Claim:
        claims.append(replace(claim, id=len(claims) + 1))
        return claims[-1]

    inventory = {
        key: add(_count(key, value, words)) for key, value, words in _counts(given, datasets, findings, facts)
    }
    told = tuple(
        Told(finding, {key: add(_claim(finding, key, number)) for key, number in finding.numbers.items()})
        for finding in findings
    )
    for claim in _settings(datasets):
        add(claim)
    return Facts(
        tuple(claims), inventory, told, _names(given, datasets) | _labels(findings), tuple(group(findings))
    )


def _counts(
    given: Ingested, datasets: list[Dataset], findings: list[Finding], facts: int
) -> list[tuple[str, float, tuple[str, ...]]]:
    read = given.read()
    counts: list[tuple[str, float, tuple[str, ...]]] = [
        ("files", len(given.sources), COUNTS["files"]), ("read", len(read), COUNTS["read"]),
        ("unreadable", len(given.unreadable), COUNTS["unreadable"]),
        ("excluded", sum(1 for s in given.sources if s.excluded), COUNTS["excluded"]),
        ("rows", sum(data.rows for data in datasets), COUNTS["rows"]), ("facts", facts, COUNTS["facts"]),
        ("datasets", len(datasets), COUNTS["datasets"]), ("findings", len(findings), COUNTS["findings"]),
    ]  # fmt: skip
    counts += [(f"type {t}", n, (t.lower(),)) for t, n in sorted(Counter(s.type for s in read).items())]
    kinds = Counter(kind for kind, _ in {(data.kind, file) for data in datasets for file in data.files})
    counts += [(f"kind {kind}", kinds[kind], KIND_WORDS[kind]) for kind in KINDS if kind in kinds]
    counts += [
        (f"found {kind}", n, WORDS[kind]) for kind, n in Counter(item.kind for item in findings).items()
    ]
    return counts


KIND_WORDS = {
    "pruning runs": ("pruning", "剪枝"), "speed measurements": ("speed", "速度"),
    "evaluation results": ("evaluation", "评测"), "unknown": ("unknown", "未识别"),
}  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "distance": ("dense", "未剪枝"), "best": ("best", "最好", "最佳"),
    "change": ("changes", "changed", "change", "变化"),
    "outlier": ("outliers", "outlier", "异常值", "异常"), "unstable": ("unstable", "不稳定"),
    "factor": ("factors", "factor", "settings that matter", "因素", "起作用的设置"),
    "odd": ("words", "odd", "cells", "文字", "单元"),
    "missing": ("missing", "gaps", "incomplete", "缺失"),
    "contradiction": ("contradictions", "contradict", "disagree", "disagreements", "矛盾", "不一致"),
}  # fmt: skip


def _count(key: str, value: float, words: tuple[str, ...]) -> Claim:
    return Claim(0, float(value), None, words, (), key, (), "count", digits=0)


def _claim(finding: Finding, key: str, number: Number) -> Claim:
    about = f"{finding.kind}: {finding.measure or finding.dataset} {key}: {number.about}".strip().rstrip(":")
    signed = number.how == "change"
    names = tuple(dict.fromkeys(name for name in finding.names if _belongs(name, key, number, finding)))
    return Claim(0, number.value, number.unit, number.words, names, about, number.evidence or finding.evidence,
                 number.how, signed, number.digits, number.error)  # fmt: skip


def _belongs(name: str, key: str, number: Number, finding: Finding) -> bool:
    """Of a best-and-worst pair each number keeps the names of its own row."""
    return finding.kind not in ("best", "factor") or name in number.about.lower()


def _settings(datasets: list[Dataset]) -> list[Claim]:
    found: list[Claim] = []
    seen: set[tuple[str, float]] = set()
    for data in datasets:
        for name in data.of("setting", "replicate"):
            values = data.frame[name]
            if not pd.api.types.is_numeric_dtype(values.dtype) or values.nunique() > LEVELS:
                continue
            column = data.columns[name]
            for value in sorted(values.dropna().unique()):
                if (column.plain, float(value)) in seen or len(found) >= LEVELS or not math.isfinite(value):
                    continue
                seen.add((column.plain, float(value)))
                row = data.frame[values == value].iloc[0]
                spot = Evidence(str(row[FILE]), int(row[ROW]), name, float(value))
                words = (column.plain, column.plain.replace("_", " "), name.lower())
                found.append(Claim(0, float(value), column.unit, words, (), f"setting: {name}", (spot,)))
    return found


def _labels(findings: list[Finding]) -> frozenset[str]:
    """How findings call rows and cells of a grid: `alpha seq_len=64`."""
    labels = {text.lower() for item in findings for text in (*item.words.values(), *item.more)}
    return frozenset(
        text for text in labels if any(c.isalpha() for c in text) and any(c.isdigit() for c in text)
    )


def _names(given: Ingested, datasets: list[Dataset]) -> frozenset[str]:
    """Names whose digits are no figures: files, and words that stand in the data."""
    names = {source.name.lower() for source in given.sources} | {s.path.name.lower() for s in given.sources}
    for data in datasets:
        names |= {data.name.lower()} | {name.lower() for name in data.columns}
        for name in (*data.of("subject", "condition", "setting", "identity"),):
            values = data.frame[name]
            if not pd.api.types.is_numeric_dtype(values.dtype):
                names |= {str(value).lower() for value in values.dropna().unique()[:500]}
    return frozenset(name for name in names if any(c.isalpha() for c in name) and len(name) > 1)
