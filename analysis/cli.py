"""The commands `analyze`, `show` and `compare`: read the words, call, report errors as one message."""

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.analysis.words import Words, parse, run
from secateur.pruning.errors import ConfigError

if TYPE_CHECKING:
    from secateur.analysis.runset import Runs

ANALYZE = """\
secateur analyze: reports from runs

  secateur analyze runs=DIR [runs=DIR2] [csv=FILE ...] [out=DIR] [lang=en|zh] [style=full|study]
                   [mapping=FILE.yaml] [protocol=ID] [plots=yes|no] [--allow-mixed]

  runs=DIR        a runs directory (every record.json and failed.json below it); may be given several times
  csv=FILE        a results table of another tool, or results.csv of this one; may be given several times
  mapping=FILE    which of the table's columns is which (YAML; docs/analysis.md); known tables need none
  report=models   how fast models are, from `secateur bench` folders in runs=DIR, llama_bench=FILE (json, jsonl, csv)
                  or csv=FILE with mapping=FILE; report=setting setting=KEY: what a setting changes (docs/speed.md)
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
  secateur analyze report=models runs=runs out=speed
  secateur analyze report=setting setting=threads runs=runs out=threads
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


def analyze(argv: list[str]) -> int:
    """`secateur analyze`: returns the exit code."""
    # a report is made of objects that live to its end: searching them for garbage takes a tenth of its time
    collecting = gc.isenabled()
    gc.disable()
    try:
        return run(argv, ANALYZE, _analyze)
    finally:
        if collecting:
            gc.enable()


def show(argv: list[str]) -> int:
    """`secateur show`: returns the exit code."""
    return run(argv, SHOW, _show)


def compare(argv: list[str]) -> int:
    """`secateur compare`: returns the exit code."""
    return run(argv, COMPARE, _compare)


def _analyze(argv: list[str]) -> None:
    if any(word.startswith("report=") for word in argv):
        from secateur.analysis.speed.cli import KEYS, analyze_speed

        analyze_speed(parse(argv, KEYS))
        return
    keys = ("runs", "csv", "out", "lang", "style", "mapping", "protocol", "plots")
    words = parse(argv, keys, ("--allow-mixed",))
    out = Path(words.one("out", "reports"))
    lang = words.one("lang", "en", ("en", "zh"))
    style = words.one("style", "full", ("full", "study"))
    plots = words.one("plots", "yes", ("yes", "no")) == "yes"
    protocol = words.one("protocol", "") or None
    if "runs" not in words.values and "csv" not in words.values:
        raise ConfigError("give at least one runs=DIR or csv=FILE; --help shows examples.")

    from secateur.analysis.report import write_findings

    runs = _load(words)
    paths, findings = write_findings(
        runs, out, lang, "study" if style == "study" else "full",
        allow_mixed="--allow-mixed" in words.flags, protocol=protocol, plots=plots,
    )  # fmt: skip
    if style == "study":
        print(paths[0].read_text(encoding="utf-8"), end="")
    from secateur.analysis.notices import notices

    for line in notices(findings, lang):
        print(line, file=sys.stderr)
    if style == "full":
        print(f"{len(paths)} files; open {paths[0]}")


def _load(words: Words) -> "Runs":
    from secateur.analysis.foreign import load_csv, read_mapping
    from secateur.analysis.load import load_runs
    from secateur.analysis.runset import join

    given = words.values.get("mapping")
    mapping = read_mapping(Path(words.one("mapping", ""))) if given else None
    parts = [load_runs(Path(name)) for name in words.values.get("runs", [])]
    parts += [load_csv(Path(name), mapping) for name in words.values.get("csv", [])]
    return join(parts)


def _show(argv: list[str]) -> None:
    words = parse(argv, ("runs",), rest=1)
    from secateur.analysis.terminal import console, find_run, show_run

    show_run(find_run(words.rest[0], Path(words.one("runs", "runs")))[0], console())


def _compare(argv: list[str]) -> None:
    words = parse(argv, ("runs",), rest=2)
    from secateur.analysis.terminal import console, find_run, show_comparison

    left, right = (find_run(name, Path(words.one("runs", "runs"))) for name in words.rest)
    show_comparison(left, right, console())
