"""From a config to a smaller model: the main path, one step a line.

PruneConfig -> (model, adapter) -> samples [N, T] -> Capture -> scores per unit -> PruningPlan -> smaller model,
once, or several times over when the schedule is iterative.
"""

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from secateur.pruning.allocation import make_plan, step_of
from secateur.pruning.capture.result import Capture
from secateur.pruning.config import PruneConfig
from secateur.pruning.errors import NumericsError
from secateur.pruning.granularity import missed
from secateur.pruning.health import refuse_sick
from secateur.pruning.importance.scores import Scores, final_scores, needs_capture
from secateur.pruning.leaks import NOTHING, Excluded
from secateur.pruning.models.adapter import STRUCTURES
from secateur.pruning.models.loading import LoadedModel, load, resolve_device
from secateur.pruning.obtain import obtain_capture, samples_for
from secateur.pruning.plan import PruningPlan, whole
from secateur.pruning.repair import cut
from secateur.pruning.schedule import in_dense_units, ratios
from secateur.pruning.search import search
from secateur.pruning.stages import Stages

log = logging.getLogger(__name__)
Announce = Callable[[str], None]


@dataclass
class Pruned:
    """A pruned model in memory, and how it came about.

    Attributes:
        loaded: The model (now smaller) with tokenizer and adapter; `loaded.layout` is the dense one's.
        plan: What was kept.
        capture: What the calibration pass learned of the dense model; None for methods that read no text.
        reused: Whether no capture had to be computed.
        seconds: Per stage.
        work: Tokens of forward and backward passes that captures, search and refits took this time.
        story: Facts of schedule, search and compensation, for the record.
    """

    loaded: LoadedModel
    plan: PruningPlan
    capture: Capture | None
    reused: bool
    seconds: dict[str, float] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=lambda: {"forward_tokens": 0, "backward_tokens": 0})
    story: dict[str, Any] = field(default_factory=dict)


def run(
    config: PruneConfig,
    *,
    given: LoadedModel | None = None,
    exclude: Excluded = NOTHING,
    plan_path: Path | None = None,
    announce: Announce = lambda stage: None,
) -> Pruned:
    """Prune one model as configured.

    Args:
        config: What to do.
        given: A model in memory, which is cut in place; else the one that the config names is loaded.
        exclude: Evaluation text, which calibration must not see.
        plan_path: Where the plan is kept; the extreme layers are thus on disk before the cut.
        announce: Told the name of each stage as it begins.
    """
    clock = _Clock(announce)
    clock.start("load")
    dense = given or load(config.model, config.device)
    refuse_sick(dense.model)
    reference = _original(config, given)
    result = Pruned(dense, whole(dense.layout, dense.fingerprint), None, True, clock.seconds)
    cuts = ratios(config.method.schedule, config.budget.ratio)
    stages = Stages(config, dense, exclude, cuts)
    clock.start("capture")
    capture = result.capture = _captured(config, dense, exclude, result)
    done, reached = stages.resume()
    result.plan = reached or result.plan
    for number, ratio in enumerate(cuts[done:], start=done):
        current = stages.current(number)
        if number > 0:
            clock.start("capture")
            capture = _captured(config, current, exclude, result)
        clock.start("plan")
        plan = _plan(config, current, capture, ratio, result, exclude)
        if plan_path is not None:
            plan.save(plan_path)
        clock.start("surgery")
        _note(result, cut(config, current, plan.since(result.plan), exclude, reference))
        result.plan = plan
        stages.keep(number + 1, plan)
    if plan_path is not None:
        result.plan.save(plan_path)
    clock.stop()
    result.story["cuts"] = list(cuts)
    log.info(
        "removed %d of %d parameters (%.3f)",
        result.plan.removed,
        dense.layout.total_parameters,
        result.plan.ratio,
    )
    return result


def _original(config: PruneConfig, given: LoadedModel | None) -> Callable[[], LoadedModel] | None:
    """What brings back the dense model that later cuts refit to; a model in memory is copied before it is cut."""
    method = config.method
    if given is None or not method.changes_weights:
        return None
    if method.schedule.kind == "oneshot" and getattr(given.model.config, "secateur_layers", None) is None:
        return None
    dense = replace(given, model=copy.deepcopy(given.model))
    return lambda: dense


