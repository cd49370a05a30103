"""One call of the API: options checked, the model opened, a folder of its own, the process left as it was found."""

import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.api_config import MEMORY, Calibration, calibration_words, config_of, model_words
from secateur.api_model import Given, opened
from secateur.api_state import undisturbed
from secateur.eval.config import RunConfig
from secateur.eval.unseen import evaluation_text
from secateur.pruning.capture.views import Estimator, Level, ProjectionView
from secateur.pruning.compose import options as configured
from secateur.pruning.errors import ConfigError
from secateur.pruning.importance.base import lent
from secateur.pruning.importance.scores import needs_capture
from secateur.pruning.leaks import Excluded
from secateur.pruning.models.loading import LoadedModel
from secateur.pruning.obtain import samples_for

Score = Callable[[ProjectionView], torch.Tensor | None]
Method = str | Score | Estimator
"""A configured method, or an estimator of one's own: a function of a `ProjectionView` to float64 [U]."""


@dataclass(frozen=True)
class Call:
    """What a call is about.

    Attributes:
        config: The typed config, as the command line has it.
        loaded: The model to work on: the caller's own stays as it is.
        exclude: Evaluation text, which calibration must not see.
    """

    config: RunConfig
    loaded: LoadedModel
    exclude: Excluded


@contextmanager
def call(
    model: Given,
    method: Method,
    calibration: Calibration,
    tokenizer: Any,
    options: Mapping[str, Any],
    *,
    to_cut: bool = True,
    reads_text: bool = True,
    **named: Any,
) -> Generator[Call]:
    """Prepare a call.

    Args:
        model: As given.
        method: As given.
        calibration: As given.
        tokenizer: As given.
        options: Keys of the command line.
        to_cut: Whether the model will be changed.
        reads_text: Whether calibration text will be read, where the method needs any.
        named: Arguments of the caller's own, by their key.

    Raises:
        SecateurError: In one line: what was given, what is allowed, what to do.
    """
    with ExitStack() as stack:
        stack.enter_context(undisturbed())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secateur-")))
        words = [*model_words(model, options), *calibration_words(calibration, folder)]
        words += _method_words(method, stack)
        options = dict(options)
        if not isinstance(method, str) or "out" not in options:
            options["out"] = str(folder)  # what a function of one's own has scored is found by nobody else
        config = config_of(words, options, **named)
        needed = reads_text and needs_capture(config.method)
        if needed:
            _has_text(words, calibration, options)
        loaded = opened(model, tokenizer, config.model, options.get("device"), to_cut=to_cut)
        if needed and loaded.tokenizer is None:
            raise ConfigError(
                f"tokenizer=... must be given: {config.model.path} brings none, and calibration reads text"
            )
        exclude = evaluation_text(config.eval)
        if needed:
            samples_for(config, loaded, exclude)
        yield Call(config, loaded, exclude)


def _has_text(words: list[str], calibration: Calibration, options: Mapping[str, Any]) -> None:
    """A model that no file of `conf/` names brings no text along."""
    given = any(key.split(".")[0] in ("calibration", "experiment") for key in options)
    if calibration is None and not given and words[0] == "model=local":
        names = ", ".join(name for name in configured("calibration") if name != "text_file")
        raise ConfigError(f"calibration=... must be given: texts (a list of str), a file, or one of {names}")


def _method_words(method: Method, stack: ExitStack) -> list[str]:
    """Words for a configured method; an estimator of one's own is in the table until the stack is closed."""
    if isinstance(method, str):
        if method not in configured("method"):
            raise ConfigError(f"method={method}: options are {', '.join(configured('method'))}")
        return [f"method={method}"]
    rule = method if isinstance(method, Estimator) else _rule(method)
    stack.enter_context(lent(rule))
    return ["method=taylor", f"method.name={rule.name}", f"method.estimator={rule.name}"]


def _rule(score: Any) -> Estimator:
    """A function as an estimator; its attribute `level` says what it reads (default: weight gradients)."""
    if not callable(score):
        raise ConfigError(
            f"method: a {type(score).__name__} is no method; give a name or a function of a ProjectionView"
        )
    name = getattr(score, "__name__", type(score).__name__).replace("<lambda>", "own")
    asked = getattr(score, "level", Level.GRADIENTS)
    try:
        level = asked if isinstance(asked, Level) else Level[str(asked).upper()]
    except KeyError as error:
        raise ConfigError(
            f"{name}.level={asked!r}: levels are {', '.join(item.name.lower() for item in Level)}"
        ) from error
    rule: Any = score
    return Estimator(name, level, rule, "a function of the caller's own")


def source_of(model: Given) -> str:
    """What a later call composes a model's config from: its name or path, or `in-memory`."""
    return str(model) if isinstance(model, str | Path) else MEMORY
