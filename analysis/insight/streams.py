"""Texts from a language model, streamed and timed; whatever goes wrong ends in one `WriterError` with the reason."""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from secateur.analysis.insight.config import WriterConfig

LONGEST = 200_000
"""Characters after which a text is cut off: the endpoint does not keep to its limit."""


class WriterError(Exception):
    """Why no text came; `partial` is how many characters had arrived."""

    def __init__(self, reason: str, partial: int = 0) -> None:
        super().__init__(reason)
        self.partial = partial


@dataclass(frozen=True)
class Timings:
    """Seconds and counts of one text; None where the writer cannot know.

    Attributes:
        first_token_s: From the request (local: from the start of the prompt's evaluation) to the first piece of text.
        prompt_eval_s: The same for an endpoint, where waiting and network are part of it.
        eval_s: From the first to the last token; `tokens_per_s` is over this time.
        counted: Who counted the tokens: `endpoint`, `chunks` (pieces of the stream) or `tokenizer`.
    """

    load_s: float | None
    first_token_s: float
    prompt_eval_s: float
    eval_s: float
    total_s: float
    tokens: int
    prompt_tokens: int | None
    tokens_per_s: float | None
    counted: str


@dataclass(frozen=True)
class Written:
    """A text, who wrote it, and from how many of the facts."""

    text: str
    writer: str
    finish: str
    facts: int
    timings: Timings


@dataclass
class Stream:
    """What arrived so far, and when."""

    events: "queue.Queue[tuple[str, Any, float]]" = field(default_factory=queue.Queue)
    stop: Callable[[], None] = lambda: None

    def put(self, kind: str, value: Any) -> None:
        """Note an event with its time (called by the reading thread)."""
        self.events.put((kind, value, time.perf_counter()))


def drain(stream: Stream, config: WriterConfig, take: Callable[[str, Any, float], bool]) -> None:
    """Hand events to `take` until it returns True; each wait has its limit.

    Raises:
        WriterError: A limit was exceeded, or the stream reported an error.
    """
    began, characters, first = time.perf_counter(), 0, True
    last = began
    try:
        while True:
            now = time.perf_counter()
            limit = config.first_token_s if first else config.stall_s
            wait = min(last + limit, began + config.total_s) - now
            try:
                kind, value, at = stream.events.get(timeout=max(0.0, wait))
            except queue.Empty:
                what = "no first token" if first else "no further token"
                if now - began >= config.total_s - 0.001 or began + config.total_s <= last + limit:
                    raise WriterError(f"not finished after {config.total_s:g} s", characters) from None
                raise WriterError(f"stalled: {what} for {limit:g} s", characters) from None
            if kind == "error":
                raise WriterError(str(value), characters)
            if kind == "text":
                first, last = False, at
                characters += len(value)
            if take(kind, value, at) or characters > LONGEST:
                return
    finally:
        stream.stop()


def check_end(text: str, facts: dict[str, Any]) -> None:
    """Refuse a text that is no answer.

    Raises:
        WriterError: It broke off, was refused, or is empty.
    """
    if facts.get("refusal"):
        raise WriterError(f"refused: {facts['refusal'][:200]}", len(text))
    if facts.get("finish") is None:
        raise WriterError("broke off before the text was finished", len(text))
    if facts["finish"] not in ("stop", "length"):
        raise WriterError(f"ended by {facts['finish']}", len(text))
    if not text.strip():
        raise WriterError("gave no text")
