"""`secateur eval`: measure a checkpoint or a finished run again, or hold our scorer against the oracle."""

import logging
from pathlib import Path

from secateur.eval.cli import config_of, offline, run
from secateur.eval.config import RunConfig
from secateur.eval.record import read_record
from secateur.eval.remembered import recall
from secateur.pruning.compose import amend
from secateur.pruning.config import validate
from secateur.pruning.errors import ConfigError
from secateur.pruning.logs import configure_logging
from secateur.pruning.naming import folder_name
from secateur.pruning.overrides import write

log = logging.getLogger(__name__)

EVAL_HELP = """secateur eval: measure a checkpoint or a finished run again

usage: secateur eval checkpoint=DIR [KEY=VALUE ...]
       secateur eval run=ID [out=DIR] [eval KEY=VALUE ...]
       secateur eval --oracle [model=NAME | checkpoint=DIR] [KEY=VALUE ...]

  --oracle     score with lm-eval's HFLM beside ours: differences, and the time of both
  --limit N    the same as eval.limit=N
  --tasks A,B  the same as eval.tasks=[A,B]

A checkpoint remembers the data that it was measured on (eval.data_dir, tasks, perplexity text): the default here.

examples:
  secateur eval checkpoint=runs/ID/model
  secateur eval checkpoint=runs/ID/model eval.data_dir=/data/eval eval.limit=100
  secateur eval run=ID eval=ppl eval.ppl.text=book.txt eval.ppl.window=512
  secateur eval --oracle --limit 50 --tasks boolq,piqa model=tiny_llama
"""


def evaluate(argv: list[str]) -> int:
    """Measure again, or compare with the oracle."""
    if not argv or {"-h", "--help"} & set(argv):
        print(EVAL_HELP)
        return 0 if argv else 2
    words = _flags(argv)
    oracle = "--oracle" in words
    words = [word for word in words if word != "--oracle"]
    targets = dict(word.split("=", 1) for word in words if word.startswith(("checkpoint=", "run=")))
    rest = [word for word in words if not word.startswith(("checkpoint=", "run="))]
    if "checkpoint" in targets:
        rest = [*_checkpoint(targets["checkpoint"], rest), *rest]
    if oracle:
        return _oracle(rest)
    if len(targets) != 1:
        raise ConfigError("give either checkpoint=DIR or run=ID")
    return run(rest) if "checkpoint" in targets else _again(targets["run"], rest)


def _flags(argv: list[str]) -> list[str]:
    """`--limit N` and `--tasks A,B` as the overrides that they stand for."""
    keys = {"--limit": "eval.limit={}", "--tasks": "eval.tasks=[{}]"}
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in keys:
            value = next(rest, None)
            if value is None:
                raise ConfigError(f"{word} needs a value; see --help")
            word = keys[word].format(value)
        words.append(word)
    return words


def _checkpoint(path: str, typed: list[str]) -> list[str]:
    """Overrides that name a model folder as the model, unpruned, and the data that it remembers."""
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(
            f"checkpoint={path}: no such folder; give a folder that `save_model=true` wrote, or any model folder"
        )
    name = folder_name(str(folder))
    data = recall(folder, typed)
    if data:
        configure_logging(False)
        log.info("data as the checkpoint remembers it: %s (type a key to change it)", " ".join(data))
    return ["model=local", write("model.path", path), write("model.name", name), "method=dense", *data]


def _again(name: str, overrides: list[str]) -> int:
    """Measure a finished run with other eval settings: same model, same plan."""
    wrong = [word for word in overrides if not word.startswith(("eval", "out=", "device=", "progress="))]
    if wrong:
        raise ConfigError(f"{wrong[0]}: only eval, out and device can be given together with run=ID")
    out = next((word.removeprefix("out=") for word in overrides if word.startswith("out=")), "runs")
    old = read_record(Path(out) / name)
    config = validate(RunConfig, amend({**old.config, "out": out}, overrides))
    configure_logging(False)
    offline(config)
    from secateur.eval.experiment import PLAN, baseline, experiment
    from secateur.eval.table import print_run
    from secateur.pruning.plan import PruningPlan

    plan = PruningPlan.load(Path(out) / name / PLAN) if old.kind == "pruned" else None
    dense = baseline(config) if config.eval.baseline else None
    print_run(experiment(config, plan), dense, Path(out))
    return 0


def _oracle(overrides: list[str]) -> int:
    """Score with both backends and print how they compare."""
    config, _ = config_of(overrides)
    configure_logging(False)
    offline(config)
    from secateur.eval.oracle import compare
    from secateur.pruning.models.loading import load

    loaded = load(config.model, config.device)
    found = compare(loaded.model, loaded.tokenizer, config.eval, progress=config.progress is not False)
    print("\n".join(found.lines()))
    return 0
