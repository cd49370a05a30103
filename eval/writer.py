"""A local Transformers model as a writer: a JSON request on standard input, events as JSON lines on standard output.

`python -m secateur.eval.writer` reads {path, head, lines, tail, max_tokens, temperature, seed, device}
and writes, in order:
{"event": "loaded", "load_s"}, {"event": "prompt", "tokens", "lines", "context"}, {"event": "text", "text"} ...,
{"event": "done", "finish", "tokens", "prompt_eval_s", "eval_s"}; or {"event": "error", "message"} and exit code 1.
`lines` are dropped from the end until the prompt fits into the model's context. Nothing is fetched.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SHARE = 3
"""At most one part in so many of the context is kept for the answer."""


def main() -> int:
    """Answer one request; returns the exit code."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to standard error

    def send(event: str, **facts: Any) -> None:
        out.write(json.dumps({"event": event, **facts}, ensure_ascii=False, allow_nan=False) + "\n")
        out.flush()

    from secateur.pruning.errors import SecateurError

    try:
        _answer(json.load(sys.stdin), send)
    except (SecateurError, OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        send("error", message=(str(error).strip() or type(error).__name__).splitlines()[0][:300])
        return 1
    return 0


def _answer(request: dict[str, Any], send: Any) -> None:
    began = time.perf_counter()
    import torch

    model, tokenizer = _load(request["path"], request.get("device", "auto"))
    send("loaded", load_s=time.perf_counter() - began)
    context = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
    budget = min(int(request["max_tokens"]), max(1, context // SHARE))
    ids, lines = _prompt(tokenizer, request, context - budget)
    send("prompt", tokens=len(ids), lines=lines, context=context)
    torch.manual_seed(int(request.get("seed", 0)))
    temperature = float(request.get("temperature", 0))
    sampling: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling["temperature"] = temperature
    streamer = _streamer(tokenizer, send)
    started = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            torch.tensor([ids], device=model.device), streamer=streamer, max_new_tokens=budget,
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=model.device),
            pad_token_id=tokenizer.eos_token_id, **sampling,
        )  # fmt: skip
    first, last = streamer.times[0], streamer.times[-1]
    send(
        "done",
        finish="length" if len(streamer.times) >= budget else "stop",
        tokens=len(streamer.times),
        prompt_eval_s=first - started,
        eval_s=last - first,
    )


def _load(path: str, device: str) -> tuple[Any, Any]:
    """Model and tokenizer of a folder; pruned checkpoints with our own code, no code of the folder, no pickle."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from secateur.pruning.errors import ModelError
    from secateur.pruning.models.loading import load_pruned, resolve_device

    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ModelError(f"writer.path={path}: holds no config.json; give the folder of a Transformers model")
    settings = AutoConfig.from_pretrained(folder)
    if getattr(settings, "secateur_layers", None) is not None:
        model: Any = load_pruned(folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
    model.to(resolve_device(device)).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def _prompt(tokenizer: Any, request: dict[str, Any], room: int) -> tuple[list[int], int]:
    """Token ids of the prompt, and how many of the lines it holds: as many as there is room for."""
    lines = list(request["lines"])
    low, high = 0, len(lines)
    while low < high:  # the largest number of lines that fits
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if len(_ids(tokenizer, request, lines[:middle])) <= room else (low, middle - 1)
        )
    return _ids(tokenizer, request, lines[:low])[-room:], low


def _ids(tokenizer: Any, request: dict[str, Any], lines: list[str]) -> list[int]:
    user = "\n".join([*lines, "", request["tail"]])
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "system", "content": request["head"]}, {"role": "user", "content": user}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(f"{request['head']}\n{user}\n")["input_ids"])


def _streamer(tokenizer: Any, send: Any) -> Any:
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        """Sends text as soon as it is certain, and notes when each token came."""

        def __init__(self) -> None:
            super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
            self.times: list[float] = []
            self._prompt_seen = False

        def put(self, value: Any) -> None:
            """Take the prompt (first call) or one token."""
            if self._prompt_seen:
                self.times.append(time.perf_counter())
            self._prompt_seen = True
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            """Send a piece of text."""
            if text:
                send("text", text=text)

    return Streamer()


if __name__ == "__main__":
    sys.exit(main())
