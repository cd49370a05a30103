"""Text from an OpenAI-compatible endpoint, by the maintained client library."""

import os
import threading
import time
from typing import Any

from secateur.analysis.insight.config import WriterConfig
from secateur.analysis.insight.prompt import Prompt
from secateur.analysis.insight.streams import Stream, Timings, WriterError, Written, check_end, drain


def from_endpoint(config: WriterConfig, prompt: Prompt) -> Written:
    """Ask the endpoint and read its stream.

    Raises:
        WriterError: It is not there, refuses, stalls, breaks off, or gives no text.
    """
    try:
        import openai
    except ImportError as error:
        raise WriterError("the openai client is not installed: pip install 'secateur[insight]'") from error
    stream = Stream()
    sent: list[float] = []
    key = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
    http = openai.DefaultHttpxClient(
        timeout=openai.Timeout(
            config.first_token_s + config.stall_s, connect=min(10.0, config.first_token_s)
        ),
        event_hooks={"request": [lambda _: sent.append(time.perf_counter())]},
    )
    client = openai.OpenAI(base_url=config.base_url, api_key=key or "none", max_retries=0, http_client=http)
    stream.stop = lambda: threading.Thread(target=http.close, daemon=True).start()
    threading.Thread(target=_ask, args=(client, config, prompt, stream), daemon=True).start()
    pieces: list[str] = []
    times: list[float] = []
    facts: dict[str, Any] = {}

    def take(kind: str, value: Any, at: float) -> bool:
        if kind == "text":
            pieces.append(value)
            times.append(at)
        elif kind == "fact":
            facts.update(value)
        return kind == "end"

    drain(stream, config, take)
    text = "".join(pieces)
    check_end(text, facts)
    usage = facts.get("tokens")
    tokens = int(usage) if usage else len(times)
    span = times[-1] - times[0]
    timings = Timings(
        load_s=None, first_token_s=times[0] - sent[-1], prompt_eval_s=times[0] - sent[-1], eval_s=span,
        total_s=times[-1] - sent[-1], tokens=tokens, prompt_tokens=facts.get("prompt_tokens"),
        tokens_per_s=(tokens - 1) / span if tokens > 1 and span > 0 else None,
        counted="endpoint" if usage else "chunks",
    )  # fmt: skip
    return Written(text, f"{config.model} ({config.base_url})", facts["finish"], len(prompt.lines), timings)


def _ask(client: Any, config: WriterConfig, prompt: Prompt, stream: Stream) -> None:
    """Read the endpoint's stream into events; runs in a thread of its own."""
    try:
        answer = client.chat.completions.create(
            model=config.model, messages=prompt.messages(), stream=True, stream_options={"include_usage": True},
            max_tokens=config.max_tokens, temperature=config.temperature, seed=config.seed,
        )  # fmt: skip
        refusal = ""
        for chunk in answer:
            if chunk.usage is not None:
                counts = {"tokens": chunk.usage.completion_tokens, "prompt_tokens": chunk.usage.prompt_tokens}
                stream.put("fact", counts)
            for choice in chunk.choices[:1]:
                if choice.delta.content:
                    stream.put("text", choice.delta.content)
                refusal += getattr(choice.delta, "refusal", None) or ""
                if choice.finish_reason:
                    stream.put("fact", {"finish": choice.finish_reason, "refusal": refusal})
        stream.put("end", None)
    except Exception as error:  # noqa: BLE001  the client raises its own, httpx's and JSON's errors; all end in the fallback
        cause = error.__cause__
        detail = f" ({cause})" if cause is not None and str(cause) and str(cause) not in str(error) else ""
        message = (str(error).strip() or type(error).__name__).splitlines()[0][:250]
        stream.put("error", f"{type(error).__name__}: {message}{detail}"[:400])
