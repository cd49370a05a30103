"""The report as one HTML file that opens from disk, in the style of the other reports."""

from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.grids import inventory, own_figures, sources, strengths, struck
from secateur.analysis.insight.lead import chance_line, guard_line, lead, order, title
from secateur.analysis.insight.markup import to_html
from secateur.analysis.insight.texts import Words


def page(report: Report, words: Words) -> str:
    """Render the page."""
    shared = resources.files("secateur.analysis") / "templates"
    own = resources.files("secateur.analysis.insight") / "templates"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((own / "insight.html").read_text(encoding="utf-8"))
    css = (shared / "report.css").read_text(encoding="utf-8") + (own / "insight.css").read_text(
        encoding="utf-8"
    )
    folder = Path(report.config.dir).resolve().name
    return template.render(
        t=words,
        title=words("title", folder=folder),
        footer=words("footer", day=report.day, folder=folder),
        css=Markup(css),  # noqa: S704  our own files
        script=Markup((shared / "report.js").read_text(encoding="utf-8")),  # noqa: S704  likewise
        lead=lead(report, words),
        sections=[
            (name, title(name, report, words), Markup(to_html(report.narrative[name], 1)))  # noqa: S704  markup disarms it
            for name in order(report)
        ],
        inventory=inventory(report, words),
        guard_line=guard_line(report, words),
        chance_line=chance_line(report, words),
        any_figures=bool(report.checked),
        strengths=strengths(report, words) if report.findings else None,
        struck=struck(report, words),
        run=own_figures(report, words),
        sources=sources(report, words),
        prompt=f"{report.prompt.system}\n\n{report.prompt.task}",
    )
