"""The report "models": all of them in one table, what their speed depends on, whether pruning pays, the data."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from datetime import UTC, datetime
from typing import Any

import pandas as pd

from secateur.analysis.document import Block, Document, Figure, Paragraph, Section, Table
from secateur.analysis.model_names import slug
from secateur.analysis.speed.compare import compare
from secateur.analysis.speed.curves import Curve, all_curves, fits_frame
from secateur.analysis.speed.measurements import PHASES, SETTING, Speeds
from secateur.analysis.speed.pays import sizes_table, speed_table
from secateur.analysis.speed.summaries import describe, differences_frame
from secateur.analysis.speed.words import SpeedTexts, rate
from secateur.analysis.speed.written import pays_text, spoken

ROOFS = 6
"""Limits of machines that are printed."""
SENTENCES = 8
"""Sentences on pruned models at the beginning; the table has all."""


def tell_models(speeds: Speeds, texts: SpeedTexts, today: str | None = None) -> tuple[Document, list[Curve]]:
    """Arrange the report; also returns the curves, which the plots draw. Subjects must tell the models apart."""
    table = summary(speeds)
    curves = all_curves(speeds)
    subjects = [str(name) for name in dict.fromkeys(speeds.cells["subject"])]
    lead: list[Block] = [
        Paragraph(texts("lead.models", models=len(subjects), cells=len(speeds.cells), passes=passes(speeds, texts),
                        tools=", ".join(sorted(speeds.cells["tool"].unique()))))
    ]  # fmt: skip
    lead += warnings(speeds, texts)
    lead += [Paragraph(_key(name, table, curves, texts), "key") for name in subjects]
    pay_section, pay_keys = pays_section(speeds, texts)
    lead += pay_keys
    sections = [_summary_section(speeds, table, texts)]
    sections += [
        _model_section(name, curves, texts) for name in subjects if any(c.subject == name for c in curves)
    ]
    sections += pay_section
    sections.append(data_section(speeds, texts))
    document = Document(texts("title.models"), texts.lang, tuple(lead), tuple(sections), footer(texts, today))
    return document, curves


def footer(texts: SpeedTexts, today: str | None) -> str:
    """Who made the report and when, and what its numbers are."""
    return texts("footer", day=today or datetime.now(UTC).strftime("%Y-%m-%d"))


def passes(speeds: Speeds, texts: SpeedTexts) -> str:
    """How many timed passes there are, in words."""
    count = len(speeds.samples)
    return texts("lead.passes", n=count) if count else texts("lead.averages")


def warnings(speeds: Speeds, texts: SpeedTexts) -> list[Block]:
    """What the reader must know first."""
    loud = ("incomplete", "failed")
    blocks: list[Block] = [
        Paragraph(texts(f"notes.{key}", **values), "warning" if key in loud else "note")
        for key, values in speeds.notes
    ]
    if speeds.cells["tool"].nunique() > 1:
        blocks.append(Paragraph(texts("lead.mixed_tools"), "note"))
    return blocks


def summary(speeds: Speeds) -> pd.DataFrame:
    """One row per model and phase."""
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(speeds.cells["subject"]):
        for phase in PHASES:
            part = speeds.cells[(speeds.cells["subject"] == name) & (speeds.cells["phase"] == phase)]
            if len(part):
                first = part["first_token_s"].astype(float)
                rows.append({"subject": name, "phase": phase, **describe(part),
                             "first_token_s": first.mean() if first.notna().any() else None})  # fmt: skip
    return pd.DataFrame(rows)


def _key(name: str, table: pd.DataFrame, curves: list[Curve], texts: SpeedTexts) -> str:
    """One model in a sentence: its speeds, and what they depend on."""
    parts: list[str] = []
    for row in table[table["subject"] == name].to_dict("records"):
        text = texts(
            "key.phase", phase=texts(f"phases.{row['phase']}"), mean=rate(row["speed_mean"]), points=row["points"],
            low=rate(row["speed_min"]), high=rate(row["speed_max"]),
            cv="–" if pd.isna(row["cv_mean"]) else f"{row['cv_mean']:.2%}",
        )  # fmt: skip
        for curve in curves:
            if curve.subject == name and curve.phase == row["phase"]:
                axis, form = texts(f"axes.{curve.axis}"), texts(f"forms.{curve.chosen.form}")
                text += texts("key.fit", axis=axis, form=form)
        parts.append(text)
    end, between = ("。", "；") if texts.lang == "zh" else (".", "; ")
    return texts("key.model", subject=name) + between.join(parts) + end


def _summary_section(speeds: Speeds, table: pd.DataFrame, texts: SpeedTexts) -> Section:
    blocks: list[Block] = [
        Table("summary", texts("tables.summary"), spoken(table, texts), texts("tables.summary_note"))
    ]
    for phase in PHASES:
        if (speeds.cells["phase"] == phase).any():
            word = texts(f"phases.{phase}")
            for kind in ("speed", "cv"):
                title, note = texts(f"figures.{kind}", phase=word), texts(f"figures.{kind}_note")
                blocks.append(Figure(f"{phase}_{kind}", title, note))
    return Section("summary", texts("sections.summary"), tuple(blocks))


def _model_section(name: str, curves: list[Curve], texts: SpeedTexts) -> Section:
    frame = fits_frame([curve for curve in curves if curve.subject == name])
    mark = frozenset(place for place, chosen in enumerate(frame["chosen"]) if chosen)
    terms = tuple(f"{t}{end}" for t in "abc" for end in ("", "_low", "_high"))
    key = slug(name)
    table = Table(f"{key}_fits", texts("tables.fits", subject=name), spoken(frame, texts), texts("tables.fits_note"),
                  show=80, skip=("subject", *terms), mark=mark)  # fmt: skip
    return Section(key, name, (table,))


def pays_section(speeds: Speeds, texts: SpeedTexts) -> tuple[list[Section], list[Block]]:
    """The section on pruned models beside their dense ones, and its sentences for the beginning."""
    sizes, table = sizes_table(speeds), speed_table(speeds)
    if table.empty:
        return [], []
    mark = frozenset(place for place, high in enumerate(table["speedup_low"]) if high > 1)
    kept = sizes.set_index("subject")["kept_share"].to_dict()
    keys: list[Block] = [
        Paragraph(_pays_sentence(row, kept, texts), "key") for row in table.head(SENTENCES).to_dict("records")
    ]
    blocks: list[Block] = [
        Figure("pays", texts("figures.pays"), texts("figures.pays_note")),
        Table("pays", texts("tables.pays"), spoken(table, texts), texts("tables.pays_note"), mark=mark),
        Table("sizes", texts("tables.sizes"), sizes, texts("tables.sizes_note")),
    ]
    if "guard.round_to" in speeds.varied():
        found = compare(speeds, "guard.round_to")
        if found:
            frame = spoken(differences_frame(found), texts)
            blocks.append(Table("rounding", texts("tables.rounding"), frame, skip=SKIPPED))
    return [Section("pays", texts("sections.pays"), tuple(blocks))], keys


def _pays_sentence(row: dict[Any, Any], kept: dict[Any, Any], texts: SpeedTexts) -> str:
    return texts(
        "key.pays",
        subject=row["subject"],
        kept=f"{kept[row['subject']]:.1%}",
        phase=texts(f"phases.{row['phase']}"),
        batch=row["batch"],
        flops=f"{row['flop_bound']:.2f}",
        bytes=f"{row['byte_bound']:.2f}",
        verdict=pays_text(row, texts),
    )


SKIPPED = ("change", "change_low", "change_high", "t_p", "same_session", "counted", "cv_change")
"""Columns of differences that only the CSV has."""


def machine(facts: dict[str, Any]) -> str:
    """Where something was measured, in a line: processor, devices, system, versions, commit."""
    versions = {
        **(facts.get("packages") or {}),
        "python": facts.get("python"),
        "secateur": facts.get("secateur"),
    }
    wanted = ("secateur", "torch", "transformers", "python")
    parts = [
        str(facts.get("processor") or facts.get("machine")),
        f"{facts.get('cpus')} CPUs",
        *(facts.get("devices") or []),
    ]
    parts += [f"{name} {versions[name]}" for name in wanted if versions.get(name)]
    commit = str(facts.get("commit") or "")[:10]
    return "; ".join([*parts, *([f"commit {commit}{'+' if facts.get('dirty') else ''}"] if commit else [])])


def data_section(speeds: Speeds, texts: SpeedTexts, more: str = "") -> Section:
    """What was the same everywhere, the machine, how it was measured, all cells."""
    blocks: list[Block] = [Paragraph(texts("data.files", more=more))]
    if (speeds.cells["tool"] == "secateur bench").any():
        blocks.append(Paragraph(texts("data.order"), "note"))
    machines = dict.fromkeys(machine(facts) for facts in speeds.sources.values() if facts)
    blocks += [Paragraph(texts("data.machine", text=text), "note") for text in machines]
    for _, roof in speeds.roofs[:ROOFS]:
        threads = texts("data.threads", n=roof.threads) if roof.threads else ""
        blocks.append(Paragraph(texts("data.roof", dtype=roof.dtype, threads=threads, flops=f"{roof.flops / 1e9:,.0f}",
                                      bandwidth=f"{roof.bandwidth / 1e9:,.1f}"), "note"))  # fmt: skip
    varied = set(speeds.varied())
    same = [n for n in speeds.settings() if n not in varied and pd.notna(speeds.cells[SETTING + n].iloc[0])]
    words = "; ".join(f"{name} = {speeds.cells[SETTING + name].iloc[0]}" for name in same)
    if words:
        blocks.append(Paragraph(texts("data.settings", text=words), "note"))
    names = ["phase", "n_prompt", "n_gen", "batch", "n", "tokens_per_s", "cv", "memory_bytes"]
    frame = speeds.cells[names].rename(columns={"tokens_per_s": "speed_mean", "cv": "cv_mean", "n": "passes"})
    frame = frame.rename(columns={"speed_mean": "cell_speed", "cv_mean": "cell_cv"})
    frame.insert(0, "subject", speeds.cells["subject"])
    blocks.append(Table("cells", texts("tables.cells"), spoken(frame, texts), show=40))
    return Section("data", texts("sections.data"), tuple(blocks))
