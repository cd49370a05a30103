"""The commands `analyze`, `show` and `compare`: read the words, call, report errors as one message."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.errors import ConfigError, SecateurError

if TYPE_CHECKING:
    from analysis.runset import Runs

ANALYZE = """\
secateur analyze: reports from runs

  secateur analyze runs=DIR [runs=DIR2] [csv=FILE ...] [out=DIR] [lang=en|zh] [style=full|study]
                   [mapping=FILE.yaml] [protocol=ID] [plots=yes|no] [--allow-mixed]

  runs=DIR        a runs directory (every record.json and failed.json below it); may be given several times
  csv=FILE        a results table of another tool, or results.csv of this one; may be given several times
  mapping=FILE    which of the table's columns is which (YAML; docs/analysis.md); known tables need none
  out=DIR         folder of the reports (default: reports)
  lang=en|zh      language of all texts and plot labels (default: en)
  style=study     the reference study's text report instead of everything
  protocol=ID     rank the rows of this protocol instead of the most frequent one
  plots=no        no plots
  --allow-mixed   rank rows of different protocols together; the result is marked

examples:
  secateur analyze runs=runs out=reports
  secateur analyze runs=grid_a runs=grid_b lang=zh out=reports_zh
  secateur analyze csv=llama.csv csv=qwen.csv csv=mistral.csv style=study
"""
SHOW = """\
secateur show: one run on the terminal

  secateur show RUN [runs=DIR]

  RUN        a run folder, or the id of a run (or its beginning) in runs=DIR (default: runs)

examples:
  secateur show runs/tiny_llama-blockwise-0.2-64x128-1a2b3c4d5e
  secateur show tiny_llama-block runs=runs
"""
COMPARE = """\
secateur compare: what differs between two runs in protocol, config, plan and result

  secateur compare RUN RUN [runs=DIR]

  RUN        a run folder, or the id of a run (or its beginning) in runs=DIR (default: runs)

example:
  secateur compare tiny_llama-taylor tiny_llama-blockwise runs=runs
"""


@dataclass
class Words:
    """A command line taken apart: `key=value` (every value kept), flags, and the rest."""

    values: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    flags: set[str] = field(default_factory=set[str])
    rest: list[str] = field(default_factory=list[str])

    def one(self, key: str, default: str, allowed: tuple[str, ...] = ()) -> str:
        """The single value of a key.

        Raises:
            ConfigError: The key was given twice, or the value is not allowed.
        """
        given = self.values.get(key, [default])
        if len(given) > 1:
            raise ConfigError(f"{key} was given {len(given)} times: {', '.join(given)}. Give it once.")
        if allowed and given[0] not in allowed:
            raise ConfigError(f"{key}={given[0]}: is not one of {', '.join(allowed)}.")
        return given[0]


def parse(argv: list[str], keys: tuple[str, ...], flags: tuple[str, ...] = (), rest: int = 0) -> Words:
    """Take a command line apart.

    Raises:
        ConfigError: An unknown key or flag, an empty value, or the wrong number of other words.
    """
    words = Words()
    for word in argv:
        key, sign, value = word.partition("=")
        if word.startswith("--") and not sign:
            if word not in flags:
                raise ConfigError(
                    f"{word}: unknown flag. Known: {', '.join(flags) or 'none'}; --help shows examples."
                )
            words.flags.add(word)
        elif sign and key in keys:
            if not value:
                raise ConfigError(f"{key}= needs a value.")
            words.values.setdefault(key, []).append(value)
        elif sign and "/" not in key:
            raise ConfigError(f"{word}: unknown key {key}. Known: {', '.join(keys)}; --help shows examples.")
        else:
            words.rest.append(word)
    if len(words.rest) != rest:
        wanted = f"{rest} run(s)" if rest else "only key=value words"
        raise ConfigError(f"expected {wanted}, got {words.rest or 'none'}; --help shows examples.")
    return words


def analyze(argv: list[str]) -> int:
    """`secateur analyze`: returns the exit code."""
    return _run(argv, ANALYZE, _analyze)


def show(argv: list[str]) -> int:
    """`secateur show`: returns the exit code."""
    return _run(argv, SHOW, _show)


def compare(argv: list[str]) -> int:
    """`secateur compare`: returns the exit code."""
    return _run(argv, COMPARE, _compare)


def _run(argv: list[str], usage: str, work: Callable[[list[str]], None]) -> int:
    """Call a command; a wrong command line ends with 2, anything else that is the user's to mend with 1."""
    if not argv or any(word in ("-h", "--help", "help") for word in argv):
        print(usage, end="")  # noqa: T201
        return 0 if argv else 2
    try:
        work(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except SecateurError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _analyze(argv: list[str]) -> None:
    keys = ("runs", "csv", "out", "lang", "style", "mapping", "protocol", "plots")
    words = parse(argv, keys, ("--allow-mixed",))
    out = Path(words.one("out", "reports"))
    lang = words.one("lang", "en", ("en", "zh"))
    style = words.one("style", "full", ("full", "study"))
    plots = words.one("plots", "yes", ("yes", "no")) == "yes"
    protocol = words.one("protocol", "") or None
    if "runs" not in words.values and "csv" not in words.values:
        raise ConfigError("give at least one runs=DIR or csv=FILE; --help shows examples.")

    from analysis.report import write_findings

    runs = _load(words)
    paths, findings = write_findings(
        runs, out, lang, "study" if style == "study" else "full",
        allow_mixed="--allow-mixed" in words.flags, protocol=protocol, plots=plots,
    )  # fmt: skip
    if style == "study":
        print(paths[0].read_text(encoding="utf-8"), end="")  # noqa: T201
    from analysis.notices import notices

    for line in notices(findings, lang):
        print(line, file=sys.stderr)  # noqa: T201
    if style == "full":
        print(f"{len(paths)} files; open {paths[0]}")  # noqa: T201


def _load(words: Words) -> "Runs":
    from analysis.foreign import load_csv, read_mapping
    from analysis.load import load_runs
    from analysis.runset import join

    given = words.values.get("mapping")
    mapping = read_mapping(Path(words.one("mapping", ""))) if given else None
    parts = [load_runs(Path(name)) for name in words.values.get("runs", [])]
    parts += [load_csv(Path(name), mapping) for name in words.values.get("csv", [])]
    return join(parts)


def _show(argv: list[str]) -> None:
    words = parse(argv, ("runs",), rest=1)
    from rich.console import Console

    from analysis.terminal import find_run, show_run

    show_run(find_run(words.rest[0], Path(words.one("runs", "runs")))[0], Console())


def _compare(argv: list[str]) -> None:
    words = parse(argv, ("runs",), rest=2)
    from rich.console import Console

    from analysis.terminal import find_run, show_comparison

    left, right = (find_run(name, Path(words.one("runs", "runs"))) for name in words.rest)
    show_comparison(left, right, Console())
