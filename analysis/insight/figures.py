"""Figures in a text: every number that claims something, with its unit and the precision to which it is printed."""

import re
from dataclasses import dataclass, replace

from secateur.analysis.insight.numerals import numerals
from secateur.analysis.insight.units import UNITS, Unit

WORD_VALUES = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        ]
    )
}
COUNTED = (
    r"files?|runs?|models?|methods?|rows?|measurements?|outliers?|cells?|findings?|contradictions?|data\s?sets?|tasks?|"
    r"records?|types?|formats?|experiments?|settings?|configurations?|combinations?|tables?|facts?|changes?|factors?"
)
MULTIPLIERS = {
    "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "bn": 1e9, "billion": 1e9, "trillion": 1e12,
    "百": 1e2, "千": 1e3, "万": 1e4, "百万": 1e6, "千万": 1e7, "亿": 1e8, "万亿": 1e12,
}  # fmt: skip
_UNIT = "|".join(sorted((re.escape(word) for word in UNITS if word != "b"), key=len, reverse=True))
NUMBER = re.compile(
    r"(?P<sign>(?<![A-Za-z\d_)\]])[-+−])?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?P<decimals>\.\d+)?(?P<exponent>[eE][-+−]?\d+|\s?[×x*]\s?10\^?\{?[-−]?\d+\}?)?"
    r"(?:\s?(?P<multiplier>trillion|billion|million|thousand|万亿|百万|千万|万|亿|千|百|(?:bn|k|K|M|B)(?![A-Za-z/])))?"
    rf"(?:\s?-?(?P<unit>{_UNIT})(?![A-Za-z\d]))?",
    re.IGNORECASE,
)
APPROXIMATE = re.compile(
    r"(?:about|around|roughly|approximately|some|nearly|almost|~|≈|约|大约|近|接近|左右)\s*$", re.I
)
BOUND = re.compile(
    r"(?:(?P<low><|less than|below|under|at most|≤|不到|低于|小于|不超过)|"
    r"(?P<high>>|more than|over|above|at least|≥|超过|高于|大于|至少))\s*$",
    re.I,
)
MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t|tember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)"
)
YEAR, DAY = r"(?:199\d|20[0-3]\d)", r"\d{1,2}(?:st|nd|rd|th)?"
MASKS = (
    re.compile(r"[\[【(（]\s*F\d+(?:\s*[,，;、]\s*F\d+)*\s*[\]】)）]"),
    re.compile(r"https?://\S+"),
    re.compile(rf"\b{YEAR}[-/](?:0?[1-9]|1[0-2])(?:[-/](?:0?[1-9]|[12]\d|3[01]))?(?:[T ]\d\d:\d\d(?::\d\d)?Z?)?(?!\d)"),
    re.compile(r"(?:\d{4}\s*年\s*)?\d{1,2}\s*月(?:\s*\d{1,2}\s*[日号])?|(?:19|20)\d\d\s*年"),
    re.compile(rf"\b(?:{DAY}\s+{MONTH}|{MONTH}\s+{DAY})(?:,?\s+{YEAR})?\b|\b{MONTH},?\s+{YEAR}\b"),
    re.compile(r"\b\d{1,2}:\d\d(?::\d\d)?\b"),
    re.compile(rf"\b{YEAR}\s*(?:-|–|to|and|至|到)\s*{YEAR}\b(?![.,]?\d)"),
    re.compile(rf"\b(?:in|since|until)\s+{YEAR}\b(?![.,]?\d|\s?(?:%|[a-z]+/s))", re.I),
    re.compile(r"\b\d+(?:st|nd|rd|th)\b|第\s*[\d一二三四五六七八九十]+"),
    re.compile(r"^[ \t]*(?:#{1,6}[ \t]*)?(?:[-*+][ \t]+)?(?:\*\*)?\d{1,2}(?:\.\d)?[.)、:：](?=[\s*]|[^\d\s])", re.M),
    re.compile(r"\b(?:section|step|table|figure|recommendation|finding|item|phase|appendix|fact)\s*#?\d{1,2}\b", re.I),
    re.compile(r"#\d{1,2}\b"),
)  # fmt: skip
NAME = re.compile(
    r"(?<![\w.])(?:[A-Za-z_]+[-_]?\d[A-Za-z\d]*(?:[-_.][A-Za-z\d]+)*|"
    r"[A-Za-z]+(?:-[A-Za-z]+)*-\d+(?:\.\d+)?[A-Za-z]?(?:-[A-Za-z\d]+)*)"
)
NOT_NAMES = re.compile(
    r"^(?:acc|accuracy|ppl|perplexity|ttft|latency|throughput|time|speed|loss|memory|files?|runs?|models?|"
    r"by|from|to|of|is|at|and|was|about|over|than|for|with|in|the|a|only|just|up|p|n)[-_]?\d",
    re.I,
)
WORDED = re.compile(rf"\b({'|'.join(list(WORD_VALUES)[1:])})\s+(?:[a-z-]+\s+)?(?:{COUNTED}|percent)\b", re.I)


@dataclass(frozen=True)
class Figure:
    """One figure of a text.

    Attributes:
        value: In its own unit; signed when a sign is printed.
        step: What one unit of its last printed digit is worth: a fact matches when it rounds to the figure.
        bound: `<` or `>` when the text gives a limit.
    """

    start: int
    end: int
    text: str
    value: float
    unit: Unit | None
    step: float
    signed: bool = False
    bound: str = ""


