"""The report's order: what was found first, then across models, model by model, and the data."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from datetime import UTC, datetime

import pandas as pd

from secateur.analysis.cross_model import CrossFindings
from secateur.analysis.document import Block, Document, Figure, Paragraph, Section, Table
from secateur.analysis.frames import pairs_frame
from secateur.analysis.per_model import ModelFindings
from secateur.analysis.protocol import flatten
from secateur.analysis.runset import DUPLICATE, FAILED, INVALID, SET_ASIDE, STATES, VALID, Runs
from secateur.analysis.story_model import key_sentence, model_section
from secateur.analysis.texts import Texts


def tell(
    runs: Runs,
    findings: list[ModelFindings],
    cross: CrossFindings,
    factors: list[str],
    texts: Texts,
    today: str | None = None,
) -> Document:
    """Arrange all findings as a document."""
    lead: list[Block] = [Paragraph(texts("lead.what", models=len(findings), **header(runs)))]
    lead += warnings(runs, texts)
    lead += [Paragraph(text, "key") for found in findings for text in key_sentence(found, texts)]
    sections = (
        [_across(findings, cross, texts)] if sum(len(found.valid) > 0 for found in findings) > 1 else []
    )
    sections += [model_section(found, runs, texts) for found in findings]
    sections.append(_data(runs, findings, factors, texts))
    day = today or datetime.now(UTC).strftime("%Y-%m-%d")
    return Document(texts("title"), texts.lang, tuple(lead), tuple(sections), texts("footer", day=day))


def header(runs: Runs) -> dict[str, int]:
    """What became of every run that was read: `read` is the sum of all others."""
    dense = runs.frame["kind"] == "dense"
    counts = {state: int(((runs.frame["state"] == state) & ~dense).sum()) for state in STATES}
    return {"read": len(runs.frame), "dense": int(dense.sum()), **counts}


def warnings(runs: Runs, texts: Texts) -> list[Block]:
    """What the reader must know before any ranking: mixed protocols, rows set aside, failures."""
    blocks: list[Block] = []
    if runs.mixed:
        blocks.append(Paragraph(texts("lead.mixed", n=runs.frame["protocol"].nunique()), "warning"))
    aside = runs.frame[runs.frame["state"] == SET_ASIDE]
    for reason, count in aside["reason"].value_counts().head(5).items():
        blocks.append(Paragraph(texts("lead.aside", n=int(count), fields=reason), "warning"))
    bad = {state: int((runs.pruned()["state"] == state).sum()) for state in (FAILED, INVALID)}
    if any(bad.values()):
        blocks.append(Paragraph(texts("lead.bad", **bad), "warning"))
    if runs.valid().empty:
        blocks.append(Paragraph(texts("lead.none"), "warning"))
    blocks += [Paragraph(texts.get(f"notes.{note}", note), "note") for note in runs.notes]
    return blocks


def _across(findings: list[ModelFindings], cross: CrossFindings, texts: Texts) -> Section:
    blocks: list[Block] = [
        Table(
            "models",
            texts("tables.models"),
            cross.table,
            texts("tables.models_note"),
            mark=frozenset({0}),
            skip=("low", "high", "best_method"),
        ),
        Figure("methods_by_model", texts("figures.methods_by_model"), texts("figures.methods_by_model_note")),
        _wins(cross.wins, texts),
    ]
    if cross.pairs:
        blocks.append(
            Table(
                "method_pairs_all",
                texts("tables.pairs_all"),
                pairs_frame(cross.pairs),
                texts("tables.pairs_note"),
                skip=("t_p", "w_p"),
            )
        )
    transfer = cross.transfer.rename(columns={"source": "source_model", "target": "target_model"})
    if len(transfer):
        worst = transfer.loc[transfer["regret"].idxmax()]
        blocks += [
            Paragraph(texts(
                "cross.transfer", low=transfer["rho"].min(), high=transfer["rho"].max(), source=worst["source_model"],
                target=worst["target_model"], setting=worst["setting"], regret=worst["regret"],
            )),
            Figure("transfer", texts("figures.transfer"), texts("figures.transfer_note")),
            Table("transfer", texts("tables.transfer"), transfer, texts("tables.transfer_note")),
        ]  # fmt: skip
    if len(cross.settings):
        first = cross.settings.iloc[0]
        blocks.append(
            Paragraph(
                texts(
                    "cross.robust",
                    setting=first["setting"],
                    regret=first["mean_regret"],
                    worst=first["worst_regret"],
                )
            )
        )
        blocks.append(
            Table("settings", texts("tables.settings"), cross.settings, show=15, mark=frozenset({0}))
        )
    return Section("across", texts("sections.across"), tuple(blocks))


def _wins(wins: pd.DataFrame, texts: Texts) -> Table:
    mark = frozenset(int(place) for place, won in enumerate(wins["wins"]) if won)
    frame = wins.drop(columns="wins")
    return Table("method_wins", texts("tables.wins"), frame, texts("tables.wins_note"), mark=mark)


def _data(runs: Runs, findings: list[ModelFindings], factors: list[str], texts: Texts) -> Section:
    blocks: list[Block] = [Table("counts", texts("tables.counts"), counts(runs), texts("tables.counts_note"))]
    problems = runs.problems()
    if len(problems):
        words = {state: texts(f"states.{state}") for state in STATES}
        blocks.append(
            Table(
                "problems",
                texts("tables.problems"),
                problems.assign(state=problems["state"].map(words)),
                show=100,
            )
        )
    used = runs.frame.loc[runs.frame["state"] == VALID, "protocol"].dropna().unique()
    for name in used[:5]:
        facts = flatten(runs.protocols.get(str(name), {}))
        text = "; ".join(f"{key} = {value}" for key, value in facts.items() if value not in (None, [], {}))
        blocks.append(Paragraph(texts("data.protocol", name=name, text=text or "–"), "note"))
    blocks.append(Paragraph(texts("data.method"), "note"))
    if any(len(found.valid) for found in findings):
        blocks.append(_results(findings, factors, texts))
    return Section("data", texts("sections.data"), tuple(blocks))


def counts(runs: Runs) -> pd.DataFrame:
    """Per model: pruned runs read, and how many are in which state."""
    frame = runs.frame[runs.frame["kind"] != "dense"]
    table = pd.crosstab(frame["model"].fillna("–"), frame["state"]).reindex(
        columns=list(STATES), fill_value=0
    )
    table = table.reindex(list(dict.fromkeys(frame["model"].fillna("–"))))
    table.columns.name = None
    table.insert(0, "total", table.sum(axis=1) - table[DUPLICATE])
    return table.reset_index()


def _results(findings: list[ModelFindings], factors: list[str], texts: Texts) -> Table:
    frame = pd.concat([found.valid for found in findings if len(found.valid)])
    frame = frame.sort_values(["model", "acc_mean"], ascending=[True, False], kind="stable")
    names = [
        "model",
        "method",
        "seq_len",
        "num_samples",
        *(n for n in factors if n not in ("method", "seq_len", "num_samples")),
    ]
    names += [
        "acc_mean",
        "acc_mean_se",
        "acc_low",
        "acc_high",
        "gap",
        "ppl",
        "pruning_ratio",
        "params_after",
        "extreme_layers",
        "speed",
    ]
    names = [name for name in names if name in frame and frame[name].notna().any()]
    return Table(
        "runs",
        texts("tables.runs"),
        frame[[*names, "run_id"]],
        show=300,
        skip=("run_id", "acc_low", "acc_high"),
    )
