"""From runs to reports: the one function that the command line, the demo and a grid's last job call."""

from pathlib import Path
from typing import Literal

from secateur.analysis.describe import summarise
from secateur.analysis.document import Document
from secateur.analysis.findings import Findings, analyse
from secateur.analysis.folder import settle, write_bytes, write_document
from secateur.analysis.machine import check, cross_model_comparison, findings_json
from secateur.analysis.runset import Runs
from secateur.analysis.study import study_text
from secateur.analysis.texts import Texts
from secateur.eval.record import RunRecord
from secateur.pruning.files import write_json

Style = Literal["full", "study"]
COMPARISON = "cross_model_comparison.json"


def write_reports(
    records: "list[RunRecord] | tuple[RunRecord, ...] | Runs | Path",
    out: Path,
    lang: str = "en",
    style: Style = "full",
    *,
    allow_mixed: bool = False,
    plots: bool = True,
    today: str | None = None,
) -> list[Path]:
    """Analyse runs and write the reports; returns the paths written, the report first.

    Args:
        records: Records in memory, loaded `Runs`, or a runs directory.
        out: Folder of the reports; files of earlier reports of the same name are replaced.
        lang: `en` or `zh`, for every text and plot label.
        style: `full`, or `study` for the reference study's text alone.
        allow_mixed: Rank rows of different protocols together and mark the result.
        plots: Draw plots.
        today: Date in the footer (YYYY-MM-DD), for reports that must be the same bytes again.

    Raises:
        DataError: There is no run to analyse.
        StorageError: `out` cannot be written.
    """
    return write_findings(
        as_runs(records), out, lang, style, allow_mixed=allow_mixed, plots=plots, today=today
    )[0]


def write_findings(
    runs: Runs,
    out: Path,
    lang: str,
    style: Style,
    *,
    allow_mixed: bool = False,
    protocol: str | None = None,
    plots: bool = True,
    today: str | None = None,
) -> tuple[list[Path], Findings]:
    """`write_reports` for loaded runs; also returns the findings."""
    findings = analyse(runs, allow_mixed, protocol)
    if style == "study":
        paths = _write_study(findings, out, lang)
    else:
        paths = _write_full(findings, out, Texts(lang), plots, today)
    settle(out, paths)
    return paths, findings


def as_runs(records: "list[RunRecord] | tuple[RunRecord, ...] | Runs | Path") -> Runs:
    """Whatever holds runs, as `Runs`."""
    from secateur.analysis.load import from_records, load_runs

    if isinstance(records, Runs):
        return records
    return load_runs(records) if isinstance(records, Path) else from_records(records)


def _write_study(findings: Findings, out: Path, lang: str) -> list[Path]:
    comparison = _write_comparison(findings, out)
    summaries = [summarise(findings.runs, found.model) for found in findings.models]
    text = study_text(findings.runs, summaries, lang, str(comparison))
    write_bytes(out / "study.txt", text.encode())
    return [out / "study.txt", comparison]


def _write_full(findings: Findings, out: Path, texts: Texts, plots: bool, today: str | None) -> list[Path]:
    from secateur.analysis.plots.album import jobs
    from secateur.analysis.plots.drawing import drawing
    from secateur.analysis.story import tell

    document: Document = tell(findings.runs, findings.models, findings.cross, findings.factors, texts, today)
    with drawing(jobs(findings) if plots else [], texts) as collect:
        tables = _write_data(findings, document, out)  # while others draw
        return write_document(document, collect(), out, texts) + tables


def _write_data(findings: Findings, document: Document, out: Path) -> list[Path]:
    """Everything of the report that machines read."""
    from secateur.analysis.export import (
        results_table,
        write_csv,
        write_layers,
        write_parquet,
        write_sqlite,
        write_tables,
    )

    results = results_table(findings.runs)
    paths = [_write_comparison(findings, out)]
    value = findings_json(findings.runs, document, findings.factors)
    check("findings", value)
    write_json(out / "findings.json", value)
    write_parquet(out / "results.parquet", results)
    write_sqlite(out / "results.sqlite", findings.runs, results)
    write_csv(out / "results.csv", results)
    if len(findings.runs.layers):
        write_layers(out / "layers.parquet", findings.runs)
        paths.append(out / "layers.parquet")
    paths += [out / name for name in ("findings.json", "results.parquet", "results.sqlite", "results.csv")]
    return paths + write_tables(out / "tables", document.tables())


def _write_comparison(findings: Findings, out: Path) -> Path:
    value = cross_model_comparison(findings.runs, findings.models, findings.cross)
    check("cross_model_comparison", value)
    write_json(out / COMPARISON, value)
    return out / COMPARISON
