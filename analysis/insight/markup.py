"""A checked text as Markdown and as HTML: figures linked to their facts or struck out, nothing active let through."""

import html
import re
from collections.abc import Callable

from markdown_it import MarkdownIt

from secateur.analysis.insight.context import CITED
from secateur.analysis.insight.guard import Checked, Verdict

OPEN, MIDDLE, CLOSE = "\ue000", "\ue001", "\ue002"
PRIVATE = re.compile("[\ue000-\ue00f\0]")
MARKED = re.compile(f"{OPEN}(\\d+){MIDDLE}(.*?){CLOSE}", re.S)
FIGURE, CITATION = 1, 2


def _marked(checked: Checked, figure: Callable[[int, str], str], cite: Callable[[list[int]], str]) -> str:
    """The text with each figure and each citation replaced; a citation behind its own figure is left out."""
    pieces: list[str] = []
    at = 0
    for place, verdict in enumerate(checked.verdicts):
        start, end = verdict.figure.start, verdict.figure.end
        pieces.append(_citations(checked.text[at:start], cite))
        pieces.append(figure(place, checked.text[start:end]))
        at = end
        follows = re.match(r"[ *`%)）]*", checked.text[at:])
        behind = CITED.match(checked.text, at + (follows.end() if follows else 0))
        if behind and verdict.claim is not None and re.findall(r"\d+", behind[1]) == [str(verdict.claim.id)]:
            pieces.append(checked.text[at : behind.start()].rstrip(" "))
            at = behind.end()
    pieces.append(_citations(checked.text[at:], cite))
    return "".join(pieces)


def _citations(text: str, cite: Callable[[list[int]], str]) -> str:
    return CITED.sub(lambda match: cite([int(n) for n in re.findall(r"\d+", match[1])]), text)


def clean(text: str) -> str:
    """A foreign text without control characters and our own marks; line ends as one kind."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    plain = PRIVATE.sub("", plain)
    return "".join(char for char in plain if char in "\n\t" or char.isprintable() or char == "\u3000")


def to_markdown(checked: Checked, demote: int = 0) -> str:
    """GitHub Markdown: `0.42[^F7]`, `~~44~~`; raw HTML, images and links are disarmed."""

    def figure(place: int, text: str) -> str:
        verdict = checked.verdicts[place]
        return f"~~{text}~~" if verdict.claim is None else f"{text}[^F{verdict.claim.id}]"

    text = _marked(checked, figure, lambda numbers: "")
    text = text.replace("<", "&lt;").replace("](", "]\\(").replace("![", "!\\[")
    return _demoted(text, demote).strip()


def to_html(checked: Checked, demote: int = 0) -> str:
    """HTML: `<a href="#F7">0.42</a>`, `<del>44</del>`; raw HTML, images and links are disarmed."""

    def figure(place: int, text: str) -> str:
        return f"{OPEN}{place}{MIDDLE}{text}{CLOSE}"

    text = _demoted(_marked(checked, figure, lambda numbers: ""), demote)
    parser = (
        MarkdownIt("commonmark", {"html": False})
        .enable("table")
        .disable(["link", "image", "autolink", "reference"])
    )
    return MARKED.sub(lambda match: _anchor(checked.verdicts[int(match[1])], match[2]), parser.render(text))


def _anchor(verdict: Verdict, text: str) -> str:
    if verdict.claim is None:
        return f'<del class="struck" title="{verdict.reason}">{text}</del>'
    return (
        f'<a class="fact" href="#F{verdict.claim.id}" title="{html.escape(verdict.claim.about)}">{text}</a>'
    )


def _demoted(text: str, by: int) -> str:
    """Headings of a writer's text below ours."""
    return (
        re.sub(r"^(#{1,6})(?=\s)", lambda m: "#" * min(6, len(m[1]) + by), text, flags=re.M) if by else text
    )


def cited(checked: Checked) -> list[int]:
    """Numbers of the facts that a text's figures are linked to, in order."""
    return list(dict.fromkeys(v.claim.id for v in checked.verdicts if v.claim is not None))
