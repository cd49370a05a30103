"""Findings that are one thing: what they say is told once, the cases stand in a table."""

from dataclasses import dataclass
from typing import Literal

from secateur.analysis.insight.findings.base import MAIN, Finding

Part = Literal["says", "open", "trouble"]
PARTS: tuple[Part, ...] = ("says", "open", "trouble")
"""What the results say, what they cannot decide, what must be looked at before they are used."""
TROUBLE = ("contradiction", "outlier", "odd", "missing", "unstable")
SUMMED = ("best", "factor", "distance", "unstable")
"""Kinds of which the mean stands for the tasks, where there is a mean."""


@dataclass(frozen=True)
class Phenomenon:
    """Places of the findings that are one thing, the one that is told first."""

    part: Part
    places: tuple[int, ...]


def part_of(finding: Finding) -> Part:
    """Which part of the report a finding belongs to."""
    if finding.kind in TROUBLE:
        return "trouble"
    return "open" if finding.strength == "weak" else "says"


def group(findings: list[Finding]) -> list[Phenomenon]:
    """Findings of one kind about one metric (settings that matter: about one setting), in the order of the report."""
    found: dict[tuple[str, ...], list[int]] = {}
    for place, item in enumerate(findings):
        about = item.words["factor"] if item.kind == "factor" else item.family
        found.setdefault((part_of(item), item.kind, item.dataset, about), []).append(place)
    return [
        Phenomenon(part, tuple(_summed([(place, findings[place]) for place in places])))
        for part in PARTS for key, places in found.items() if key[0] == part
    ]  # fmt: skip


def _summed(members: list[tuple[int, Finding]]) -> list[int]:
    main = [place for place, item in members if item.measure in MAIN and item.kind in SUMMED]
    return main or [place for place, _ in members]
