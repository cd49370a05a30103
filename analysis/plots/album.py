"""Every plot of a report: which there are, and drawing them."""

from functools import partial
from typing import TYPE_CHECKING

from analysis.parallel import fork_map
from analysis.plots import cross, grid, layers, runs, scatter
from analysis.plots.style import Job, Plot, cjk_font, render
from analysis.story_model import slug
from analysis.texts import Texts

if TYPE_CHECKING:
    from analysis.report import Findings

SEVERAL = 8
"""From this number of plots on, several processes draw."""


def jobs(findings: "Findings") -> list[Job]:
    """All plots that the report has a place for."""
    listed = [
        Job("methods_by_model", partial(cross.methods_by_model, findings.models)),
        Job("transfer", partial(cross.transfer, findings.cross)),
    ]
    for found in findings.models:
        name = slug(found.model)
        listed += [
            Job(f"{name}_intervals", partial(runs.intervals, found)),
            Job(f"{name}_tasks", partial(runs.tasks, found)),
            Job(f"{name}_pareto", partial(runs.pareto, found)),
            Job(f"{name}_grid", partial(grid.heat_map, found)),
            Job(f"{name}_effects", partial(grid.effects, found)),
            Job(f"{name}_scatter", partial(scatter.scatter, found)),
            Job(f"{name}_layers", partial(layers.layers, found, findings.runs.layers)),
        ]
    return listed


def plot_texts(texts: Texts) -> Texts:
    """Texts for plot labels: English where no installed font has Chinese glyphs."""
    return Texts("en") if texts.lang == "zh" and cjk_font() is None else texts


def draw_all(findings: "Findings", texts: Texts) -> dict[str, Plot]:
    """Draw every plot that has something to show."""
    words = plot_texts(texts)
    listed = jobs(findings)
    drawn = fork_map(lambda place: render(listed[place], words), len(listed), SEVERAL)
    return {plot.name: plot for plot in drawn if plot is not None}
