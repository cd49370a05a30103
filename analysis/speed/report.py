"""From measurements to a report: Markdown, HTML, JSON, CSV, plots and the database, through the shared report code."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from secateur.analysis.document import Document
from secateur.analysis.export import write_csv, write_tables
from secateur.analysis.folder import settle, write_document
from secateur.analysis.formats import about
from secateur.analysis.machine import plain
from secateur.analysis.plots.drawing import drawing
from secateur.analysis.plots.style import Job
from secateur.analysis.speed.curves import labels
from secateur.analysis.speed.measurements import SETTING, Speeds
from secateur.analysis.speed.store import DATABASE, sql, write_store
from secateur.analysis.speed.story import summary, tell_models
from secateur.analysis.speed.story_setting import tell_setting
from secateur.analysis.speed.summaries import differences_frame
from secateur.analysis.speed.words import SpeedTexts
from secateur.pruning.errors import DataError
from secateur.pruning.files import write_json

FINDINGS = "speed_findings.json"
MOST = 1000


def write_models_report(
    speeds: Speeds, out: Path, lang: str = "en", *, plots: bool = True, today: str | None = None
) -> list[Path]:
    """Write the report "models"; returns the paths, the page first.

    Raises:
        DataError: There is no measurement.
    """
    _some(speeds)
    from secateur.analysis.speed.plots import jobs

    texts = SpeedTexts(lang)
    speeds = replace(speeds, cells=speeds.cells.assign(subject=labels(speeds.cells, speeds.varied())))
    document, curves = tell_models(speeds, texts, today)
    listed = jobs(speeds, curves) if plots else []
    table = summary(speeds)
    extra = {"report": "models", "setting": None}
    return _write(speeds, document, listed, out, texts, extra, {"summary": table})


def write_setting_report(
    speeds: Speeds, setting: str, out: Path, lang: str = "en", *, plots: bool = True, today: str | None = None
) -> list[Path]:
    """Write the report "setting"; returns the paths, the page first.

    Raises:
        DataError: There is no measurement.
    """
    _some(speeds)
    from secateur.analysis.speed.plots_setting import jobs

    texts = SpeedTexts(lang)
    document, found, table = tell_setting(speeds, setting, texts, today)
    listed = jobs(speeds, setting, found) if plots else []
    extra = {"report": "setting", "setting": setting}
    return _write(
        speeds,
        document,
        listed,
        out,
        texts,
        extra,
        {"summary": table, "difference": differences_frame(found)},
    )


def _some(speeds: Speeds) -> None:
    if speeds.cells.empty:
        raise DataError("there is no timed pass in these folders; `secateur bench` makes them")


def _write(
    speeds: Speeds, document: Document, listed: list[Job], out: Path, texts: SpeedTexts, extra: dict[str, Any],
    tables: dict[str, pd.DataFrame],
) -> list[Path]:  # fmt: skip
    with drawing(listed, texts) as collect:
        paths = _write_data(speeds, document, out, extra, tables)
        paths = write_document(document, collect(), out, texts) + paths
    settle(out, paths)
    return paths


def _write_data(
    speeds: Speeds, document: Document, out: Path, extra: dict[str, Any], tables: dict[str, pd.DataFrame]
) -> list[Path]:
    """Everything of the report that machines read."""
    value = findings_json(document, extra)
    _check(value)
    write_json(out / FINDINGS, value)
    write_store(out / DATABASE, speeds)
    write_csv(out / "raw.csv", raw_table(speeds))
    for name, frame in tables.items():
        write_csv(out / f"{name}.csv", frame)
    paths = [out / name for name in (FINDINGS, DATABASE, "raw.csv", *(f"{name}.csv" for name in tables))]
    whole = [replace(table, frame=table.frame.drop(columns=[c for c in _SPOKEN if c in table.frame])) for table in
             document.tables()]  # fmt: skip
    return paths + write_tables(out / "tables", whole)


_SPOKEN = ("change_text",)
"""Columns that repeat others in words: not in the CSV."""


def raw_table(speeds: Speeds) -> pd.DataFrame:
    """One row per timed pass with its cell and every setting; cells of which only averages are known have one row."""
    cells = speeds.cells.drop(columns=["raw"]).rename(columns=lambda name: str(name).removeprefix(SETTING))
    cells = cells.rename(columns={"seconds": "median_seconds", "tokens_per_s": "median_tokens_per_s"})
    return cells.merge(speeds.samples.set_index("cell"), left_index=True, right_index=True, how="left")


def findings_json(document: Document, extra: dict[str, Any]) -> dict[str, Any]:
    """Every table of the document, with the unit and meaning of each column."""
    return {
        "schema_version": 1,
        "lang": document.lang,
        **extra,
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "columns": [
                    {"name": str(n), "unit": about(str(n))["unit"], "meaning": about(str(n))["meaning"]}
                    for n in table.frame.columns
                ],
                "rows": [
                    [sql(value, whole=False) for value in plain(list(row))]
                    for row in table.frame.head(MOST).itertuples(index=False, name=None)
                ],
            }
            for table in document.tables()
        ],
    }


def _check(value: Any) -> None:
    """Assert that what we write is what we promise."""
    from secateur.analysis.machine import check

    check("speed_findings", value)
