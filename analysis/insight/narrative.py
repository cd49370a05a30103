"""The narrative from templates: complete without any language model."""

from dataclasses import dataclass

from secateur.analysis.insight.claims import Facts, Told
from secateur.analysis.insight.numbers import show
from secateur.analysis.insight.phenomena import PARTS
from secateur.analysis.insight.texts import Words

ROWS = 12
"""Cases of one phenomenon that its table shows."""
SENTENCES = 5
ADVICE, RISKS = 6, 5
NAMED = 4
"""Names that a sentence lists at most."""
CELLS = {
    "distance": ("measure", "subject", "before!", "after!", "relative!", "label"),
    "best": ("measure", "best_label", "best!", "second_label", "second!", "tied!"),
    "change": ("measure", "label", "before!", "after!", "relative!"),
    "factor": ("measure", "eta2!", "high_label", "high!", "low_label", "low!"),
    "outlier": ("measure", "label", "value!", "usual!"),
    "unstable": ("measure", "label", "cv!"),
    "contradiction": ("measure", "label", "file_one", "one!", "file_two", "two!"),
}
"""Columns of a phenomenon's table; figures end with `!`."""


@dataclass(frozen=True)
class Narrative:
    """Markdown of each section; figures carry their citations."""

    summary: str
    findings: str
    advice: str
    risks: str

    def texts(self) -> dict[str, str]:
        """Section name -> Markdown."""
        return dict(vars(self))


def narrate(facts: Facts, words: Words) -> Narrative:
    """Tell the facts."""
    return Narrative(
        _summary(facts, words), findings_text(facts, words), _advice(facts, words), _risks(facts, words)
    )


def sentence(told: Told, words: Words) -> str:
    """One finding in one sentence."""
    text = _say(told, words(f"says.{told.finding.form}"), words)
    return text + words(f"verdict.{told.finding.words.get('verdict', 'none')}")


def _say(told: Told, template: str, words: Words) -> str:
    values = {"measure": as_name(told.finding.measure), "dataset": as_name(told.finding.dataset)}
    values |= {key: value if key == "where" else as_name(value) for key, value in told.finding.words.items()}
    return words.say(template, told.claims, values)


def as_name(text: str) -> str:
    """A name from a file as Markdown that prints as it is: in code where it holds signs of Markdown."""
    if not any(char in "*`|[]<>\\~" for char in text):
        return text
    return "`" + text.replace("`", "'").replace("|", "/") + "`"


def _summary(facts: Facts, words: Words) -> str:
    """At most five sentences: what was compared, what holds, what is open, what to look at first."""
    lines = [_scope(facts, words)]
    for part, most in zip(PARTS, (2, 1, 1), strict=True):
        seen: set[str] = set()
        for group in facts.groups(part):
            kind = group[0].finding.kind
            if len(seen) < most and kind not in seen:
                seen.add(kind)
                lines.append(_brief(group, words))
    if len(lines) == 1:
        lines.append(words("none_found"))
    return ("" if words.lang == "zh" else " ").join(lines[:SENTENCES])


def _scope(facts: Facts, words: Words) -> str:
    measures = list(dict.fromkeys(told.finding.measure for told in facts.told if told.finding.measure))
    named = ("、" if words.lang == "zh" else ", ").join(as_name(name) for name in measures[:NAMED])
    key = "brief.scope" if measures else "brief.scope_none"
    return words.say(words(key), facts.inventory, {"measures": named})


def _brief(group: list[Told], words: Words) -> str:
    told = group[0]
    if told.finding.kind == "distance" and len(group) > 1:
        same = [item for item in group if item.finding.measure == told.finding.measure]
        ordered = sorted(same, key=lambda item: abs(item.claims["relative"].value))
        ends = {"least": ordered[0], "most": ordered[-1]}
        claims = {key: item.claims["relative"] for key, item in ends.items()}
        values = {f"{key}_subject": as_name(item.finding.words["subject"]) for key, item in ends.items()}
        return words.say(
            words("brief.distances"), claims, {**values, "measure": as_name(told.finding.measure)}
        )
    return _say(told, words(f"brief.{told.finding.form}"), words)


def findings_text(facts: Facts, words: Words) -> str:
    """Each phenomenon in a sentence, what decides first; several cases of one stand in a table."""
    if not facts.told:
        return words("none_found")
    lines: list[str] = []
    for part in PARTS:
        groups = facts.groups(part)
        if groups:
            lines += [f"### {words(f'parts.{part}')}", ""]
        for group in groups:
            mark = words(f"strength.{group[0].finding.strength}")
            note = f"（{mark}）" if words.lang == "zh" else f" *({mark})*"
            lines += [f"- {sentence(group[0], words)}{note if part != 'open' else ''}", ""]
            if len(group) > 1 and group[0].finding.kind in CELLS:
                lines += [*_table(group, words), ""]
    return "\n".join(lines).strip()


def _table(group: list[Told], words: Words) -> list[str]:
    names = CELLS[group[0].finding.kind]
    head = [words(f"columns.{name.rstrip('!')}") for name in names]
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join("--:" if n.endswith("!") else ":--" for n in names) + "|",
    ]
    lines += ["| " + " | ".join(_cell(told, name) for name in names) + " |" for told in group[:ROWS]]
    return lines if len(group) <= ROWS else [*lines, "", words("more_cases", file="insight.json")]


def _cell(told: Told, name: str) -> str:
    finding = told.finding
    if name.endswith("!"):
        claim = told.claims.get(name[:-1])
        return "–" if claim is None else f"{show(claim)} [F{claim.id}]"
    if name == "measure":
        return as_name(finding.measure + finding.words.get("where", ""))
    return as_name(finding.words.get(name, "–"))


def _advised(facts: Facts, known: dict[str, list[str]]) -> list[tuple[str, Told]]:
    """The first finding of every form that there is advice for: a change for the worse, a lead, a gap, ..."""
    first: dict[str, Told] = {}
    for part in ("trouble", "says", "open"):
        for group in facts.groups(part):
            form = group[0].finding.form
            key = group[0].finding.words["verdict"] if group[0].finding.kind == "change" else form
            if key in known:
                first.setdefault(key, group[0])
    return list(first.items())


def _advice(facts: Facts, words: Words) -> str:
    """A table: what to do, to what, what for, at what cost, and how to see whether it was right."""
    known: dict[str, list[str]] = words.node("advice")
    rows = [[_say(told, text, words) for text in known[key]] for key, told in _advised(facts, known)[:ADVICE]]
    if facts.inventory["unreadable"].value:
        rows.append([words.say(text, facts.inventory, {}) for text in known["unreadable"]])
    return (
        _grid(("action", "target", "effect", "effort", "test"), rows, words) if rows else words("advice_none")
    )


def _risks(facts: Facts, words: Words) -> str:
    known: dict[str, list[str]] = words.node("risks")
    rows = [[_say(told, text, words) for text in known[key]] for key, told in _advised(facts, known)[:RISKS]]
    if facts.inventory["unreadable"].value:
        rows.append([words.say(text, facts.inventory, {}) for text in known["unreadable"]])
    return _grid(("risk", "mitigation"), rows or [known["none"]], words)


def _grid(names: tuple[str, ...], rows: list[list[str]], words: Words) -> str:
    head = "| " + " | ".join(words(f"columns.{name}") for name in names) + " |"
    return "\n".join([head, "|" + ":--|" * len(names), *("| " + " | ".join(row) + " |" for row in rows)])
