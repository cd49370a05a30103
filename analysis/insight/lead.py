"""The first lines of the report: what was read, who wrote, what the guard found."""

from typing import Literal

from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.texts import Words

Tone = Literal["text", "warning", "note"]


def lead(report: Report, words: Words) -> list[tuple[Tone, str]]:
    """Tone and text of each line."""
    counts = {key: f"{claim.value:.0f}" for key, claim in report.facts.inventory.items() if " " not in key}
    lines: list[tuple[Tone, str]] = [("text", words("lead.what", **counts))]
    config = report.config.writer
    if report.written is not None:
        lines.append(("note", words("lead.model", writer=report.written.writer)))
        if report.written.finish == "length":
            lines.append(("warning", words("lead.length")))
    elif report.fallback:
        name = config.model if config.kind == "openai" else config.path
        lines.append(("warning", words("lead.fallback", writer=name, reason=report.fallback)))
    else:
        lines.append(("note", words("lead.template")))
    lines.append(("note", guard_line(report, words)))
    return lines


def guard_line(report: Report, words: Words) -> str:
    """How many figures were checked and how many failed."""
    return words(
        "lead.guard", checked=report.checked, passed=report.checked - report.failed, failed=report.failed
    )


def chance_line(report: Report, words: Words) -> str:
    """What the guard is worth for this text."""
    return words("guard.chance", passed=report.chance[0], tried=report.chance[1])


def order(report: Report) -> list[str]:
    """The narrative's sections in the order of the report."""
    return [
        name for name in ("narrative", "summary", "findings", "advice", "risks") if name in report.narrative
    ]


def title(name: str, report: Report, words: Words) -> str:
    """The heading of a section of the narrative."""
    writer = report.written.writer.split(" (")[0] if report.written is not None else ""
    return words(f"sections.{name}", writer=writer)
