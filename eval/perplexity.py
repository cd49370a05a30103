"""Perplexity by named protocols: exp of the mean negative log-likelihood per scored token, in nats.

- `wikitext2@W` (GPTQ, Frantar et al. 2022; SparseGPT; Wanda; LLM-Pruner with W=128): rows joined by two line
  breaks, tokenised once with the tokenizer's default special tokens, non-overlapping windows, tail dropped,
  the first token of each window not scored.
- `wikitext2@W/S-recount`: windows start every S tokens, every one counts fully, exp of the mean of window
  losses; the last window is the first that reaches the end of the text. Most tokens count W/S times.
- `<text>@W`: documents packed, each beginning with BOS (without BOS: ending with EOS), windows as above.

Losses are float32 sums of log-softmax rows; the head runs in chunks, so [T, V] never exists whole.
N windows, W tokens per window, D hidden, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from secateur.eval.backbone import Backbone, NotSeparable, context_length, take_apart
from secateur.eval.config import EvalConfig
from secateur.eval.data import HUB_TEXTS, protocol_file
from secateur.eval.parallel import add_up, world
from secateur.eval.protocols import Protocol, protocols
from secateur.eval.record import Metric
from secateur.pruning.documents import document_tokens, read_texts, single_breaks
from secateur.pruning.errors import DataError
from secateur.pruning.health import sick_weights
from secateur.pruning.progress import Bar

CPU_TOKENS, DEVICE_TOKENS = 1024, 8192
LONG_TOKEN = 64
"""Characters that surely are more than a token, on average."""
SMALL_CONTEXT = 256
"""Context of the shipped models: one that reads no more may be one of them, or cut from one."""


@dataclass(frozen=True)
class Windows:
    """Token windows of one text.

    Attributes:
        ids: [N, W] int64.
        tail: A last, shorter window of a recount protocol, or None.
    """

    ids: torch.Tensor
    tail: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return self.ids.numel() + (0 if self.tail is None else self.tail.numel())


def texts_of(config: EvalConfig, protocol: Protocol) -> list[str]:
    """The documents that a protocol reads.

    Raises:
        DataError: The text is missing or damaged, or the hub cannot be reached.
    """
    path = protocol_file(config, protocol)
    if path is not None:
        texts = read_texts(
            path, config.ppl.field if config.ppl.text is not None else "text", "eval.ppl.field"
        )
    else:
        import datasets

        name, subset, split, data_files = HUB_TEXTS[protocol.text]
        try:
            texts = list(datasets.load_dataset(name, subset, data_files=data_files, split=split)["text"])
        except (ConnectionError, OSError, ValueError) as error:
            raise DataError(
                f"the text {protocol.text!r} cannot be loaded from the hub ({error}). Without internet give "
                f"eval.data_dir=DIR; `secateur fetch data_dir=DIR` fills it on a machine with internet"
            ) from error
    if config.ppl.blank_lines == "single" and not protocol.joined:
        texts = [single_breaks(text) for text in texts]
    return texts


def tokenize(texts: list[str], tokenizer: Any, protocol: Protocol) -> np.ndarray:
    """Token ids [T] of a protocol's text."""
    if protocol.joined:
        return np.asarray(tokenizer("\n\n".join(texts), verbose=False)["input_ids"], dtype=np.int64)
    return np.fromiter(chain.from_iterable(document_tokens(texts, tokenizer)), dtype=np.int64)


def cut(ids: np.ndarray, protocol: Protocol, max_tokens: int | None) -> Windows:
    """Cut token ids [T] into the windows of a protocol.

    Raises:
        DataError: There is not one full window.
    """
    if max_tokens is not None:
        ids = ids[:max_tokens]
    if len(ids) < protocol.window:
        raise DataError(
            f"{protocol.name}: the text has {len(ids)} tokens, fewer than one window of {protocol.window}. "
            f"Give a longer text or a smaller window"
        )
    last = len(ids) - protocol.window
    starts = range(0, last + 1, protocol.stride)
    windows = np.stack([ids[s : s + protocol.window] for s in starts])
    tail = None
    if protocol.stride < protocol.window and starts[-1] != last:
        tail = torch.from_numpy(ids[starts[-1] + protocol.stride :].copy())[None]
    return Windows(torch.from_numpy(windows), tail)


def perplexity(
    model: Any, tokenizer: Any, config: EvalConfig, protocol: Protocol, *, progress: bool = False
) -> tuple[Metric, int]:
    """Measure one perplexity.

    Returns:
        The metric (standard error by the delta method over windows) and the number of forward tokens.

    Raises:
        DataError: The text is missing or too short, or a window exceeds the model's context.
    """
    check_windows(model, tokenizer, config, [protocol])
    windows = cut(tokenize(texts_of(config, protocol), tokenizer, protocol), protocol, config.ppl.max_tokens)
    losses = window_losses(model, windows.ids, progress=progress, label=protocol.name)
    means = losses / (windows.ids.shape[1] - 1)
    scored = windows.ids.shape[0] * (windows.ids.shape[1] - 1)
    if windows.tail is not None and windows.tail.shape[1] > 1:
        extra = window_losses(model, windows.tail, progress=False, label=protocol.name)
        means = np.append(means, extra / (windows.tail.shape[1] - 1))
        scored += windows.tail.shape[1] - 1
    return metric_of(means, scored, model), windows.tokens


