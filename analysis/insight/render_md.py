"""The report as Markdown: figures carry footnotes to their facts."""

from pathlib import Path

from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.grids import Grid, inventory, meaning, own_figures, place, strengths, struck
from secateur.analysis.insight.lead import chance_line, guard_line, lead, order, title
from secateur.analysis.insight.markup import cited, to_markdown
from secateur.analysis.insight.numbers import show
from secateur.analysis.insight.texts import Words

SIGNS = {"text": "", "note": "> ", "warning": "> **!** "}


def markdown(report: Report, words: Words) -> str:
    """Render the report."""
    lines = [f"# {words('title', folder=_cell(Path(report.config.dir).resolve().name))}", ""]
    for tone, text in lead(report, words):
        lines += [SIGNS[tone] + _cell(text), ""]
    for name in order(report):
        lines += [f"## {_cell(title(name, report, words))}", "", to_markdown(report.narrative[name], 1), ""]
        if name == "findings" and report.findings:
            lines += _grid(strengths(report, words), words)
    lines += [f"## {words('sections.inventory')}", ""]
    for grid in inventory(report, words):
        lines += _grid(grid, words)
    lines += [f"## {words('sections.guard')}", "", guard_line(report, words), "", words("guard.rule"), ""]
    lines += [chance_line(report, words), ""] if report.checked else []
    failed = struck(report, words)
    lines += (
        _grid(failed, words)
        if failed is not None
        else [words("guard.clean" if report.checked else "guard.none"), ""]
    )
    lines += [f"## {words('sections.run')}", "", *_grid(own_figures(report, words), words, titled=False)]
    lines += [f"## {words('sections.sources')}", "", *_footnotes(report, words), ""]
    lines += [f"## {words('sections.persona')}", "", "```", report.prompt.system.replace("```", "'''"), "",
              report.prompt.task.replace("```", "'''"), "```", ""]  # fmt: skip
    folder = _cell(Path(report.config.dir).resolve().name)
    return "\n".join([*lines, "---", "", words("footer", day=report.day, folder=folder), ""])


def _grid(grid: Grid, words: Words, titled: bool = True) -> list[str]:
    head = [words(f"columns.{name}") for name in grid.columns]
    rule = ["--:" if name in grid.right else ":--" for name in grid.columns]
    lines = [f"**{grid.title}**", ""] if titled else []
    lines += ["| " + " | ".join(head) + " |", "|" + "|".join(rule) + "|"]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in grid.rows]
    return [*lines, "", *([grid.note, ""] if grid.note else [])]


def _cell(text: str) -> str:
    """Text from files in a cell: nothing of it is Markdown."""
    flat = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\|*`[]~" else "&lt;" if char == "<" else char for char in flat)


def _footnotes(report: Report, words: Words) -> list[str]:
    numbers = sorted({n for text in report.narrative.values() for n in cited(text)})
    by_id = {claim.id: claim for claim in report.facts.claims}
    return [
        f"[^F{n}]: {show(by_id[n])} · {_cell(meaning(by_id[n], words))} · {_cell(place(by_id[n], words))}"
        for n in numbers
    ]
