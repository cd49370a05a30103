"""What a report holds, before it is drawn as a page, as text or as data."""

from dataclasses import dataclass

from secateur.analysis.insight.claims import Facts
from secateur.analysis.insight.config import InsightConfig, Persona
from secateur.analysis.insight.datasets import Dataset
from secateur.analysis.insight.findings.base import Finding
from secateur.analysis.insight.guard import Checked
from secateur.analysis.insight.ingest import Ingested
from secateur.analysis.insight.prompt import Prompt
from secateur.analysis.insight.streams import Written


@dataclass(frozen=True)
class Clock:
    """Seconds of each stage, and peak memory in bytes (this process and its largest child)."""

    ingest: float
    analysis: float
    writing: float
    total: float
    peak: int


@dataclass(frozen=True)
class Report:
    """Everything that the report says.

    Attributes:
        narrative: Section name -> checked text; section `narrative` when a model wrote it.
        chance: Altered figures that would still have passed, and how many were tried.
        written: The model's text with its timings; None from templates.
        fallback: Why the asked-for writer did not write; empty otherwise.
    """

    config: InsightConfig
    given: Ingested
    datasets: tuple[Dataset, ...]
    findings: tuple[Finding, ...]
    facts: Facts
    narrative: dict[str, Checked]
    persona: Persona
    prompt: Prompt
    written: Written | None
    fallback: str
    partial: int
    fact_rows: int
    clock: Clock
    day: str
    chance: tuple[int, int]

    @property
    def checked(self) -> int:
        """Figures that were checked."""
        return sum(len(text.verdicts) for text in self.narrative.values())

    @property
    def failed(self) -> int:
        """Figures that were struck out."""
        return sum(len(text.failed) for text in self.narrative.values())