def plain_digits(text: str) -> str:
    """The text with digits of every script as 0-9 and full-width signs as plain ones; its length stays."""
    table = {"．": ".", "％": "%", "＋": "+", "－": "-", "，": "，"}
    changed = [str(int(c)) if c.isdecimal() and not c.isascii() else table.get(c, c) for c in text]
    return "".join(changed)


def find_figures(text: str, names: frozenset[str]) -> list[Figure]:
    """Every figure of a text, in order; dates, ordinals, list numbers and names are none."""
    text = plain_digits(text)
    hidden = mask(text, names)
    found: list[Figure] = []
    for match in NUMBER.finditer(hidden):
        if (
            match.start()
            and re.match(r"[A-Za-z_]", hidden[match.start() - 1])
            and not _worded_before(hidden, match.start())
        ):
            continue
        found.append(_figure(text, match))
    found += [_worded(text, match) for match in WORDED.finditer(hidden)]
    for item in numerals(hidden):
        piece = text[item.start : item.end]
        found.append(Figure(item.start, item.end, piece, item.value, UNITS.get(item.unit), item.step))
    found = _without_overlaps(found)
    return _ranges(text, found)


def mask(text: str, names: frozenset[str]) -> str:
    """The text with everything that holds digits and claims nothing blanked out; positions stay."""
    hidden = text
    for pattern in MASKS:
        hidden = pattern.sub(_blank, hidden)
    lower = hidden.lower()
    for name in sorted(
        (n for n in names if any(c.isdigit() for c in n) and n in lower), key=len, reverse=True
    ):
        pattern = re.compile(rf"(?<![A-Za-z\d.]){re.escape(name)}(?![A-Za-z\d]|\.\d)", re.I)
        hidden = pattern.sub(_blank, hidden)
    return NAME.sub(lambda match: match[0] if NOT_NAMES.match(match[0]) else _blank(match), hidden)


def _blank(match: re.Match[str]) -> str:
    return "".join("\n" if char == "\n" else "\0" for char in match[0])


def _worded_before(hidden: str, start: int) -> bool:
    """Whether the letters before a digit are a word and not part of a name (`acc0.44`), or the sign of `16x128`."""
    if re.search(r"\d[xX]$", hidden[max(0, start - 2) : start]):
        return True
    return bool(NOT_NAMES.match(re.sub(r".*?([A-Za-z_]+)$", r"\1", hidden[max(0, start - 20) : start]) + "0"))


def _figure(text: str, match: re.Match[str]) -> Figure:
    digits, decimals = match["digits"].replace(",", ""), match["decimals"] or ""
    value = float(digits + decimals)
    step = 10.0 ** -max(0, len(decimals) - 1)
    before = text[max(0, match.start() - 16) : match.start()]
    if APPROXIMATE.search(before) and not decimals and value:
        step = 10.0 ** (len(digits) - len(digits.rstrip("0")))
    if match["exponent"]:
        power = int(re.sub(r".*?([-−]?\d+)\}?$", r"\1", match["exponent"]).replace("−", "-"))
        value, step = _scaled(value, step, power)
    if match["multiplier"]:
        factor = MULTIPLIERS[match["multiplier"].lower()]
        value, step = value * factor, step * factor
    signed = match["sign"] is not None
    if signed and match["sign"] != "+":
        value = -value
    bound = BOUND.search(before)
    limit = "" if bound is None else "<" if bound["low"] else ">"
    unit = UNITS[match["unit"].lower()] if match["unit"] else None
    if unit is None and before.endswith("百分之"):
        unit = UNITS["%"]
    end = match.end()
    while end > match.start() and text[end - 1].isspace():
        end -= 1
    return Figure(match.start(), end, text[match.start() : end], value, unit, step, signed, limit)


def _scaled(value: float, step: float, power: int) -> tuple[float, float]:
    power = max(-300, min(300, power))
    return value * 10.0**power, step * 10.0**power


def _worded(text: str, match: re.Match[str]) -> Figure:
    unit = UNITS["%"] if match[0].lower().endswith("percent") else None
    end = match.end() if unit is not None else match.end(1)
    return Figure(
        match.start(), end, text[match.start() : end], float(WORD_VALUES[match[1].lower()]), unit, 1.0
    )


def _without_overlaps(figures: list[Figure]) -> list[Figure]:
    """Of overlapping figures the longer one."""
    kept: list[Figure] = []
    for figure in sorted(figures, key=lambda item: (item.start - item.end, item.start)):
        if all(figure.end <= other.start or figure.start >= other.end for other in kept):
            kept.append(figure)
    return sorted(kept, key=lambda item: item.start)


def _ranges(text: str, figures: list[Figure]) -> list[Figure]:
    """`12-15 ms`: the first figure has the unit of the second."""
    for place in range(len(figures) - 1):
        one, two = figures[place], figures[place + 1]
        between = text[one.end : two.start].strip()
        if one.unit is None and two.unit is not None and between in ("-", "–", "—", "~", "to", "至", "到"):
            figures[place] = replace(one, unit=two.unit)
    return figures
