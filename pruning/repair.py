"""Cut a model, and repair it as the method says: surgery alone, or surgery with refits on calibration text."""

from collections.abc import Callable
from typing import Any

from secateur.pruning.compensation.refit import cut_and_refit
from secateur.pruning.config import PruneConfig
from secateur.pruning.leaks import Excluded
from secateur.pruning.models.loading import LoadedModel, load
from secateur.pruning.obtain import samples_for
from secateur.pruning.plan import PruningPlan
from secateur.pruning.progress import Bar
from secateur.pruning.surgery import prune


def cut(
    config: PruneConfig,
    loaded: LoadedModel,
    plan: PruningPlan,
    exclude: Excluded,
    original: Callable[[], LoadedModel] | None = None,
) -> dict[str, Any]:
    """Cut `loaded.model` in place; `plan` is in its own units, `original` brings a model that no config names.

    Returns:
        Facts about the compensation, nothing without one.
    """
    if plan.removed == 0:
        return {}
    if config.method.compensation.kind == "none":
        prune(loaded.model, loaded.adapter, plan)
        return {}
    settings = config.method.compensation
    samples = samples_for(config, loaded, exclude, settings.num_samples or config.taylor.num_samples)
    reference = None
    if settings.target > 0 and getattr(loaded.model.config, "secateur_layers", None) is not None:
        place = "cpu" if settings.onload else config.device
        reference = original() if original is not None else load(config.model, place)
    with Bar("refit", len(plan.layers), show=config.progress) as bar:
        return cut_and_refit(loaded, plan, samples.ids, settings, reference, advanced=lambda: bar.advance(1))
