"""Text from a local Transformers model, in a process of its own: this package never imports torch."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import secateur
from secateur.analysis.insight.config import WriterConfig
from secateur.analysis.insight.prompt import Prompt
from secateur.analysis.insight.streams import Stream, Timings, WriterError, Written, check_end, drain


def from_folder(config: WriterConfig, prompt: Prompt) -> Written:
    """Run `python -m secateur.eval.writer`: this package never imports torch."""
    stream = Stream()
    root = str(Path(secateur.__file__).resolve().parents[1])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))}
    request = {
        "path": str(Path(str(config.path)).resolve()), "head": prompt.system, "lines": list(prompt.lines),
        "tail": prompt.task,
        "max_tokens": config.max_tokens, "temperature": config.temperature, "seed": config.seed,
    }  # fmt: skip
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "secateur.eval.writer"], env=env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        stream.stop = process.kill
        threading.Thread(target=_feed, args=(process, json.dumps(request), stream), daemon=True).start()
        pieces: list[str] = []
        facts: dict[str, Any] = {}

        def take(kind: str, value: Any, at: float) -> bool:
            if kind == "text":
                pieces.append(value)
                facts.setdefault("first", at)
            elif kind == "fact":
                facts.update(value)
            return kind == "end"

        try:
            drain(stream, config, take)
        finally:
            process.wait()
    text = "".join(pieces)
    if facts.get("event") == "error":
        raise WriterError(facts["message"], len(text))
    check_end(text, facts)
    speed = (facts["tokens"] - 1) / facts["eval_s"] if facts["tokens"] > 1 and facts["eval_s"] > 0 else None
    timings = Timings(
        load_s=facts["load_s"], first_token_s=facts["prompt_eval_s"], prompt_eval_s=facts["prompt_eval_s"],
        eval_s=facts["eval_s"], total_s=time.perf_counter() - began, tokens=facts["tokens"],
        prompt_tokens=facts["prompt_tokens"], tokens_per_s=speed, counted="tokenizer",
    )  # fmt: skip
    return Written(text, Path(str(config.path)).name, facts["finish"], facts["lines"], timings)


def _feed(process: "subprocess.Popen[bytes]", request: str, stream: Stream) -> None:
    """Send the request and turn the lines of the answer into events."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request.encode())
        process.stdin.close()
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "text":
                stream.put("text", event["text"])
            elif event["event"] == "prompt":
                stream.put("fact", {"prompt_tokens": event["tokens"], "lines": event["lines"]})
            else:
                stream.put("fact", event)
        code = process.wait()
        stream.put("end" if code in (0, 1) else "error", f"secateur.eval.writer ended with exit code {code}")
    except (OSError, ValueError, KeyError) as error:
        stream.put("error", f"secateur.eval.writer: {error}")
