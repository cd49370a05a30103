"""From a folder to a report: read, compute, have it written, check every figure, write the files."""

import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from secateur.analysis.insight.claims import Facts, number_facts
from secateur.analysis.insight.config import InsightConfig, read_persona
from secateur.analysis.insight.contents import Clock, Report
from secateur.analysis.insight.datasets import build
from secateur.analysis.insight.facts import write_facts
from secateur.analysis.insight.findings.all import find_all
from secateur.analysis.insight.guard import Checked, chance, check
from secateur.analysis.insight.ingest import ingest
from secateur.analysis.insight.machine import write_machine
from secateur.analysis.insight.markup import clean
from secateur.analysis.insight.narrative import findings_text, narrate
from secateur.analysis.insight.prompt import Prompt, make_prompt
from secateur.analysis.insight.render_html import page
from secateur.analysis.insight.render_md import markdown
from secateur.analysis.insight.streams import WriterError, Written
from secateur.analysis.insight.texts import Words
from secateur.analysis.insight.writers import write
from secateur.pruning.files import write_atomic

FACTS = "facts.parquet"


def make_report(config: InsightConfig, today: str | None = None) -> Report:
    """Read and analyse a folder and have the narrative written; `facts.parquet` is written on the way.

    Raises:
        DataError: The folder does not exist or is empty.
        ConfigError: There is no such persona.
        StorageError: `out` cannot be written.
    """
    began = time.perf_counter()
    persona = read_persona(config.persona)
    given = ingest(Path(config.dir), Path(config.out))
    datasets = build(given.tables)
    findings = find_all(datasets)
    rows = write_facts(Path(config.out) / FACTS, datasets)
    facts = number_facts(given, datasets, findings, rows)
    analysed = time.perf_counter()
    prompt = make_prompt(persona, facts, config.lang, config.writer.max_facts)
    narrative, written, failure = _narrative(config, facts, prompt)
    limit = min(written.facts, config.writer.max_facts) if written is not None else None
    pairs = [chance(text, facts, limit if name == "narrative" else None) for name, text in narrative.items()]
    done = time.perf_counter()
    clock = Clock(
        given.seconds, analysed - began - given.seconds, done - analysed, done - began, peak_memory()
    )
    return Report(
        config, given, tuple(datasets), tuple(findings), facts, narrative, persona, prompt, written,
        str(failure or ""), failure.partial if failure else 0, rows, clock,
        today or datetime.now(UTC).date().isoformat(), (sum(p for p, _ in pairs), sum(n for _, n in pairs)),
    )  # fmt: skip


def _narrative(
    config: InsightConfig, facts: Facts, prompt: Prompt
) -> tuple[dict[str, Checked], Written | None, WriterError | None]:
    """Section -> checked text, by the writer that was asked for or else by templates."""
    words = Words(config.lang)
    failure: WriterError | None = None
    if config.writer.kind != "none":
        try:
            written = write(config.writer, prompt)
            texts = {
                "narrative": check(clean(written.text), facts, min(written.facts, config.writer.max_facts)),
                "findings": check(findings_text(facts, words), facts),
            }
            return texts, written, None
        except WriterError as error:
            failure = error
    texts = {name: check(text, facts) for name, text in narrate(facts, words).texts().items()}
    return texts, None, failure


def peak_memory() -> int:
    """Peak resident bytes of this process plus the largest of its children."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def write_report(config: InsightConfig, today: str | None = None) -> tuple[Report, list[Path]]:
    """Make the report and write `insight.html`, `insight.md`, `insight.json` and `facts.parquet`; the page first.

    Raises:
        SecateurError: As `make_report`.
    """
    report = make_report(config, today)
    words = Words(config.lang)
    out = Path(config.out)
    paths = [out / "insight.html", out / "insight.md", out / "insight.json", out / FACTS]
    write_atomic(paths[0], _text(page(report, words)))
    write_atomic(paths[1], _text(markdown(report, words)))
    write_machine(paths[2], report)
    return report, paths


def _text(text: str) -> Callable[[Path], None]:
    def fill(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return fill
