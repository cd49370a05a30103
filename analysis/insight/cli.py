"""The command `insight`: read the words, call, say where the report is."""

import sys
from pathlib import Path
from typing import Any

from secateur.analysis.words import Words, parse, run
from secateur.pruning.errors import ConfigError

USAGE = """\
secateur insight: a written report over any folder of results, in which no number is invented

  secateur insight dir=DIR [out=DIR] [lang=en|zh] [persona=NAME|FILE.yaml] [writer=none|openai|local]
                   [writer.KEY=VALUE ...]

  dir=DIR               JSON, JSONL, CSV, parquet, SQLite, Markdown tables and secateur runs, at any depth
  out=DIR               folder of insight.html, insight.md, insight.json and facts.parquet (default: insight)
  lang=en|zh            language of all texts (default: en)
  persona=NAME          who the writer is told to be: {personas} (default: analyst), or a YAML file
  writer=none           narrative from templates; needs no model and no network (default)
  writer=openai         an OpenAI-compatible endpoint: writer.base_url=URL writer.model=NAME
                        [writer.api_key_env=VARIABLE]
  writer=local          a Transformers folder: writer.path=DIR
  writer.max_tokens=1200 writer.max_facts=120 writer.temperature=0 writer.seed=0
  writer.first_token_s=120 writer.stall_s=30 writer.total_s=900
                        longest waits; when one is exceeded or the endpoint fails, the templates
                        write, and the report says so

examples:
  secateur insight dir=runs out=insight
  secateur insight dir=results out=insight_zh lang=zh persona=operator
  secateur insight dir=results writer=openai writer.base_url=http://localhost:11434/v1 writer.model=gemma3
  secateur insight dir=results writer=local writer.path=MODEL_DIR persona=brief
"""
KEYS = ("dir", "out", "lang", "persona")


def insight(argv: list[str]) -> int:
    """`secateur insight`: returns the exit code (2: the command line is wrong, 1: no usable input)."""
    from secateur.analysis.insight.config import persona_names

    return run(argv, USAGE.format(personas=", ".join(persona_names())), _insight)


def _insight(argv: list[str]) -> None:
    from secateur.analysis.insight.config import InsightConfig, WriterConfig
    from secateur.pruning.config import validate

    options = [name for name in WriterConfig.model_fields if name != "kind"]
    words = parse(argv, (*KEYS, "writer", *(f"writer.{name}" for name in options)))
    raw: dict[str, Any] = {key: words.one(key, "") for key in KEYS if key in words.values}
    if "dir" not in raw:
        raise ConfigError("give dir=DIR, the folder of results; --help shows examples.")
    config = validate(InsightConfig, raw | {"writer": _writer(words, options)})
    if Path(config.out).resolve() == Path(config.dir).resolve():
        raise ConfigError(f"out={config.out}: is the folder that is read; give another one")

    from secateur.analysis.insight.report import write_report

    report, paths = write_report(config)
    if report.fallback:
        print(f"the writer failed, the templates wrote instead: {report.fallback}", file=sys.stderr)
    print(
        f"{len(report.given.sources)} files, {len(report.findings)} findings; figures checked: {report.checked}, "
        f"struck out: {report.failed}; open {paths[0]}"
    )


def _writer(words: Words, options: list[str]) -> dict[str, Any]:
    """The writer's keys; `writer=` names its kind, and one of its keys without it is an error."""
    given: dict[str, Any] = {
        name: words.one(f"writer.{name}", "") for name in options if f"writer.{name}" in words.values
    }
    kind = words.one("writer", "none", ("none", "openai", "local"))
    if given and kind == "none":
        raise ConfigError(f"writer.{next(iter(given))} was given without writer=openai or writer=local")
    return given | {"kind": kind}
