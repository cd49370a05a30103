"""Every plot of a report: which there are."""

from functools import partial

from secateur.analysis.findings import Findings
from secateur.analysis.model_names import slug
from secateur.analysis.plots import cross, grid, layers, runs, scatter
from secateur.analysis.plots.style import Job


def jobs(findings: Findings) -> list[Job]:
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
