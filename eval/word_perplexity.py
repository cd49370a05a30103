"""lm-eval's `wikitext` task: word perplexity of whole detokenised pages. Not the same as `wikitext2@W`."""

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.tasks._yaml_loader import load_yaml

from secateur.eval.backbone import context_length
from secateur.eval.config import EvalConfig
from secateur.eval.data import data_folder, file_identity, text_file
from secateur.eval.hflm import StoredHFLM
from secateur.eval.quiet import quiet
from secateur.eval.record import Metric
from secateur.pruning.documents import read_texts
from secateur.pruning.errors import DataError
from secateur.pruning.health import sick_weights

TITLE = re.compile(r"^ = [^=].*[^=] = \n?$")
MAX_LENGTH = 2048


def pages_of(rows: list[str]) -> list[str]:
    """The pages of WikiText-2: each begins at a first-level heading; a blank row is a space and a newline."""
    pages: list[list[str]] = []
    for row in rows:
        if TITLE.match(row):
            pages.append([])
        if pages:
            pages[-1].append(row or " \n")
    return ["".join(page) for page in pages]


def word_perplexity(model: Any, tokenizer: Any, config: EvalConfig) -> tuple[Metric, int]:
    """lm-eval's word perplexity, with windows of min(context, 2048) tokens.

    Returns:
        The metric and the number of forward tokens.
    """
    folder = data_folder(config)
    path = None if folder is None else text_file(folder, "wikitext2")
    task = _task(path, "" if path is None else file_identity(path))
    length = context_length(model, tokenizer, MAX_LENGTH)
    lm = StoredHFLM(
        model, tokenizer, batch_size=max(1, min(config.batch_size, 4096 // length)), max_length=length
    )
    limit = config.limit
    with quiet():
        results: Any = evaluate(
            lm, {"tasks": {"wikitext": task}, "groups": {}}, limit=limit, log_samples=False, bootstrap_iters=0
        )
    value = float(results["results"]["wikitext"]["word_perplexity,none"])
    count = results["n-samples"]["wikitext"]["effective"]
    note, finite = "per word; n counts pages", math.isfinite(value)
    if not finite:
        note = f"not finite: a page's loss is NaN or infinite, or overflows; {sick_weights(model)}".rstrip(
            "; "
        )
    metric = Metric(
        value=value if finite else None, n=count, unit="perplexity", higher_is_better=False, note=note
    )
    return metric, lm.counters["forward_tokens"]


@lru_cache(maxsize=4)
def _task(path: Path | None, content: str) -> ConfigurableTask:
    """The stock task, read from local rows; `content` is part of the key."""
    stock: dict[str, Any] = load_yaml(Path(lm_eval.__file__).parent / "tasks" / "wikitext" / "wikitext.yaml")
    if path is not None:
        pages = pages_of(read_texts(path, "text", "eval.ppl.field"))
        if not pages:
            raise DataError(f"{path} has no first-level headings (` = Title = `): it is no WikiText text")

        def dataset(**_: Any) -> datasets.DatasetDict:
            return datasets.DatasetDict(
                {"test": datasets.Dataset.from_list([{"page": page} for page in pages])}
            )

        stock |= {"dataset_kwargs": None, "custom_dataset": dataset}
        stock |= {"training_split": None, "validation_split": None, "test_split": "test"}
    with quiet():
        return ConfigurableTask(config=stock)
