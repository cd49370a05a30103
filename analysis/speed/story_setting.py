"""The report "setting": what one setting changes, everything else held equal."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from secateur.analysis.document import Block, Document, Figure, Paragraph, Section, Table
from secateur.analysis.model_names import slug
from secateur.analysis.speed.compare import Difference, compare, prepared, student, value_text
from secateur.analysis.speed.curves import labels
from secateur.analysis.speed.measurements import PHASES, SETTING, Speeds
from secateur.analysis.speed.story import SKIPPED, data_section, footer, passes, warnings
from secateur.analysis.speed.summaries import differences_frame, summary
from secateur.analysis.speed.words import SpeedTexts
from secateur.analysis.speed.written import spoken, verdict_text

GROWTH = {"rss_loaded": "rss_loaded", "rss_pass": "rss_after_pass", "rss_peak": "rss_peak"}
"""Column of the report -> column of the measurement: growth of resident memory."""


def tell_setting(
    speeds: Speeds, setting: str, texts: SpeedTexts, today: str | None = None
) -> tuple[Document, list[Difference], pd.DataFrame]:
    """Arrange the report; also returns the differences and the summary."""
    found = compare(speeds, setting)
    table, changes = summary(speeds, setting), differences_frame(found)
    values = list(dict.fromkeys(table["value"])) if len(table) else []
    models = list(dict.fromkeys(table["subject"])) if len(table) else []
    lead: list[Block] = [
        Paragraph(texts("lead.setting", setting=setting, values=", ".join(values), models=len(models),
                        cells=len(speeds.cells), passes=passes(speeds, texts)))
    ]  # fmt: skip
    lead += warnings(speeds, texts)
    if not changes["same_session"].astype(bool).all():
        lead.append(Paragraph(texts("notes.session"), "warning"))
    lead += [
        Paragraph(texts("key.verdict", subject=row["subject"], phase=texts(f"phases.{row['phase']}"),
                        verdict=verdict_text(row, texts, setting)), "key")
        for row in changes.to_dict("records")
    ]  # fmt: skip
    sections = [
        Section(
            "differences",
            texts("sections.differences"),
            _differences(changes, models, speeds, setting, texts),
        ),
        Section("values", texts("sections.values"), _values(table, setting, texts)),
    ]
    loads = loads_table(speeds, setting)
    if len(loads):
        block = Table("loads", texts("tables.loads"), loads, texts("tables.loads_note"))
        sections.append(Section("loads", texts("sections.loads"), (block,)))
    records = Table("records", texts("tables.records"), spoken(_records(speeds, setting), texts), show=100)
    sections.append(Section("records", texts("sections.records"), (records,)))
    named = replace(speeds, cells=speeds.cells.assign(subject=labels(speeds.cells, speeds.varied())))
    sections.append(data_section(named, texts, ", difference.csv"))
    title = texts("title.setting", setting=setting)
    return Document(title, texts.lang, tuple(lead), tuple(sections), footer(texts, today)), found, table


def _differences(
    changes: pd.DataFrame, models: list[str], speeds: Speeds, setting: str, texts: SpeedTexts
) -> tuple[Block, ...]:
    mark = frozenset(place for place, v in enumerate(changes["verdict"]) if v in ("faster", "slower"))
    note = texts("tables.differences_note")
    blocks: list[Block] = [
        Table(
            "differences",
            texts("tables.differences"),
            spoken(changes, texts),
            note,
            mark=mark,
            skip=SKIPPED,
        )
    ]
    for phase in PHASES:
        word = texts(f"phases.{phase}")
        for subject in models:
            if ((speeds.cells["phase"] == phase) & speeds.cells["tokens_per_s"].notna()).any():
                title = texts("figures.one", subject=subject, phase=word, setting=setting)
                blocks.append(Figure(f"{slug(subject)}_{phase}", title, texts("figures.one_note")))
    return tuple(blocks)


def _values(table: pd.DataFrame, setting: str, texts: SpeedTexts) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for phase in PHASES:
        part = table[table["phase"] == phase]
        if len(part):
            word = texts(f"phases.{phase}")
            title, note = (
                texts("figures.aggregate", phase=word, setting=setting),
                texts("figures.aggregate_note"),
            )
            name = texts("tables.values", phase=word)
            frame = spoken(part.reset_index(drop=True), texts)
            blocks.append(Table(f"values_{phase}", name, frame, texts("tables.values_note"), skip=("phase",)))
            blocks.append(Figure(f"aggregate_{phase}", title, note))
    return tuple(blocks)


def _records(speeds: Speeds, setting: str) -> pd.DataFrame:
    """How many cells and passes each value, model and phase has."""
    cells = prepared(speeds, setting)
    groups = cells.groupby(["value", "label", "phase"], sort=False)
    frame = groups.agg(
        points=("row", "size"), passes=("n", lambda n: n.astype(float).sum(min_count=1))
    ).reset_index()
    return frame.rename(columns={"label": "subject"})


def loads_table(speeds: Speeds, setting: str) -> pd.DataFrame:
    """Per model and value: time and memory of loads, and the change of the time from the first value."""
    column = SETTING + setting
    if speeds.loads.empty or column not in speeds.loads:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    loads = speeds.loads.assign(value=speeds.loads[column].map(value_text))
    for subject, part in loads.groupby("subject", sort=True):
        first: pd.DataFrame | None = None
        for value, one in part.groupby("value", sort=True):
            first = one if first is None else first
            grown = {name: float((one[key] - one["rss_before"]).mean()) for name, key in GROWTH.items()}
            change, low, high = _change(first, one)
            rows.append({
                "subject": subject, "value": value, "passes": len(one), "load_mean": float(one["load_s"].mean()),
                "load_sd": float(one["load_s"].std(ddof=1)) if len(one) > 1 else None, "change": change,
                "change_low": low, "change_high": high, "first_pass": float(one["first_pass_s"].mean()), **grown,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _change(first: pd.DataFrame, one: pd.DataFrame) -> tuple[float, float, float]:
    """Relative change of the load time, paired by repetition (loads alternate between the values)."""
    if one is first:
        return math.nan, math.nan, math.nan
    a, b = first.set_index("round")["load_s"], one.set_index("round")["load_s"]
    both = pd.concat([a, b], axis=1, join="inner").to_numpy(dtype=float)
    if not len(both):
        return math.nan, math.nan, math.nan
    mean, low, high, _, _ = student(np.log(both[:, 1] / both[:, 0]))
    return math.expm1(mean), math.expm1(low), math.expm1(high)
