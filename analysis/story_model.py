"""One model's chapter: methods, sizes, what explains ACC, gradients, layers, PPL, the best run."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportReturnType=false

import math

import numpy as np
import pandas as pd

from secateur.analysis.arithmetic import holm
from secateur.analysis.describe import Group
from secateur.analysis.document import Block, Figure, Paragraph, Section, Table
from secateur.analysis.frames import groups_frame, p_text, pairs_frame
from secateur.analysis.model_names import slug
from secateur.analysis.per_model import ModelFindings
from secateur.analysis.runset import Runs
from secateur.analysis.texts import Texts
from secateur.analysis.variance import Variance

CLEAR = 0.05


def key_sentence(found: ModelFindings, texts: Texts) -> list[str]:
    """What to know about a model, in three sentences at most."""
    best, calm = found.best, found.calmest
    if best is None or found.ties is None:
        return [texts("key.none", model=found.model, total=found.summary.total)]
    interval = (
        texts("key.interval", low=best["acc_low"], high=best["acc_high"])
        if not math.isnan(best["acc_low"])
        else ""
    )
    ppl = texts("key.ppl", ppl=best["ppl"]) if not math.isnan(best["ppl"]) else ""
    text = texts(
        "key.best",
        model=found.model,
        setting=best["setting"],
        acc=best["acc_mean"],
        interval=interval,
        ppl=ppl,
    )
    if found.dense is not None:
        text += texts("key.dense", dense=found.dense["acc_mean"], kept=best["kept_acc"])
    if not math.isnan(best["acc_low"]) and len(found.valid) > 1:
        text += texts(
            "key.alone" if len(found.ties.labels) == 1 else "key.ties", n=len(found.ties.labels) - 1
        )
    for item in found.held_out:
        if item.basis == "questions":
            text += texts("key.honest", honest=item.honest, optimism=item.optimism)
    if calm is not None and calm["run_id"] != best["run_id"]:
        text += texts(
            "key.calm", setting=calm["setting"], ppl=calm["ppl"], cost=best["acc_mean"] - calm["acc_mean"]
        )
    return [text]


def model_section(found: ModelFindings, runs: Runs, texts: Texts) -> Section:
    """The chapter of one model."""
    name = slug(found.model)
    summary = found.summary
    lead = Paragraph(texts("model.counts", total=summary.total, valid=summary.valid, invalid=summary.invalid))
    if found.best is None:
        return Section(name, found.model, (lead, Paragraph(texts("lead.none"), "warning")))
    parts = (
        Section(f"{name}-best", texts("sections.best"), _best(found, name, runs, texts)),
        Section(f"{name}-methods", texts("sections.methods"), _methods(found, name, texts)),
        Section(f"{name}-sizes", texts("sections.sizes"), _sizes(found, name, texts)),
        Section(f"{name}-gradients", texts("sections.gradients"), _gradients(found, name, texts)),
        Section(f"{name}-layers", texts("sections.layers"), _layers(found, name, texts)),
        Section(f"{name}-selection", texts("sections.selection"), _selection(found, name, texts)),
    )
    return Section(name, found.model, (lead,), tuple(part for part in parts if part.blocks))


def _best(found: ModelFindings, name: str, runs: Runs, texts: Texts) -> tuple[Block, ...]:
    assert found.ties is not None
    blocks: list[Block] = [Paragraph(text) for text in key_sentence(found, texts)]
    blocks.append(
        Figure(
            f"{name}_intervals",
            texts("figures.intervals"),
            texts("figures.intervals_note", errors=_errors(found, texts)),
        )
    )
    if not found.tasks.empty:
        blocks.append(Figure(f"{name}_tasks", texts("figures.tasks"), texts("figures.tasks_note")))
        blocks.append(Table(f"{name}_tasks", texts("tables.tasks"), found.tasks, texts("tables.tasks_note")))
    top = found.ties.table
    wanted = top[top["same"] | (np.arange(len(top)) < 10)]
    mark = frozenset(place for place, same in enumerate(wanted["same"]) if same)
    basis = {key: texts(f"basis.{key}") for key in ("questions", "errors")} | {"-": "–"}
    frame = wanted.assign(basis=wanted["basis"].map(basis))
    if len(top) > 1:
        blocks.append(
            Table(f"{name}_ties", texts("tables.ties"), frame, texts("tables.ties_note"), show=25, mark=mark)
        )
    protocol = runs.ppl_protocol or "–"
    blocks.append(
        Figure(f"{name}_pareto", texts("figures.pareto"), texts("figures.pareto_note", protocol=protocol))
    )
    if found.front:
        columns = ["run_id", "setting", *found.front_of, "pruning_ratio"]
        frame = found.valid.loc[list(found.front), [c for c in columns if found.valid[c].notna().any()]]
        words = ", ".join(texts.get(f"columns.{column}", column) for column in found.front_of)
        blocks.append(
            Table(
                f"{name}_pareto",
                texts("tables.pareto"),
                frame,
                texts("tables.pareto_note", objectives=words),
                show=20,
                skip=("run_id",),
            )
        )
    return tuple(blocks)


def _methods(found: ModelFindings, name: str, texts: Texts) -> tuple[Block, ...]:
    blocks: list[Block] = [
        Table(f"{name}_methods", texts("tables.methods"), groups_frame(found.summary.methods, "method"))
    ]
    if found.pairs:
        clear = [pair for pair in found.pairs if pair.w_holm < CLEAR and pair.t_holm < CLEAR]
        words = "; ".join(f"{p.left} > {p.right} ({p.mean:+.4f})" for p in clear)
        blocks.append(Paragraph(texts("model.pairs" if clear else "model.no_pairs", pairs=words)))
        blocks.append(
            Table(
                f"{name}_method_pairs",
                texts("tables.pairs"),
                pairs_frame(found.pairs),
                texts("tables.pairs_note"),
                skip=("t_p", "w_p"),
            )
        )
        statistic, p, cells = found.omnibus
        if not math.isnan(statistic):
            blocks.append(
                Paragraph(texts("model.friedman", statistic=statistic, p=p_text(p), cells=cells), "note")
            )
    return tuple(blocks)


def _sizes(found: ModelFindings, name: str, texts: Texts) -> tuple[Block, ...]:
    blocks: list[Block] = [
        Figure(f"{name}_grid", texts("figures.grid"), texts("figures.grid_note")),
        Figure(f"{name}_effects", texts("figures.effects"), texts("figures.effects_note")),
    ]
    fixed: list[str] = []
    for factor in ("seq_len", "num_samples"):
        levels: tuple[Group, ...] = getattr(found.summary, factor)
        if len(levels) == 1:
            fixed.append(f"{texts(f'columns.{factor}')} = {levels[0].level}")
        elif levels:
            best = max(range(len(levels)), key=lambda place: levels[place].mean)
            frame = groups_frame(levels, factor)
            blocks.append(Table(f"{name}_{factor}", texts(f"tables.{factor}"), frame, mark=frozenset({best})))
    if fixed:
        blocks.append(Paragraph(texts("model.one_level", names=", ".join(fixed)), "note"))
    if found.variance is not None:
        blocks += _variance(found.variance, name, texts)
    sd, df = found.noise
    if df:
        blocks.append(Paragraph(texts("model.noise", sd=sd, df=df)))
    return tuple(blocks)


def _variance(variance: Variance, name: str, texts: Texts) -> list[Block]:
    terms = pd.DataFrame([vars(term) for term in variance.terms])
    joint = pd.DataFrame([vars(item) for item in variance.joint]).rename(
        columns={"share": "joint_share", "p": "p_holm"}
    )
    blocks: list[Block] = [Paragraph(shares_sentence(variance, texts))]
    if len(joint):
        joint = joint.sort_values("joint_share", ascending=False)
    blocks.append(
        Table(
            f"{name}_variance", texts("tables.variance"), terms, texts("tables.variance_note"), skip=("ss",)
        )
    )
    if len(joint):
        blocks.append(
            Table(f"{name}_variance_joint", texts("tables.joint"), joint, texts("tables.joint_note"))
        )
    if variance.left_out:
        blocks.append(Paragraph(texts("model.left_out", names=", ".join(variance.left_out)), "note"))
    return blocks


def shares_sentence(variance: Variance, texts: Texts) -> str:
    """What explains ACC, in a sentence: only shares that noise does not give; else the largest is called noise."""
    mains = [term for term in variance.terms if " × " not in term.term and term.term != "residual"]
    if all(math.isnan(term.p) for term in mains):
        return texts("model.variance_untested")
    found = [term for term, p in zip(mains, holm([term.p for term in mains]), strict=True) if p < CLEAR]
    if found:
        parts = [texts("model.variance_term", term=t.term, share=t.eta2, low=t.eta2_low, high=t.eta2_high) for t in
                 sorted(found, key=lambda term: -term.eta2)]  # fmt: skip
        return texts("model.variance", terms=("；" if texts.lang == "zh" else "; ").join(parts))
    top = max(variance.joint, key=lambda item: item.share, default=None)
    if top is None or top.p < CLEAR:
        return texts("model.variance_none") if top is None else texts("model.variance_pair", **vars(top))
    return texts("model.variance_noise", **vars(top))


def _gradients(found: ModelFindings, name: str, texts: Texts) -> tuple[Block, ...]:
    if not found.associations or len(found.valid) < 3:  # nothing can be correlated
        return ()
    scopes = {"pooled": texts("scopes.pooled"), "within": texts("scopes.within")}
    rows = [
        {
            "statistic": texts.get(f"columns.{item.statistic}", item.statistic),
            "scope": scopes.get(item.scope, item.scope),
            "n": item.n, "r": item.r, "r_low": item.low, "r_high": item.high, "p": item.p, "p_holm": adjusted,
            "rho": item.rho, "rho_p": item.rho_p,
            "excluded": texts(f"why.{item.why}") if item.why else _excluded(item.excluded),
        }
        for item, adjusted in zip(found.associations, found.association_holm, strict=True)
    ]  # fmt: skip
    mark = frozenset(place for place, item in enumerate(found.associations) if item.scope == "pooled")
    return (
        Figure(f"{name}_scatter", texts("figures.scatter"), texts("figures.scatter_note")),
        Table(
            f"{name}_correlations",
            texts("tables.correlations"),
            pd.DataFrame(rows),
            texts("tables.correlations_note"),
            show=80,
            mark=mark,
        ),
    )


def _excluded(names: tuple[str, ...], most: int = 3) -> str:
    if not names:
        return "–"
    return f"{len(names)}: " + ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _layers(found: ModelFindings, name: str, texts: Texts) -> tuple[Block, ...]:
    blocks: list[Block] = [Figure(f"{name}_layers", texts("figures.layers"), texts("figures.layers_note"))]
    if found.summary.extreme:
        frame = groups_frame(found.summary.extreme, "extreme_layers")
        blocks.append(
            Table(f"{name}_extreme_layers", texts("tables.extreme"), frame, texts("tables.extreme_note"))
        )
    return tuple(blocks)


def _selection(found: ModelFindings, name: str, texts: Texts) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for item in found.held_out:
        numbers = {
            "naive": item.naive,
            "honest": item.honest,
            "optimism": item.optimism,
            "splits": item.splits,
        }
        spread = texts("model.spread", sd=item.honest_sd) if not math.isnan(item.honest_sd) else ""
        blocks.append(Paragraph(texts(f"model.hold_out_{item.basis}", spread=spread, **numbers)))
        table = Table(
            f"{name}_hold_out_{item.basis}",
            texts(f"tables.hold_out_{item.basis}"),
            item.table,
            texts(f"tables.hold_out_{item.basis}_note"),
            show=15,
        )
        blocks.append(table)
    return tuple(blocks)


def _errors(found: ModelFindings, texts: Texts) -> str:
    known = found.valid["acc_low"].notna().any()
    return texts("figures.errors_known" if known else "figures.errors_unknown")
