"""What stands around a figure: its clause, its sentence or table row, the citation behind it, the name before it."""

import re
from dataclasses import dataclass

from secateur.analysis.insight.figures import Figure

SENTENCE = re.compile(r"(?<=[.!?])\s+|[。！？；;\n]")
CLAUSE = re.compile(r"[,，:：—]|\s(?:while|whereas|but|versus|vs\.?|and)\s|而|但|以及")
CITED = re.compile(r"[\[【(（]\s*(F\d+(?:\s*[,，;、]\s*F\d+)*)\s*[\]】)）]", re.I)
KEY = re.compile(r"([A-Za-z_][\w.]*)\s?=\s?$")


@dataclass(frozen=True)
class Around:
    """What stands around a figure, in lower case; `key` is the name before it in `name=figure`."""

    clause: str
    sentence: str
    cited: tuple[int, ...]
    key: str = ""


def around_of(text: str, figure: Figure, following: int) -> Around:
    """Clause, sentence (in a table: the row with its header) and the citation behind a figure."""
    start, end = _bounds(text, figure, SENTENCE)
    line = text[text.rfind("\n", 0, figure.start) + 1 : figure.start].lstrip()
    sentence = text[start:end]
    clause_start, clause_end = _bounds(text, figure, CLAUSE)
    clause = text[max(start, clause_start) : min(end, clause_end)]
    if line.startswith("|"):
        sentence = clause = f"{_table_head(text, figure.start)}\n{_line(text, figure.start)}"
    cited = CITED.match(text[figure.end :].lstrip(" *`%)）"))
    place = text.find(cited[0], figure.end) if cited else -1
    numbers = re.findall(r"\d+", cited[1]) if cited and place <= following else []
    key = KEY.search(text, max(0, figure.start - 60), figure.start)
    return Around(clause.lower(), sentence.lower(), tuple(map(int, numbers)), key[1].lower() if key else "")


def _bounds(text: str, figure: Figure, border: re.Pattern[str]) -> tuple[int, int]:
    start = max((match.end() for match in border.finditer(text, 0, figure.start)), default=0)
    found = border.search(text, figure.end)
    return start, found.start() if found else len(text)


def _line(text: str, at: int) -> str:
    end = text.find("\n", at)
    return text[text.rfind("\n", 0, at) + 1 : end if end >= 0 else len(text)]


def _table_head(text: str, at: int) -> str:
    """The first line of the table that a position is in."""
    head = ""
    for line in reversed(text[: text.rfind("\n", 0, at) + 1].splitlines()):
        if not line.lstrip().startswith("|"):
            break
        head = line
    return head
