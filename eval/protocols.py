"""Perplexity protocols by name: which text, which windows, which tokens count. No torch here.

A perplexity without its protocol is not a number, so the name says all of it:
`wikitext2@2048` (text, tokens per window), `wikitext2@2048/512-recount` (overlapping windows, stride 512),
`wikitext:word_perplexity` (lm-eval's task).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from secateur.eval.config import EvalConfig
from secateur.pruning.documents import stem_of
from secateur.pruning.errors import DataError

WORD_PERPLEXITY = "wikitext:word_perplexity"
SPLITS = ("test", "validation", "train", "val", "valid")
_NAME = re.compile(r"^(?P<text>[A-Za-z0-9_.-]+)@(?P<window>[0-9]+)(/(?P<stride>[0-9]+)-recount)?$")


@dataclass(frozen=True)
class Protocol:
    """How one perplexity is measured.

    Attributes:
        name: The full name, as it stands in every result.
        text: Name of the text (a folder below `DIR/text`), or the path of a file of one's own.
        window: Tokens per window.
        stride: Tokens from one window's start to the next; equal to `window` when they do not overlap.
        joined: True for WikiText-2: rows joined by two line breaks and tokenised at once. False: documents
            packed one after the other, each beginning with BOS (or ending with EOS where there is no BOS).
        kind: `windows`, or `words` for lm-eval's word perplexity.
    """

    name: str
    text: str
    window: int
    stride: int
    joined: bool
    kind: Literal["windows", "words"] = "windows"


def protocols(config: EvalConfig) -> tuple[Protocol, ...]:
    """The perplexities that a config asks for, in order.

    Raises:
        DataError: A name that is no protocol.
    """
    if config.ppl.text is not None:
        path = Path(config.ppl.text)
        stem = stem_of(path)
        stem = path.parent.name if stem in SPLITS and path.parent.name else stem
        name = f"{stem}@{config.ppl.window}"
        return (Protocol(name, config.ppl.text, config.ppl.window, config.ppl.window, joined=False),)
    return tuple(dict.fromkeys(parse(name) for name in config.ppl.protocols))


def parse(name: str) -> Protocol:
    """Turn a protocol's name into its definition.

    Raises:
        DataError: The name has another form, or its window is too short to score a token.
    """
    if name == WORD_PERPLEXITY:
        return Protocol(name, "wikitext2", 2048, 2048, joined=False, kind="words")
    match = _NAME.match(name)
    if match is None:
        raise DataError(
            f"eval.ppl.protocols: {name!r} is no perplexity protocol. Allowed: TEXT@WINDOW (wikitext2@2048, "
            f"wikitext2@128, or any folder below text/ of eval.data_dir), TEXT@WINDOW/STRIDE-recount, "
            f"and {WORD_PERPLEXITY}"
        )
    window = int(match["window"])
    stride = int(match["stride"] or window)
    if window < 2 or not 1 <= stride <= window:
        raise DataError(
            f"eval.ppl.protocols: {name!r} needs a window of 2 tokens or more and 1 <= stride <= window"
        )
    text = match["text"]
    return Protocol(name, text, window, stride, joined=text in {"wikitext2", "wikitext2_raw"})
