"""FLOPs and bytes that a model cannot do without, from the facts of its variant. No torch here.

B sequences, T tokens of prompt, n decode steps. A multiplication and an addition are two FLOPs. Attention is counted
over the positions that are seen (causal, windows respected), the head on one position per sequence and pass.
"""

from secateur.eval.speed.journal import Facts


def prefill_flops(facts: Facts, batch: int, prompt: int) -> float:
    """FLOPs of reading the prompt."""
    seen = sum(_width(layer) * _positions(0, prompt, layer["window"]) for layer in facts.layers)
    return batch * (2.0 * facts.linear * prompt + 4.0 * seen + 2.0 * facts.head)


def prefill_bytes(facts: Facts, batch: int, prompt: int) -> float:
    """Bytes of weights read once, and of keys and values written."""
    return (facts.linear + facts.head) * facts.element_bytes + batch * prompt * kv_bytes(facts)


def decode_flops(facts: Facts, batch: int, prompt: int, steps: int) -> float:
    """FLOPs of `steps` single tokens after the prompt."""
    seen = sum(_width(layer) * _positions(prompt, steps, layer["window"]) for layer in facts.layers)
    return batch * (2.0 * (facts.linear + facts.head) * steps + 4.0 * seen)


def decode_bytes(facts: Facts, batch: int, prompt: int, steps: int) -> float:
    """Bytes read by `steps` single tokens: all weights each time, and every key and value that is seen."""
    cached = sum((layer["kv"] or 0) * _positions(prompt, steps, layer["window"]) for layer in facts.layers)
    return facts.element_bytes * ((facts.linear + facts.head) * steps + batch * cached)


def kv_bytes(facts: Facts) -> float:
    """Bytes of keys and values of one token, in all layers."""
    return facts.element_bytes * sum(layer["kv"] or 0 for layer in facts.layers)


def _width(layer: dict[str, int | None]) -> int:
    return layer["q"] or 0


def _positions(before: int, count: int, window: int | None) -> int:
    """Sum over `count` tokens after `before` of the positions that each one sees, itself included."""
    return sum(min(before + i + 1, window or before + count + 1) for i in range(count))
