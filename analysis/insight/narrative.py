"""The narrative from templates: complete without any language model."""

from dataclasses import dataclass

from analysis.insight.claims import Claim, Facts, Told
from analysis.insight.findings.all import ORDER
from analysis.insight.texts import Words

SHOWN = 8
"""Findings of one kind that are told in words."""
TOP = 5
RISKS = 6
ADVICE = 8


@dataclass(frozen=True)
class Narrative:
    """Markdown of each section; figures carry their citations."""

    summary: str
    findings: str
    advice: str
    risks: str

    def texts(self) -> dict[str, str]:
        """Section name -> Markdown."""
        return {
            "summary": self.summary,
            "findings": self.findings,
            "advice": self.advice,
            "risks": self.risks,
        }


def narrate(facts: Facts, words: Words) -> Narrative:
    """Tell the facts."""
    return Narrative(
        _summary(facts, words), findings_text(facts, words), _advice(facts, words), _risks(facts, words)
    )


def sentence(told: Told, words: Words) -> str:
    """One finding in one sentence."""
    text = _say(told, words(f"says.{told.finding.form}"), words)
    return (
        text + words(f"verdict.{told.finding.words['verdict']}") if "verdict" in told.finding.words else text
    )


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
    inventory = facts.inventory
    lines = [words.say(words("summary.files"), inventory, {})]
    kinds = {key.removeprefix("kind "): claim for key, claim in inventory.items() if key.startswith("kind ")}
    lines += _counted("kinds", kinds, words)
    found = {
        key.removeprefix("found "): claim for key, claim in inventory.items() if key.startswith("found ")
    }
    lines += _counted("found", {kind: found[kind] for kind in ORDER if kind in found}, words)
    best = [sentence(told, words) for told in _leading(facts)]
    gap = "" if words.lang == "zh" else " "
    text = gap.join(lines)
    return (
        f"{text}\n\n{words('summary.next')}\n\n" + "\n".join(f"- {line}" for line in best) if best else text
    )


def _counted(key: str, counts: dict[str, Claim], words: Words) -> list[str]:
    if not counts:
        return []
    template = words(f"summary.{key}_part")
    parts = [
        words.say(template, {"n": claim}, {"kind": words(f"{key}.{name}")}) for name, claim in counts.items()
    ]
    return [words(f"summary.{key}", parts=("、" if words.lang == "zh" else "; ").join(parts))]


def _leading(facts: Facts) -> list[Told]:
    """The first finding of each kind, strongest kinds first."""
    first: dict[str, Told] = {}
    for told in facts.told:
        first.setdefault(told.finding.kind, told)
    return [first[kind] for kind in ORDER if kind in first][:TOP]


def findings_text(facts: Facts, words: Words) -> str:
    """All kinds of findings, each with its first few sentences, strength and reason."""
    if not facts.told:
        return words("none_found")
    lines: list[str] = []
    for kind in ORDER:
        told = [item for item in facts.told if item.finding.kind == kind]
        if not told:
            continue
        name = words(f"found.{kind}")
        lines += [f"### {name[0].upper()}{name[1:]}", ""]
        for item in told[:SHOWN]:
            mark = words(f"strength.{item.finding.strength}")
            note = f"*（{mark}）*" if words.lang == "zh" else f" *({mark})*"
            lines.append(f"- {sentence(item, words)}{note}")
        if len(told) > SHOWN:
            lines += ["", words.say(words("more_findings"), {"total": facts.inventory[f"found {kind}"]}, {})]
        lines.append("")
    return "\n".join(lines).strip()


def _advised(facts: Facts) -> list[tuple[str, Told]]:
    """Advice key and finding: every kind once before any kind twice."""
    found: list[tuple[str, Told]] = []
    for told in facts.told:
        finding = told.finding
        key = finding.kind
        if key == "best":
            key = {"strong": "choose", "weak": "tie"}.get(finding.strength, "")
        elif key == "change":
            key = "worse" if finding.words.get("verdict") == "worse" and finding.strength != "weak" else ""
        if key:
            found.append((key, told))
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int, str, Told]] = []
    for place, (key, told) in enumerate(found):
        seen[key] = seen.get(key, 0) + 1
        ranked.append((seen[key], place, key, told))
    return [(key, told) for turn, _, key, told in sorted(ranked, key=lambda item: item[:2]) if turn <= 2]


def _advice(facts: Facts, words: Words) -> str:
    lines = [_say(told, words(f"advice.{key}"), words) for key, told in _advised(facts)[:ADVICE]]
    if facts.inventory["unreadable"].value:
        lines.append(words.say(words("advice.unreadable"), facts.inventory, {}))
    return "\n".join(f"{place}. {line}" for place, line in enumerate(lines or [words("advice.none")], 1))


def _risks(facts: Facts, words: Words) -> str:
    pairs: list[tuple[str, str]] = []
    known = words.node("risks")
    for key, told in [item for item in _advised(facts) if item[0] in known][:RISKS]:
        risk, cure = known[key]
        pairs.append((_say(told, risk, words), _say(told, cure, words)))
    if facts.inventory["unreadable"].value:
        risk, cure = known["unreadable"]
        pairs.append((words.say(risk, facts.inventory, {}), words.say(cure, facts.inventory, {})))
    pairs = pairs or [tuple(known["none"])]
    head = f"| {words('columns.risk')} | {words('columns.mitigation')} |\n|:--|:--|\n"
    return head + "\n".join(f"| {risk} | {cure} |" for risk, cure in pairs)