def check_windows(
    model: Any, tokenizer: Any, config: EvalConfig, of: Sequence[Protocol] | None = None
) -> None:
    """Refuse windows (of some protocols, or of all) that a model cannot read; its weights need not be there.

    Raises:
        DataError: A window exceeds the model's context.
    """
    limit = context_length(model, tokenizer, 2**31)
    for protocol in protocols(config) if of is None else of:
        if protocol.kind == "windows" and protocol.window > limit:
            own = config.ppl.text is not None
            key = f"eval.ppl.window={limit}" if own else f"eval.ppl.protocols=[{protocol.text}@{limit}]"
            small = limit <= SMALL_CONTEXT and config.data_dir is None and not own
            bench = (
                " (a shipped model: eval.data_dir=bundled eval.ppl.protocols=[world@128])" if small else ""
            )
            raise DataError(
                f"{protocol.name}: a window of {protocol.window} tokens exceeds the model's context of {limit}. "
                f"Choose {limit} or less, for example {key}{bench}"
            )


def check_texts(tokenizer: Any, config: EvalConfig) -> None:
    """Refuse local texts that cannot be read, or are shorter than one window, before anything is measured.

    Raises:
        DataError: As `texts_of` and `cut` do.
    """
    for protocol in protocols(config):
        if protocol_file(config, protocol) is None:
            continue
        texts = texts_of(config, protocol)
        if protocol.kind != "windows":
            continue
        start, left = list[str](), LONG_TOKEN * protocol.window
        for text in texts:
            start.append(text[:left])
            left -= len(start[-1])
            if left <= 0:
                break
        short = len(tokenize(start, tokenizer, protocol)) < protocol.window
        if short or (config.ppl.max_tokens or protocol.window) < protocol.window:
            cut(tokenize(texts, tokenizer, protocol), protocol, config.ppl.max_tokens)


def metric_of(means: np.ndarray, scored: int, model: Any = None) -> Metric:
    """The metric of window losses [N] (nats per token); null with a note when it is not finite.

    The note names the weight of `model` that is not finite either.
    """
    bad = int((~np.isfinite(means)).sum())
    mean = float(means.mean())
    if bad or mean > math.log(np.finfo(np.float64).max):
        why = (
            f"the loss of {bad} of {len(means)} windows is NaN or infinite"
            if bad
            else f"exp({mean:.1f}) overflows"
        )
        sick = "" if model is None else sick_weights(model)
        why += f"; {sick}" if sick else ""
        return Metric(
            value=None, n=scored, unit="perplexity", higher_is_better=False, note=f"not finite: {why}"
        )
    value = math.exp(mean)
    error = value * float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else None
    return Metric(value=value, stderr=error, n=scored, unit="perplexity", higher_is_better=False)


@torch.inference_mode()
def window_losses(
    model: Any, ids: torch.Tensor, *, progress: bool = False, label: str = "", batch_tokens: int | None = None
) -> np.ndarray:
    """Sum of the negative log-likelihoods of tokens 2..W of each window [N] (nats, float64)."""
    try:
        backbone: Backbone | None = take_apart(model)
    except NotSeparable:
        backbone = None
    device = model.device if backbone is None else backbone.device
    if batch_tokens is None:
        batch_tokens = CPU_TOKENS if device.type == "cpu" else DEVICE_TOKENS
    size, here = max(1, batch_tokens // ids.shape[1]), world()
    losses = np.zeros(len(ids), dtype=np.float64)
    start = 0
    batches = range(0, len(ids), size * here.size)
    with Bar(label, len(ids), show=progress and here.main) as bar:
        for first in batches:
            start = first + here.rank * size
            batch = ids[start : start + size].to(device)
            if len(batch):
                losses[start : start + len(batch)] = _batch_losses(model, backbone, batch)
            bar.advance(min(size * here.size, len(ids) - first))
    return add_up(losses)


def _batch_losses(model: Any, backbone: Backbone | None, batch: torch.Tensor) -> np.ndarray:
    """Loss sums [B] of a batch of windows [B, W]; without a backbone from the whole model's logits."""
    inputs, targets = batch[:, :-1], batch[:, 1:]
    if backbone is None:
        logits = model(input_ids=inputs, use_cache=False).logits
        nll = torch.stack(
            [
                F.cross_entropy(row.float(), target, reduction="none")
                for row, target in zip(logits, targets, strict=True)
            ]
        )
        return nll.double().sum(dim=1).cpu().numpy()
    rows = backbone.hidden(input_ids=inputs).flatten(0, 1)
    flat = targets.flatten()
    nll = torch.empty(len(flat), dtype=torch.float32, device=rows.device)
    for part in backbone.chunks(len(flat)):
        logits = backbone.logits(rows[part])
        nll[part] = F.cross_entropy(logits, flat[part].to(logits.device), reduction="none").to(nll.device)
    return nll.view(targets.shape).double().sum(dim=1).cpu().numpy()
