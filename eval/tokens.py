"""Text to tokens exactly as HFLM does it, but each text once and in batches; a tokenizer's identity."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from secateur.pruning.errors import DataError

Encoded = tuple[list[int], list[int]]
_identities: dict[int, tuple[Any, str]] = {}


def tokenizer_identity(tokenizer: Any) -> str:
    """Digest of everything that decides a tokenizer's ids; computed once per tokenizer object."""
    known = _identities.get(id(tokenizer))
    if known is not None and known[0] is tokenizer:
        return known[1]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = [
        type(tokenizer).__name__,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.unk_token_id,
    ]
    name = hashlib.sha256((content + json.dumps(special)).encode()).hexdigest()[:16]
    _identities[id(tokenizer)] = (tokenizer, name)
    return name


def encode_pairs(lm: Any, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
    """Token ids of (context, continuation) pairs, split as by `TemplateLM.loglikelihood` of lm-eval 0.4.13.

    Trailing spaces of a context move to its continuation; the context's ids are those of the context alone,
    the continuation's are the rest of context + continuation; an empty context is the prefix token (BOS, else
    EOS).

    Args:
        lm: An HFLM, whose `tok_encode` defines the ids.
        pairs: The requests' texts.
    """
    moved: list[tuple[str, str] | None] = []
    for context, continuation in pairs:
        if context == "":
            moved.append(None)
            continue
        stripped = context.rstrip()
        moved.append((stripped, context[len(stripped) :] + continuation))
    texts = {part[0] for part in moved if part} | {part[0] + part[1] for part in moved if part}
    ids = _encode_all(lm, sorted(texts))
    result: list[Encoded] = []
    for part, (_, continuation) in zip(moved, pairs, strict=True):
        if part is None:
            result.append(_empty_context(lm, continuation))
        else:
            context = ids[part[0]]
            result.append((context, ids[part[0] + part[1]][len(context) :]))
    for (context, continuation), pair in zip(result, pairs, strict=True):
        if not context or not continuation:
            raise DataError(
                f"the request {pair!r} has no tokens to {'condition on' if not context else 'score'}; "
                f"lm-eval refuses it as well. Check the task's data"
            )
    return result


def _empty_context(lm: Any, continuation: str) -> Encoded:
    ids = lm.tok_encode(continuation, add_special_tokens=False)
    if ids and ids[0] == lm.prefix_token_id:
        return ids[:1], ids[1:]
    return [lm.prefix_token_id], ids


def _encode_all(lm: Any, texts: list[str]) -> dict[str, list[int]]:
    """Ids of distinct texts; those that already begin with BOS get no second one (as HFLM's `tok_encode`)."""
    prefix = lm.tokenizer.decode(lm.prefix_token_id)
    default = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    groups: list[tuple[list[str], dict[str, Any]]] = [
        ([text for text in texts if not text.startswith(prefix)], default),
        ([text for text in texts if text.startswith(prefix)], {"add_special_tokens": False}),
    ]
    result: dict[str, list[int]] = {}
    for group, options in groups:
        for start in range(0, len(group), 4096):
            part = group[start : start + 4096]
            result.update(zip(part, lm.tokenizer(part, verbose=False, **options)["input_ids"], strict=True))
    return result
