"""What differs between two runs, in config, plan and result."""

import math
from dataclasses import dataclass
from typing import Any

from secateur.analysis.protocol import differences, protocol_of
from secateur.eval.record import RunRecord


@dataclass(frozen=True)
class Change:
    """A fact that two runs do not share; None where one lacks it."""

    name: str
    left: Any
    right: Any


@dataclass(frozen=True)
class Result:
    """A metric of two runs. `se` and `p` (two-sided, normal) belong to the difference, where errors are known."""

    name: str
    left: float | None
    right: float | None
    delta: float | None
    se: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All differences of two runs; `paired` is the number of questions that the error of acc_mean rests on."""

    protocol: tuple[Change, ...]
    config: tuple[Change, ...]
    plan: tuple[Change, ...]
    results: tuple[Result, ...]
    paired: int = 0


def compare_records(
    left: RunRecord, right: RunRecord, paired: tuple[float, float, int] | None = None
) -> Comparison:
    """Compare two runs.

    Args:
        left: Run A.
        right: Run B.
        paired: Difference B - A of acc_mean, its standard error and the number of questions, from single answers.
    """
    local = _local_keys()
    config = [item for item in differences(left.config, right.config) if item[0] not in local]
    protocol = differences(protocol_of(left.card, left.config), protocol_of(right.card, right.config))
    names = [*left.metrics, *(name for name in right.metrics if name not in left.metrics)]
    return Comparison(
        protocol=tuple(Change(*item) for item in protocol),
        config=tuple(Change(*item) for item in config),
        plan=tuple(_plan(left, right)),
        results=tuple(_result(name, left, right, paired) for name in names),
        paired=paired[2] if paired else 0,
    )


def _result(name: str, left: RunRecord, right: RunRecord, paired: tuple[float, float, int] | None) -> Result:
    a, b = left.metrics.get(name), right.metrics.get(name)
    x, y = a.value if a else None, b.value if b else None
    if x is None or y is None:
        return Result(name, x, y, None)
    se: float | None = None
    if name == "acc_mean" and paired is not None:
        se = paired[1]
    elif a is not None and b is not None and a.stderr is not None and b.stderr is not None:
        se = math.hypot(a.stderr, b.stderr)
    # 2 (1 - Phi(|z|)) = erfc(|z| / sqrt 2)
    p = None if not se else math.erfc(abs(y - x) / se / math.sqrt(2))
    return Result(name, x, y, y - x, se, p)


def _plan(left: RunRecord, right: RunRecord) -> list[Change]:
    """Parameters kept and every layer whose kept counts differ."""
    changes: list[Change] = []
    a, b = left.parameters, right.parameters
    if a is not None and b is not None and a.after != b.after:
        changes.append(Change("parameters kept", f"{a.after:,}", f"{b.after:,}"))
    ours, theirs = ({layer.layer: layer for layer in record.layers} for record in (left, right))
    for index in sorted({*ours, *theirs}):
        for title, kept, total in (
            ("MLP", "kept_channels", "channels"),
            ("KV groups", "kept_kv_groups", "kv_groups"),
        ):
            x, y = (
                f"{getattr(side[index], kept)}/{getattr(side[index], total)}" if index in side else None
                for side in (ours, theirs)
            )
            if x != y:
                changes.append(Change(f"layer {index} {title}", x, y))
    return changes


def _local_keys() -> frozenset[str]:
    from secateur.analysis.rows import local_keys

    return local_keys()
