"""`secateur run`, `capture` and `tasks`: parse, validate, call; nothing else."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from secateur.eval.config import METRIC, RunConfig
from secateur.pruning.compose import CONF_DIR, compose, options, plain, register
from secateur.pruning.config import validate
from secateur.pruning.errors import ConfigError
from secateur.pruning.logs import configure_logging
from secateur.pruning.overrides import protect, write

RUN_HELP = """secateur run: prune a model, measure it, write the record

usage: secateur run [KEY=VALUE ...] [--cfg] [--multirun] [--config-dir DIR] [-v]

groups:  model={models}
         method={methods}
         calibration={calibrations}
         eval={evals}      experiment={experiments}
values:  budget.ratio=0.2  taylor.seq_len=128  taylor.num_samples=256  eval.data_dir=DIR  eval.limit=N
         guard.max_layer_ratio=0.8  seed=0  device=auto  out=runs  save_model=false      (--cfg prints them all)

A finished run is not repeated: its record is OUT/<run id>/record.json. An interrupted one continues.

examples:
  secateur run model=tiny_llama method=blockwise
  secateur run model=local model.path=DIR calibration=text_file calibration.path=text.parquet eval=ppl \\
      eval.ppl.text=held_out.parquet eval.ppl.window=256
  secateur run model=llama3_8b method=layerwise taylor.num_samples=512 eval.data_dir=/data/eval save_model=true
  secateur run --multirun model=tiny_llama method=taylor,layerwise,blockwise budget.ratio=0.1,0.2
"""

CAPTURE_HELP = """secateur capture: the gradient pass that several runs share; keys as in `secateur run`

example:
  secateur capture model=tiny_llama taylor.num_samples=512 capture.snapshots=[128,256]
"""


def run(argv: list[str]) -> int:
    """`secateur run`: one experiment, or several with --multirun."""
    if (code := usage(argv)) is not None:
        names = {g: ", ".join(options(g)) for g in ("model", "method", "calibration", "eval", "experiment")}
        print(RUN_HELP.format(**{f"{group}s": text for group, text in names.items()}))
        return code
    if {"-m", "--multirun"} & set(argv):
        return _multirun([a for a in argv if a not in {"-m", "--multirun"}])
    config, flags = config_of(argv)
    if "--cfg" in flags:
        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        return 0
    return _one(config, verbose="-v" in flags)


def capture(argv: list[str]) -> int:
    """`secateur capture`: only the gradient pass."""
    if (code := usage(argv)) is not None:
        print(CAPTURE_HELP)
        return code
    config, flags = config_of(argv)
    configure_logging("-v" in flags)
    offline(config)
    from secateur.eval.experiment import capture_only

    facts = capture_only(config)
    logging.getLogger(__name__).info(
        "capture %s: %d samples of %d tokens, snapshots %s",
        "reused" if facts["reused"] else "computed",
        facts["samples"],
        facts["seq_len"],
        facts["snapshots"],
    )
    return 0


def tasks(argv: list[str]) -> int:
    """`secateur tasks`: what can be measured."""
    from rich.console import Console
    from rich.table import Table

    if {"-h", "--help"} & set(argv):
        print("secateur tasks: the tasks and perplexity protocols that exist\n\nusage: secateur tasks [all]")
        print("\n  all   every task, group and tag of lm-eval: each can stand in eval.tasks=[...]")
        return 0
    if argv == ["all"]:
        from secateur.eval.more_tasks import names

        print("\n".join(names()))
        return 0
    table = Table(title="Zero-shot tasks (lm-eval)")
    for column in ("task", "metric in the mean of seven", "split"):
        table.add_column(column)
    from secateur.eval.seven import SPLIT

    for task, metric in METRIC.items():
        table.add_row(task, metric, SPLIT[task])
    protocols = Table(title="Perplexity protocols (eval.ppl.protocols=[...])")
    protocols.add_column("name")
    protocols.add_column("what")
    protocols.add_row("wikitext2@2048", "WikiText-2 test, windows of 2048 side by side; the default")
    protocols.add_row("wikitext2@128", "the same, windows of 128 (LLM-Pruner's, FLAP's)")
    protocols.add_row(
        "wikitext2@2048/512-recount", "the reference study's: stride 512, every token of each window counted"
    )
    protocols.add_row(
        "NAME@WINDOW", "any text NAME below eval.data_dir, or eval.ppl.text=FILE with eval.ppl.window=N"
    )
    console = Console()
    console.print(table)
    console.print(protocols)
    return 0


def usage(argv: list[str]) -> int | None:
    """Exit code when only the help is to be printed: 0 where it is asked for, 2 where no KEY=VALUE says what to do."""
    if {"-h", "--help"} & set(argv):
        return 0
    return 2 if set(argv) <= {"-v", "--verbose", "-m", "--multirun"} else None


def config_of(argv: list[str]) -> tuple[RunConfig, set[str]]:
    """The typed config of a command line, and its flags."""
    register(RunConfig)
    flags = {a for a in argv if a in {"--cfg", "-v", "--verbose"}}
    overrides = [a for a in argv if a not in flags]
    if "--config-dir" in overrides:
        at = overrides.index("--config-dir")
        if at + 1 == len(overrides):
            raise ConfigError("--config-dir needs a folder")
        folder = Path(overrides[at + 1]).resolve()
        overrides[at : at + 2] = [write("hydra.searchpath", [f"file://{folder}"])]
    unknown = [a for a in overrides if a.startswith("-")]
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}; see --help")
    return validate(RunConfig, compose("run", overrides)), flags


def _one(config: RunConfig, verbose: bool = False) -> int:
    configure_logging(verbose)
    offline(config)
    from secateur.eval.experiment import baseline, check, experiment
    from secateur.eval.table import print_run

    check(config)
    dense = baseline(config) if config.eval.baseline else None
    record = experiment(config)
    if os.environ.get("RANK", "0") == "0":
        print_run(record, dense, Path(config.out))
    return 0


def _multirun(argv: list[str]) -> int:
    """Hydra's own sweep, with any launcher."""
    import hydra

    register(RunConfig)
    sys.argv = ["secateur run", "--multirun", *map(protect, argv)]
    hydra.main(config_path=str(CONF_DIR), config_name="run", version_base="1.3")(multirun_task)()
    return 0


def multirun_task(config: Any) -> float | None:
    """One point of a sweep; returns the mean accuracy, which optimising sweepers maximise."""
    typed = validate(RunConfig, plain(config))
    configure_logging(False)
    offline(typed)
    from secateur.eval.experiment import baseline, check, experiment

    check(typed)
    if typed.eval.baseline:
        baseline(typed)
    mean = experiment(typed).metrics.get("acc_mean")
    return None if mean is None else mean.value


def offline(config: RunConfig) -> None:
    """Keep the hub out of a run that needs nothing from it or cannot reach it; call before its libraries are loaded."""
    from secateur.eval.hub import offline_if_unreachable, stay_offline
    from secateur.eval.identity import is_dense
    from secateur.pruning.identity import model_folder

    local_model = model_folder(config.model) is not None
    ppl = config.eval.ppl
    measured = bool(config.eval.tasks) or (ppl.text is None and bool(ppl.protocols))
    local_data = config.eval.data_dir is not None or not measured
    local_text = config.calibration.source != "hub" or is_dense(config)
    if local_model and local_data and local_text:
        stay_offline()
    else:
        offline_if_unreachable()
