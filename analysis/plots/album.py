"""Every plot of a report: which there are, and drawing them."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from analysis.parallel import forked
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


@contextmanager
def drawing(findings: "Findings", texts: Texts) -> Generator[Callable[[], dict[str, Plot]]]:
    """Draw every plot that has something to show, in processes beside this one; what is given waits for them."""
    words = plot_texts(texts)
    listed = jobs(findings)
    with forked(lambda place: render(listed[place], words), len(listed), SEVERAL) as collect:
        yield lambda: {plot.name: plot for plot in collect() if plot is not None}