def _captured(config: PruneConfig, loaded: LoadedModel, exclude: Excluded, result: Pruned) -> Capture | None:
    """The capture of a model as it is, or None for methods that read no text."""
    if not needs_capture(config.method):
        return None
    capture, reused = obtain_capture(config, loaded, exclude)
    if not reused:
        result.reused = False
        for kind in result.work:
            result.work[kind] += capture.facts[kind]
    return capture


def _plan(
    config: PruneConfig,
    current: LoadedModel,
    capture: Capture | None,
    ratio: float,
    result: Pruned,
    exclude: Excluded,
) -> PruningPlan:
    """Score the units that are left and decide which go, down to a cumulative `ratio`."""
    scores = final_scores(
        current, capture, config.method, config.taylor.num_samples, config.capture.prior_share, config.seed
    )
    _finite(scores, config.method.estimator)
    dense, budget = result.loaded, config.budget.model_copy(update={"ratio": ratio})
    scores = in_dense_units(scores, result.plan)
    if config.method.search.kind == "none":
        plan = make_plan(scores, dense.layout, config.method, budget, config.guard, dense.fingerprint)
    else:
        plan, result.story["search"] = search(config, dense, scores, exclude)
    if ratio == config.budget.ratio:
        plan = _with_granularity(config, dense, scores, plan)
    for index in plan.extreme_layers():
        log.warning(
            "layer %d is cut extremely: MLP %.0f %%, attention %.0f %%",
            index,
            100 * plan.layers[index].mlp_cut,
            100 * plan.layers[index].attention_cut,
        )
    return plan


def _with_granularity(
    config: PruneConfig, dense: LoadedModel, scores: Scores, plan: PruningPlan
) -> PruningPlan:
    """The plan, with a sentence where coarse units miss the budget."""
    layout, method, guard = dense.layout, config.method, config.guard

    def planned(ratio: float) -> PruningPlan:
        budget = config.budget.model_copy(update={"ratio": ratio})
        return make_plan(scores, layout, method, budget, guard, dense.fingerprint)

    whole = layout.total_parameters if config.budget.of == "total" else layout.decoder_parameters
    sentence = missed(plan, layout, whole, step_of(layout, method, guard), planned)
    if not sentence:
        return plan
    log.warning("%s", sentence)
    return replace(plan, guards=(*plan.guards, sentence))


def _note(result: Pruned, facts: dict[str, Any]) -> None:
    """Keep what a repair says of itself."""
    if facts:
        result.work["forward_tokens"] += facts["tokens"]
        result.story["compensation"] = facts


def check(config: PruneConfig, model: LoadedModel, exclude: Excluded = NOTHING) -> None:
    """Refuse what can be known to fail before any weight is loaded; `model` is the outline of the config's.

    Raises:
        SecateurError: Missing device, too little text, or a budget that cannot be met.
    """
    resolve_device(config.device)
    flat = Scores({s: tuple(np.zeros(layer.units(s)) for layer in model.layout.layers) for s in STRUCTURES})
    make_plan(flat, model.layout, config.method, config.budget, config.guard, model.fingerprint)
    if needs_capture(config.method) or config.method.changes_weights:
        samples_for(config, model, exclude, _most_samples(config))


def _most_samples(config: PruneConfig) -> int:
    """Calibration samples that capture, refit and search read, together."""
    method, count = config.method, config.taylor.num_samples
    searched = method.search.num_samples if method.search.kind != "none" else 0
    return max(count + searched, method.compensation.num_samples or 0)


def _finite(scores: Scores, estimator: str) -> None:
    """Refuse to rank units by NaN or infinite scores."""
    for structure, layers in scores.units.items():
        for layer, values in enumerate(layers):
            if not np.isfinite(values).all():
                raise NumericsError(
                    f"method.estimator={estimator}: the scores of layer {layer}, {structure}, are NaN or infinite "
                    "(the weights are finite). Use model.dtype=bfloat16 or float32, or look at the estimator"
                )


class _Clock:
    """Seconds per stage, summed over the cuts."""

    def __init__(self, announce: Announce) -> None:
        self.seconds: dict[str, float] = {}
        self._announce = announce
        self._stage = ""
        self._since = 0.0

    def start(self, stage: str) -> None:
        self.stop()
        self._announce(stage)
        self._stage, self._since = stage, time.perf_counter()

    def stop(self) -> None:
        if self._stage:
            spent = time.perf_counter() - self._since
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + spent
        self._stage = ""
