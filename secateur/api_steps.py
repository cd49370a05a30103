"""The steps of `prune`, one by one, and what reads runs: each takes what the one before has given.

Shapes: L layers, U units of a structure.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from secateur.api_call import Method, call, source_of
from secateur.api_config import Calibration, config_of, measured, model_words, refuse_nothing
from secateur.api_model import Given, opened, tokenizer_for
from secateur.api_state import undisturbed
from secateur.eval.measure import measure
from secateur.pruning.allocation import make_plan
from secateur.pruning.capture.result import Capture
from secateur.pruning.errors import ConfigError
from secateur.pruning.importance.scores import Scores, final_scores, needs_capture
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.obtain import obtain_capture
from secateur.pruning.plan import PruningPlan
from secateur.pruning.surgery import prune as cut_to_plan

if TYPE_CHECKING:
    from secateur.analysis.runset import Runs


def load(model: Given, tokenizer: Any = None, **options: Any) -> LoadedModel:
    """Load a model for the steps: a folder (of a checkpoint, too), a hub id or a configured name; or copy one.

    Returns:
        `.model`, `.tokenizer`, `.adapter` (its family), `.layout` (units and their cost in parameters), `.fingerprint`.

    Raises:
        ModelError: It is damaged, of no known family, or computes otherwise than its family says.

    >>> import secateur
    >>> len(secateur.load("tiny_qwen2", device="cpu").layout.layers)
    4
    """
    with undisturbed():
        config = config_of(model_words(model, options), options)
        return opened(model, tokenizer, config.model, options.get("device"))


def capture(
    model: Given,
    calibration: Calibration = None,
    method: Method = "taylor",
    tokenizer: Any = None,
    **options: Any,
) -> Capture:
    """Run the calibration pass that a method needs; methods that need no more share it.

    Raises:
        ConfigError: The method reads no text.
        DataError: The text is too short or is evaluation text.
    """
    with call(model, method, calibration, tokenizer, options, to_cut=False) as asked:
        if not needs_capture(asked.config.method):
            raise ConfigError(f"method={asked.config.method.name} reads no text: there is nothing to capture")
        return obtain_capture(asked.config, asked.loaded, asked.exclude)[0]


def scores(model: Given, capture: Capture | None = None, method: Method = "taylor", **options: Any) -> Scores:
    """Importance per unit: `.units[structure][layer]` is float64 [U], higher = keep.

    Raises:
        ConfigError: The capture lacks what the method needs.
    """
    with call(model, method, None, None, options, to_cut=False, reads_text=False) as asked:
        config = asked.config
        samples = config.taylor.num_samples if capture is None else capture.snapshots[-1]
        if needs_capture(config.method):
            from secateur.pruning.importance import estimator

            level, prior = estimator(config.method.estimator).level, config.method.prior
            if capture is None or not capture.has(level, samples, prior, config.capture.prior_share):
                raise ConfigError(
                    f"method={config.method.name} needs a capture made for it: capture(..., method=...)"
                )
        return final_scores(
            asked.loaded, capture, config.method, samples, config.capture.prior_share, config.seed
        )


def plan(
    model: Given, scores: Scores, ratio: float = 0.2, method: Method = "taylor", **options: Any
) -> PruningPlan:
    """Decide which units go: `ratio` of all parameters, under the guard rails of `guard.*`.

    Raises:
        BudgetError: The budget cannot be met under the guard rails.
    """
    with call(
        model, method, None, None, options, to_cut=False, reads_text=False, budget__ratio=ratio
    ) as asked:
        config, loaded = asked.config, asked.loaded
        return make_plan(
            scores, loaded.layout, config.method, config.budget, config.guard, loaded.fingerprint
        )


def cut(model: Given, plan: PruningPlan, **options: Any) -> Any:
    """A copy of the model, cut to a plan; kept weights keep their bits. No refit: `prune` does that.

    Raises:
        ModelError: The plan was made for a model of another shape.
    """
    with undisturbed():
        config = config_of(model_words(model, options), options)
        loaded = opened(model, None, config.model, options.get("device"))
        return cut_to_plan(loaded.model, loaded.adapter, plan)


def evaluate(
    model: Given,
    tokenizer: Any = None,
    tasks: Sequence[str] | None = None,
    ppl: str | Path | Sequence[str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Measure a model, dense or pruned: accuracies by lm-eval's tasks and metrics, perplexities by protocol.

    Args:
        model: As for `prune`; it comes back as it was.
        tokenizer: A tokenizer or its folder.
        tasks: Names of tasks (`secateur tasks`); none when only `ppl` is given.
        ppl: A protocol (`world@128`), several, or a file of text (with `eval={"ppl": {"window": N}}`).
        options: Keys of `secateur run`, as `eval={"limit": 100, "data_dir": FOLDER}`.

    Returns:
        One row per metric: value, stderr, n, unit, higher_is_better, note.

    Raises:
        ConfigError: Nothing is asked for, or a name is unknown.
    """
    if isinstance(model, str | Path):
        loaded = load(
            model, tokenizer, **{k: v for k, v in options.items() if k.split(".")[0] in ("device", "model")}
        )
        return measured_frame(loaded.model, loaded.tokenizer, str(model), tasks, ppl, options)
    if isinstance(model, LoadedModel):
        model, tokenizer = model.model, tokenizer or model.tokenizer
    return measured_frame(model, tokenizer_for(model, tokenizer), source_of(model), tasks, ppl, options)


def measured_frame(
    net: Any,
    tokenizer: Any,
    source: str,
    tasks: Sequence[str] | None,
    ppl: str | Path | Sequence[str] | None,
    options: Mapping[str, Any],
) -> pd.DataFrame:
    """What `evaluate` gives, of a model in memory; `source` is the name whose config brings data along."""
    if tokenizer is None:
        raise ConfigError("tokenizer=... must be given: what is measured is text")
    asked = measured(tasks, ppl)
    training = net.training
    with undisturbed(), tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        words = [*model_words(source, {}), *asked]
        config = config_of(words, options)
        refuse_nothing(config.eval)
        net.eval()
        try:
            found = measure(
                net, tokenizer, config.eval, Path(folder) / "run", progress=config.progress is not False
            )
        finally:
            net.train(training)
    rows = {name: metric.model_dump() for name, metric in found.metrics.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")


def runs(folder: str | Path) -> pd.DataFrame:
    """Every run below a folder, one row each: what `secateur analyze` reads.

    Raises:
        DataError: There is no such folder, or it holds no run.
    """
    return _loaded(folder).frame.copy()


def report(runs: str | Path, out: str | Path = "report", lang: str = "en", *, plots: bool = True) -> Path:
    """Write the reports over a folder of runs; returns the path of the first one.

    Raises:
        DataError: There is no run to analyse.
    """
    from secateur.analysis.report import write_reports

    return write_reports(_loaded(runs), Path(out), lang, plots=plots)[0]


def _loaded(folder: str | Path) -> "Runs":
    from secateur.analysis.load import load_runs

    return load_runs(Path(folder))
