"""The guard: every figure of a text is matched to a numbered fact, or struck out.

A figure passes when a fact rounds to it at its printed precision, in its unit, and the text speaks of that fact:

1. With a citation behind it (`0.44 [F12]`) only the cited facts count; they must not be of a metric that the sentence
   does not name while it names another.
2. `name=figure` matches values of that column only. Otherwise, without a citation, the sentence must name the fact's
   metric (or what is counted), and where its clause (else the sentence) names models, methods or files, one of the
   fact's own. A sentence that names none of them passes only with counts, or with three significant digits or more.
3. A change must have the direction that the words around it say.

Rounding may hide 15 % of a fact at most: 1 is not 0.61. A number without a unit matches a fact in the fact's own unit;
`%` matches shares and percentages only.
"""

import math
import random
import re
from dataclasses import dataclass, replace
from typing import Literal

from secateur.analysis.insight.claims import Claim, Facts
from secateur.analysis.insight.context import Around, around_of
from secateur.analysis.insight.figures import Figure, find_figures, plain_digits

Reason = Literal["", "unknown", "context", "cited", "direction"]
COARSEST = 0.15
DECOYS = 4
UP = re.compile(
    r"\b(?:rose|rises?|increas\w*|grew|grow\w*|higher|up|gain\w*|climb\w*)\b|上升|增加|提高|增长|升高|上涨",
    re.I,
)
DOWN = re.compile(
    r"\b(?:fell|falls?|drop\w*|decreas\w*|declin\w*|lower|down|reduc\w*|shrank)\b|下降|降低|减少|减小|下跌",
    re.I,
)


@dataclass(frozen=True)
class Verdict:
    """One figure and what became of it.

    Attributes:
        claim: The fact it is linked to; None when it is struck out.
        reason: Why it is struck out: `unknown` (no fact has the value), `context` (a fact has it, but the sentence
            speaks of something else), `cited` (the cited fact says otherwise), `direction`.
        nearest: The closest fact that the sentence may have meant.
    """

    figure: Figure
    claim: Claim | None
    reason: Reason
    sentence: str
    nearest: Claim | None = None


@dataclass(frozen=True)
class Checked:
    """A text with a verdict on each of its figures."""

    text: str
    verdicts: tuple[Verdict, ...]

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The figures that are struck out."""
        return tuple(verdict for verdict in self.verdicts if verdict.claim is None)


def check(text: str, facts: Facts, given: int | None = None) -> Checked:
    """Judge every figure of a text against the first `given` facts (default: all)."""
    claims = facts.claims[:given]
    by_id = {claim.id: claim for claim in claims}
    subjects = frozenset(name for claim in claims for name in claim.names)
    plain = plain_digits(text)
    figures = find_figures(text, facts.names)
    verdicts = [
        _judge(figure, around_of(plain, figure, figures[place + 1].start if place + 1 < len(figures) else len(plain)),
               claims, by_id, subjects)
        for place, figure in enumerate(figures)
    ]  # fmt: skip
    return Checked(text, tuple(verdicts))


def chance(checked: Checked, facts: Facts, given: int | None = None) -> tuple[int, int]:
    """How many figures would still pass if each were altered by up to 30 %: (passed, tried). Seeded.

    It says how much the guard is worth for this text: many facts of similar value let more errors through.
    """
    claims = facts.claims[:given]
    by_id = {claim.id: claim for claim in claims}
    subjects = frozenset(name for claim in claims for name in claim.names)
    plain = plain_digits(checked.text)
    source = random.Random(0)
    passed = tried = 0
    for place, verdict in enumerate(checked.verdicts):
        figure = verdict.figure
        following = (
            checked.verdicts[place + 1].figure.start if place + 1 < len(checked.verdicts) else len(plain)
        )
        around = around_of(plain, figure, following)
        for _ in range(DECOYS):
            steps = (
                round(figure.value * source.uniform(0.05, 0.3) * source.choice((-1, 1)) / figure.step) or 1
            )
            other = replace(figure, value=figure.value + steps * figure.step)
            tried += 1
            passed += _judge(other, around, claims, by_id, subjects).claim is not None
    return passed, tried


def _judge(
    figure: Figure,
    around: Around,
    claims: tuple[Claim, ...],
    by_id: dict[int, Claim],
    subjects: frozenset[str],
) -> Verdict:
    if around.cited:
        cited = [by_id[number] for number in around.cited if number in by_id]
        agreeing = [claim for claim in cited if agrees(figure, claim) or _within(figure, claim)]
        spoken = [claim for claim in agreeing if not _of_another(claim, around, claims)]
        return _verdict(figure, around, agreeing, spoken, cited, "cited")
    if around.key:
        claims = tuple(claim for claim in claims if around.key in claim.words)
    agreeing = [claim for claim in claims if agrees(figure, claim)]
    spoken = [claim for claim in agreeing if _speaks_of(figure, claim, around, subjects)]
    near = [claim for claim in claims if _named(claim.words, around.sentence)]
    return _verdict(figure, around, agreeing, spoken, near, "unknown")


def _verdict(
    figure: Figure,
    around: Around,
    agreeing: list[Claim],
    spoken: list[Claim],
    near: list[Claim],
    unknown: Reason,
) -> Verdict:
    straight = [claim for claim in spoken if _direction(figure, claim, around)]
    nearest = min(near, key=lambda claim: abs(claim.value - figure.value), default=None)
    if straight:  # of several facts with the value the one whose subject stands nearest
        best = max(straight, key=lambda claim: sum(name in around.clause for name in claim.names))
        return Verdict(figure, best, "", around.sentence)
    reason: Reason = "direction" if spoken else "context" if agreeing else unknown
    return Verdict(figure, None, reason, around.sentence, nearest)


def agrees(figure: Figure, claim: Claim) -> bool:
    """Whether a fact rounds to a figure, at the figure's printed precision and in its unit."""
    factor = _factor(figure, claim)
    if factor is None:
        return False
    value = claim.value * factor
    if claim.signed and not figure.signed:
        value = abs(value)
    off = abs(value - figure.value)
    if off <= 1e-12 * abs(value):
        return True
    return off <= 0.5 * figure.step * (1 + 1e-9) and 0.5 * figure.step <= COARSEST * abs(value)


