"""A model in, measurements out: the seven tasks and the perplexities, with their protocol card.

What is finished is kept below the run's folder by rename, so that after a kill the same call computes only
what is missing and gives the same numbers.
"""

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from secateur.eval.config import EvalConfig
from secateur.eval.data import file_identity, protocol_file
from secateur.eval.fast_lm import FastLM
from secateur.eval.generations import Generations
from secateur.eval.harness import TaskResults, harness_version, run_tasks
from secateur.eval.hflm import COUNTERS, StoredHFLM
from secateur.eval.parallel import World, barrier, world
from secateur.eval.perplexity import check_windows, perplexity
from secateur.eval.prefix import PrefixReuse
from secateur.eval.protocols import WORD_PERPLEXITY, Protocol, protocols
from secateur.eval.record import Metric
from secateur.eval.store import Store
from secateur.eval.tasks import load_tasks
from secateur.eval.tokens import tokenizer_identity
from secateur.eval.word_perplexity import word_perplexity
from secateur.pruning.documents import stem_of
from secateur.pruning.errors import StorageError
from secateur.pruning.files import digest, read_json, write_json

log = logging.getLogger(__name__)

PARTS = "measured"
"""Folder below the run's folder that holds finished parts."""


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured on one model.

    Attributes:
        metrics: By full protocol name: `<task>/acc`, `<task>/acc_norm`, `acc_mean`, `wikitext2@2048`, ...
        card: Protocol card: `tasks`, `perplexity`, `harness`, `screening`.
        answers: One row per question: task, question, acc, acc_norm.
        counters: requests, requests_computed, requests_reused, requests_clipped, forward_tokens.
        seconds: Wall time per stage.
    """

    metrics: dict[str, Metric]
    card: dict[str, Any]
    answers: pd.DataFrame
    counters: dict[str, int]
    seconds: dict[str, float]


def measure(
    model: torch.nn.Module,
    tokenizer: Any,
    config: EvalConfig,
    folder: Path,
    *,
    progress: bool = False,
    identity: str = "",
    cache: Path | None = None,
    untouched: int = 0,
) -> Measurements:
    """Measure a model as the config says.

    Args:
        model: A causal language model, dense or pruned; it comes back as it was.
        tokenizer: Its tokenizer.
        config: What is measured and on which data.
        folder: The run's folder.
        progress: Show bars on a terminal.
        identity: Names the model's content; computed from its weights when empty.
        cache: Folder of what all models of a grid share (plans, hidden states); by default beside the run's folder.
        untouched: With `eval.prefix_reuse`: layers at the start that are the same in other models of the grid.

    Raises:
        DataError: Data is missing or a window does not fit the model.
    """
    check_windows(model, tokenizer, config)
    here, parts = world(), folder / PARTS
    identity = identity or content_identity(model)
    key = {"model": identity, "tokenizer": tokenizer_identity(tokenizer), "dtype": str(_dtype(model))}
    seconds: dict[str, float] = {}
    metrics: dict[str, Metric] = {}
    counters = dict.fromkeys(COUNTERS, 0)
    results: TaskResults | None = None
    backend = config.backend
    if config.tasks:
        start = time.perf_counter()
        tasks = load_tasks(config)
        shared = cache or folder.parent / ".cache"
        reuse = PrefixReuse(shared, untouched) if config.prefix_reuse and untouched else None
        store = Store(parts / "loglikelihoods", {**key, "backend": config.backend, "version": 1})
        texts = Generations(parts / "generations", {**key, "batch_size": config.batch_size, "version": 1})
        lm = make_lm(model, tokenizer, config, store, shared, reuse, generations=texts, progress=progress)
        results = run_tasks(lm, tasks, config)
        metrics |= results.metrics
        counters |= lm.counters
        seconds["tasks"] = time.perf_counter() - start
        backend = getattr(lm, "used", backend)
        log.info("tasks: %d requests, %d computed, %.1f s", *_tally(counters), seconds["tasks"])
    for protocol in protocols(config):
        start = time.perf_counter()
        value, tokens = _perplexity_part(model, tokenizer, config, protocol, parts, key, here, progress)
        metrics[protocol.name] = value
        counters["forward_tokens"] += tokens
        seconds[protocol.name] = time.perf_counter() - start
        log.info("%s: %s, %.1f s", protocol.name, value.value, seconds[protocol.name])
    card = {
        "tasks": {} if results is None else results.card,
        "perplexity": [protocol_card(config, protocol) for protocol in protocols(config)],
        "harness": {"lm_eval": harness_version(), "backend": backend, "softmax_dtype": "float32"},
        "screening": None if config.screen is None else {"questions_per_task": config.screen},
    }
    answers = (
        pd.DataFrame({"task": [], "question": [], "acc": [], "acc_norm": []})
        if results is None
        else results.answers
    )
    return Measurements(metrics, card, answers, counters, seconds)


def make_lm(
    model: Any,
    tokenizer: Any,
    config: EvalConfig,
    store: Store | None = None,
    cache: Path | None = None,
    reuse: PrefixReuse | None = None,
    *,
    generations: Generations | None = None,
    progress: bool = False,
) -> StoredHFLM:
    """The LM that scores the tasks: the fast one, or lm-eval's HFLM."""
    options: dict[str, Any] = {"batch_size": config.batch_size, "store": store, "progress": progress}
    options["generations"] = generations
    if config.backend == "hflm":
        return StoredHFLM(model, tokenizer, **options)
    return FastLM(model, tokenizer, cache=cache, budget=config.token_budget, reuse=reuse, **options)


def protocol_card(config: EvalConfig, protocol: Protocol) -> dict[str, Any]:
    """The part of the protocol card that says what a perplexity is."""
    path = protocol_file(config, protocol)
    own = config.ppl.text is not None
    return {
        "name": protocol.name,
        "data": "hub" if path is None else file_identity(path),
        "split": "test" if path is None else stem_of(path),
        "joined": protocol.joined,
        "blank_lines": "keep" if protocol.joined else config.ppl.blank_lines,
        "max_tokens": config.ppl.max_tokens,
        "field": config.ppl.field if own else "text",
    }


def _perplexity_part(
    model: Any,
    tokenizer: Any,
    config: EvalConfig,
    protocol: Protocol,
    parts: Path,
    key: dict[str, str],
    here: World,
    progress: bool,
) -> tuple[Metric, int]:
    """One perplexity and its forward tokens; (metric, 0) when a finished part is there."""
    wanted = {**key, **protocol_card(config, protocol), "lm_eval": harness_version(), "version": 1}
    path = parts / f"perplexity-{digest(wanted)}.json"
    if path.exists():
        try:
            return Metric.model_validate(read_json(path)["metric"]), 0
        except (StorageError, KeyError, ValueError) as error:
            log.warning("%s is damaged (%s); it is measured again", path, error)
    if protocol.name == WORD_PERPLEXITY:
        value, tokens = word_perplexity(model, tokenizer, config)
    else:
        value, tokens = perplexity(model, tokenizer, config, protocol, progress=progress)
    if here.main:
        write_json(path, {"protocol": wanted, "metric": value.model_dump(mode="json"), "tokens": tokens})
    barrier()
    return value, tokens


def content_identity(model: Any) -> str:
    """Digest of a model's weights and config: its name when the caller has none."""
    state = hashlib.sha256(model.config.to_json_string().encode())
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        state.update(tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:32]


def _dtype(model: Any) -> torch.dtype:
    return next(model.parameters()).dtype


def _tally(counters: dict[str, int]) -> tuple[int, int]:
    return counters["requests"], counters["requests_computed"]
