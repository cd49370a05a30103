"""`secateur models` and `secateur methods`: what exists."""

from rich.console import Console
from rich.table import Table

from secateur.pruning.compose import describe, options

MODELS_HELP = """secateur models: model families and configs that exist

example: secateur models        (any other folder: secateur run model=local model.path=DIR)
"""
METHODS_HELP = """secateur methods: presets (method=NAME) and estimators (method.estimator=NAME) that exist

example: secateur methods
"""


def models(argv: list[str]) -> int:
    """`secateur models`: families that are understood, configs that are ready."""
    if {"-h", "--help"} & set(argv):
        print(MODELS_HELP)
        return 0
    from secateur.pruning.models.adapter import load_families

    families = Table(title="Families (config.model_type)")
    for column in ("type", "name", "notes"):
        families.add_column(column)
    for adapter in sorted(load_families().values(), key=lambda a: a.model_type):
        families.add_row(adapter.model_type, adapter.title, adapter.notes)
    console = Console()
    console.print(families)
    console.print(_configs("Configs (model=NAME)", "model"))
    return 0


def methods(argv: list[str]) -> int:
    """`secateur methods`: presets, and the estimators that they are made of."""
    if {"-h", "--help"} & set(argv):
        print(METHODS_HELP)
        return 0
    from secateur.pruning.importance import ESTIMATORS

    rules = Table(title="Estimators (method.estimator=NAME)")
    for column in ("estimator", "needs", "what", "source"):
        rules.add_column(column)
    for rule in sorted(ESTIMATORS.values(), key=lambda e: (e.level, e.name)):
        rules.add_row(rule.name, rule.level.name.lower(), rule.title, rule.source)
    console = Console()
    console.print(_configs("Presets (method=NAME)", "method"))
    console.print(rules)
    return 0


def _configs(title: str, group: str) -> Table:
    table = Table(title=title)
    table.add_column("name")
    table.add_column("what")
    for name in options(group):
        table.add_row(name, describe(group, name))
    return table
