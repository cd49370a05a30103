"""`prune`: a model in, a smaller one out, with its plan, its record and what it costs to say so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from secateur.api_call import Call, Method, call, source_of
from secateur.api_config import Calibration
from secateur.api_model import Given, graft
from secateur.api_state import undisturbed
from secateur.api_steps import measured_frame
from secateur.api_view import card
from secateur.eval.measure import Measurements
from secateur.eval.recording import finished_record
from secateur.pruning import pipeline
from secateur.pruning.checkpoint import save_pruned
from secateur.pruning.errors import ConfigError
from secateur.pruning.naming import safe_name
from secateur.pruning.plan import PruningPlan
from secateur.pruning.provenance import now, provenance


@dataclass(frozen=True)
class Pruned:
    """A pruned model and how it came about.

    Attributes:
        model: The smaller model, in evaluation mode (`inplace=True`: the given object, in the mode it had).
        tokenizer: The tokenizer that calibration used, or None.
        plan: What was kept of each layer.
        record: What `record.json` of a run says: config, parameters, layers, statistics, timings, provenance.
    """

    model: Any
    tokenizer: Any
    plan: PruningPlan
    record: dict[str, Any]
    _source: str = field(default="", repr=False)
    _options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @property
    def statistics(self) -> pd.DataFrame:
        """One row per layer: units before and kept, gradient statistics and priors (NaN where none were taken)."""
        return pd.DataFrame(self.record["layers"]).set_index("layer")

    def save(self, folder: str | Path) -> Path:
        """Write a checkpoint that stock Transformers loads to the same bits (`trust_remote_code=True`).

        Raises:
            StorageError: The folder exists, or cannot be written.
            ConfigError: There is no tokenizer to save beside the model.
        """
        if self.tokenizer is None:
            raise ConfigError("save: a checkpoint holds its tokenizer; give tokenizer=... to `prune`")
        with undisturbed():
            return save_pruned(Path(folder), self.model, self.tokenizer, self.plan, provenance())

    def evaluate(
        self,
        tasks: Sequence[str] | None = None,
        ppl: str | Path | Sequence[str] | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Measure the pruned model: see `secateur.evaluate`."""
        return measured_frame(
            self.model, self.tokenizer, self._source, tasks, ppl, {**_evaluation(self._options), **options}
        )

    def _repr_html_(self) -> str:
        return card(
            f"{self.record['config']['model']['name']}, {self.record['config']['method']['name']}", self.plan
        )


def prune(
    model: Given,
    method: Method = "taylor",
    ratio: float = 0.2,
    calibration: Calibration = None,
    tokenizer: Any = None,
    seed: int = 0,
    inplace: bool = False,
    **options: Any,
) -> Pruned:
    """Prune a model; with the same keys, the same plan and the same bits as `secateur run`.

    Args:
        model: A causal language model of Transformers, a folder, a hub id, or a configured name (`tiny_llama`).
        method: A configured method (`secateur methods`), or a function of a `ProjectionView` giving float64 [U], one
            importance per unit, or None for a projection that does not count. Its attribute `level` says what it reads:
            `weights`, `activations`, `gate`, `gradients` (default), `squares` or `curvature`.
        ratio: Share of all parameters to remove, in [0, 1).
        calibration: Texts (one document each), a file, or a configured name; configured models bring their own.
        tokenizer: A tokenizer or its folder; by default the one in the model's folder.
        seed: For methods that draw random numbers.
        inplace: The given object becomes the pruned model, in one step behind the last one that can fail. While it is
            made there are two copies in memory, in either case.
        options: Any key of `secateur run`, nested (`guard={"round_to": 8}`) or dotted (`**{"guard.round_to": 8}`).
            `out=FOLDER` keeps captures for later calls; without it nothing stays on disk.

    Raises:
        SecateurError: In one line: what was given, what is allowed, what to do. The given model is as it was.

    >>> import secateur
    >>> small = secateur.prune("tiny_llama", "magnitude", ratio=0.25, device="cpu")
    >>> f"{small.plan.ratio:.3f}", small.statistics.shape[0] == len(small.plan.layers)
    ('0.250', True)
    """
    if inplace and not isinstance(model, nn.Module):
        raise ConfigError("inplace=True needs a model in memory; a path or a name gives a new model anyway")
    training = isinstance(model, nn.Module) and model.training
    with call(model, method, calibration, tokenizer, options, budget__ratio=ratio, seed=seed) as asked:
        started = now()
        done = pipeline.run(asked.config, given=asked.loaded, exclude=asked.exclude)
        record = _record(asked, done, started)
        result = (
            graft(model, done.loaded.model, training)
            if inplace and isinstance(model, nn.Module)
            else done.loaded.model
        )
        return Pruned(result, done.loaded.tokenizer, done.plan, record, source_of(model), dict(options))


def _record(asked: Call, done: pipeline.Pruned, started: str) -> dict[str, Any]:
    config, empty = asked.config, Measurements({}, {}, pd.DataFrame(), {}, {})
    parts = (config.model.name, config.method.name, f"{config.budget.ratio:g}", asked.loaded.fingerprint[:10])
    name = "-".join(safe_name(part) for part in parts)
    return finished_record(config, name, done, empty, done.seconds, started).model_dump(mode="json")


def _evaluation(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say what is measured, and where."""
    return {
        key: value for key, value in options.items() if key.split(".")[0] in ("eval", "experiment", "device")
    }
