"""`secateur export`: a pruned checkpoint in the form that another program reads."""

from collections.abc import Callable
from pathlib import Path

from secateur.pruning.errors import ConfigError
from secateur.pruning.files import read_json

HELP = """secateur export: write a pruned checkpoint in the form that another program reads

usage: secateur export checkpoint=DIR|run=ID to=stock [runs=DIR] [out=DIR]

  to=stock   stock Transformers without remote code (and whatever reads its folders: vLLM, llama.cpp's converter);
             for plans whose layers are alike (method.allocation=alike) or that remove whole layers
  runs=DIR   folder of the runs, for run=ID (default: runs)
  out=DIR    where it goes (default: beside the checkpoint, NAME-stock)

What a target cannot carry is said, with the layers, before any work.

examples:
  secateur export run=RUN_ID to=stock
  secateur export checkpoint=runs/RUN_ID/model to=stock out=runs/plain
"""
KEYS = ("checkpoint", "run", "to", "runs", "out")


def export(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    given: dict[str, str] = {}
    for word in argv:
        key, sign, value = word.partition("=")
        if not sign or key not in KEYS:
            raise ConfigError(
                f"{word!r} is not understood; keys are {', '.join(KEYS)} (`secateur export --help`)"
            )
        given[key] = value
    targets = _targets()
    if given.get("to") not in targets:
        raise ConfigError(f"to={given.get('to', '')}: give one of {', '.join(targets)}")
    source = _source(given)
    out = Path(given["out"]) if "out" in given else source.with_name(f"{source.name}-{given['to']}")
    print(f"{targets[given['to']](source, out)}")
    return 0


def _targets() -> dict[str, Callable[[Path, Path], Path]]:
    from secateur.pruning.export.stock import export_stock

    return {"stock": export_stock}


def _source(given: dict[str, str]) -> Path:
    """The checkpoint that is meant."""
    if ("checkpoint" in given) == ("run" in given):
        raise ConfigError("give either checkpoint=DIR or run=ID")
    folder = (
        Path(given["checkpoint"])
        if "checkpoint" in given
        else Path(given.get("runs", "runs")) / given["run"] / "model"
    )
    if not (folder / "config.json").is_file():
        hint = "; run it again with save_model=true" if "run" in given else ""
        raise ConfigError(f"{folder}: there is no checkpoint{hint}")
    read_json(folder / "config.json")
    return folder
