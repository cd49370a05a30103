"""Everything that is found out about a set of runs, before anything is written."""

from dataclasses import dataclass

from secateur.analysis.cross_model import CrossFindings, compare_models
from secateur.analysis.factors import find_factors
from secateur.analysis.per_model import ModelFindings, analyse_model
from secateur.analysis.protocol import choose_perplexity, separate
from secateur.analysis.runset import Runs


@dataclass(frozen=True)
class Findings:
    """All findings about a set of runs."""

    runs: Runs
    factors: list[str]
    models: list[ModelFindings]
    cross: CrossFindings


def analyse(runs: Runs, allow_mixed: bool = False, protocol: str | None = None) -> Findings:
    """Find out everything; rows of other protocols are set aside unless `allow_mixed`."""
    runs = choose_perplexity(separate(runs, allow_mixed, protocol))
    factors = find_factors(runs.valid())
    models = [analyse_model(runs, name, factors) for name in runs.models()]
    return Findings(runs, factors, models, compare_models(models, factors))
