"""`secateur`: one command; this table names what each sub-command calls, imported only when asked for."""

import errno
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable

from secateur import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("secateur.eval.cli:run", "prune a model, measure it, write the record"),
    "capture": ("secateur.eval.cli:capture", "only the gradient pass, for the runs that will share it"),
    "grid": ("secateur.slurm.cli:grid", "expand a grid, drop what is done, run the rest here or on Slurm"),
    "status": ("secateur.slurm.cli:status", "what of a grid is done, running, queued, failed and why"),
    "logs": ("secateur.slurm.cli:logs", "the log of one run of a grid"),
    "retry": ("secateur.slurm.cli:retry", "run the failed runs of a grid again"),
    "cancel": ("secateur.slurm.cli:cancel", "cancel what a grid has queued or running"),
    "eval": ("secateur.eval.cli_eval:evaluate", "measure a checkpoint or a finished run again"),
    "export": ("secateur.pruning.export.cli:export", "write a pruned checkpoint for stock Transformers"),
    "bench": (
        "secateur.eval.speed.cli:bench",
        "time prefill and decode of models, dense or pruned, and of settings",
    ),
    "analyze": ("secateur.analysis.cli:analyze", "reports, JSON, tables and plots over many runs"),
    "insight": (
        "secateur.analysis.insight.cli:insight",
        "a written report over any results folder, every figure traced to a file",
    ),
    "show": ("secateur.analysis.cli:show", "one run on the terminal"),
    "compare": ("secateur.analysis.cli:compare", "what differs between two runs"),
    "models": ("secateur.pruning.cli:models", "model families and configs that exist"),
    "methods": ("secateur.pruning.cli:methods", "pruning methods and estimators that exist"),
    "tasks": ("secateur.eval.cli:tasks", "tasks and perplexity protocols that exist"),
    "fetch": ("secateur.eval.fetch:fetch", "download models and data for machines without internet"),
}

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a disk that takes no more, wherever they come up."""

EXTRAS: dict[str, tuple[str, ...]] = {
    "model": ("torch", "transformers", "accelerate", "datasets", "safetensors", "lm_eval", "tokenizers"),
    "insight": ("openai",),
    "slurm": ("submitit", "hydra_plugins"),
    "bench": ("torch_pruning",),
}
"""Extras of the package, and the modules that each brings."""

HELP = """secateur: structured pruning experiments on large language models

usage: secateur COMMAND [KEY=VALUE ...] [--help] | --version

{commands}

examples:
  secateur run model=tiny_llama method=blockwise
  secateur run model=llama3_8b method=layerwise budget.ratio=0.3 eval.data_dir=/data/eval
  secateur grid grid=tiny_sweep launcher=local workers=2
  secateur analyze runs=runs out=report
"""


def main(argv: list[str] | None = None) -> int:
    """Run one sub-command; return its exit code (0 only when all that was asked for is done)."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--version"]:
        print(f"secateur {__version__}")
        return 0
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        width = max(map(len, COMMANDS))
        table = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
        print(HELP.format(commands=table))
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"secateur: unknown command {name!r}; commands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return _guarded(name, rest)


def _guarded(name: str, arguments: list[str]) -> int:
    """Call a sub-command; what a user can mend is said in one line, without a traceback."""
    from secateur.pruning.errors import SecateurError

    module, function = COMMANDS[name][0].split(":")
    try:
        command: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return command(arguments)
    except SecateurError as error:
        print(f"secateur {name}: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        module = (error.name or "").split(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
        if extra is None:
            raise
        missing = importlib.util.find_spec(module) is None
        what = (
            f"{module} is not installed"
            if missing
            else f"{module} is damaged or of another version ({error})"
        )
        print(f"secateur {name}: {what}: pip install 'secateur[{extra}]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"secateur {name}: interrupted; the same command continues where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(f"secateur {name}: {error}. Free some space and run the same command again", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