def _factor(figure: Figure, claim: Claim) -> float | None:
    """What the fact's value is multiplied with to stand in the figure's unit; None when it cannot."""
    if figure.unit is None:
        return None if claim.unit is not None and claim.unit.name == "%" else 1.0
    if claim.unit is None:
        return None
    if claim.unit.measures != figure.unit.measures:
        return None
    return claim.unit.factor / figure.unit.factor


def _within(figure: Figure, claim: Claim) -> bool:
    """Whether a cited fact keeps to the limit that the figure states: `p < 0.01 [F7]`."""
    factor = _factor(figure, claim)
    if not figure.bound or factor is None:
        return False
    value = claim.value * factor
    return value < figure.value if figure.bound == "<" else value > figure.value


def _speaks_of(figure: Figure, claim: Claim, around: Around, subjects: frozenset[str]) -> bool:
    """Rule 2: the sentence names the metric, and the thing it was measured on."""
    if not _named(claim.words, around.sentence):
        return False
    for scope in (around.clause, around.sentence):
        present = {name for name in subjects if _named((name,), scope)}
        if present:
            return not claim.names or bool(present & set(claim.names))
    return not claim.names or claim.how == "count" or _significant(figure) >= 3


def _of_another(claim: Claim, around: Around, claims: tuple[Claim, ...]) -> bool:
    """Whether a sentence names other metrics and not the cited fact's own."""
    if _named(claim.words, around.sentence):
        return False
    return any(_named(other.words, around.sentence) for other in claims if other.how != "count")


def _direction(figure: Figure, claim: Claim, around: Around) -> bool:
    """Rule 3: words of rising with a rise, words of falling with a fall; both or neither say nothing."""
    if not claim.signed or figure.signed:
        return True
    up, down = bool(UP.search(around.clause)), bool(DOWN.search(around.clause))
    if up == down:
        up, down = bool(UP.search(around.sentence)), bool(DOWN.search(around.sentence))
    return up == down or up == (claim.value > 0)


def _named(words: tuple[str, ...], text: str) -> bool:
    """Whether a text (in lower case) has one of the words: as a whole word where it is Latin."""
    for word in words:
        at = text.find(word) if word else -1
        while at >= 0:
            before, after = text[at - 1 : at], text[at + len(word) : at + len(word) + 1]
            if not _joins(word[0], before) and not _joins(word[-1], after):
                return True
            at = text.find(word, at + 1)
    return False


def _joins(edge: str, char: str) -> bool:
    return edge.isascii() and char.isascii() and edge.isalnum() and (char.isalnum() or char == "_")


def _significant(figure: Figure) -> int:
    if figure.value == 0:
        return 1
    return math.floor(math.log10(abs(figure.value)) + 1e-9) - math.floor(math.log10(figure.step) + 1e-9) + 1
