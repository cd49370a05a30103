"""Two ways to score in 16 bits before a referee: how far each is from a float32 model of the same weights.

Two bfloat16 evaluations of one request differ from each other by rounding alone, so neither can judge the other.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from secateur.eval.fast_lm import FastLM, score_pairs
from secateur.eval.hflm import StoredHFLM


@dataclass(frozen=True)
class Distance:
    """Absolute differences of log-likelihoods, in nats, over requests: median, 99th percentile, maximum."""

    median: float
    p99: float
    max: float

    @classmethod
    def between(cls, found: np.ndarray, exact: np.ndarray) -> "Distance":
        """Of two arrays of log-likelihoods [N]."""
        off = np.abs(found - exact)
        return cls(float(np.median(off)), float(np.quantile(off, 0.99)), float(off.max()))


@dataclass(frozen=True)
class Verdict:
    """What the referee found.

    Attributes:
        requests: N.
        ours: The fast LM in the model's dtype against HFLM in float32.
        theirs: HFLM in the model's dtype against HFLM in float32.
        apart: The two against each other.
        used: `fast`, or why our side was HFLM as well.
    """

    requests: int
    ours: Distance
    theirs: Distance
    apart: Distance
    used: str

    def no_further(self, slack: float = 0.1) -> bool:
        """Whether our median and 99th percentile are at most (1 + slack) times HFLM's.

        The maximum is one request of N and is reported only.
        """
        pairs = ((self.ours.median, self.theirs.median), (self.ours.p99, self.theirs.p99))
        return all(ours <= (1 + slack) * theirs for ours, theirs in pairs)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def referee(
    model: Any,
    exact: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int = 16,
    **options: Any,
) -> Verdict:
    """Score requests three times: ours and HFLM's with `model`, HFLM's with `exact`.

    Args:
        model: In the dtype in question, usually bfloat16; dense or pruned.
        exact: The same weights in float32, as `copy.deepcopy(model).float()` gives them.
        tokenizer: Of both.
        pairs: (context, continuation) texts [N].
        batch_size: HFLM's.
        options: For the fast LM: `kind`, `budget`.

    Raises:
        ValueError: There are no requests, or `exact` is not in float32.
    """
    dtype = next(exact.parameters()).dtype
    if not pairs or dtype.itemsize < 4:
        raise ValueError(
            f"the referee needs requests ({len(pairs)} given) and a float32 model ({dtype} given)"
        )
    fast = FastLM(model, tokenizer, batch_size=batch_size, **options)
    found = [
        np.array([value for value, _ in score_pairs(lm, pairs)])
        for lm in (
            fast,
            StoredHFLM(model, tokenizer, batch_size=batch_size),
            StoredHFLM(exact, tokenizer, batch_size=batch_size),
        )
    ]
    ours, theirs, right = found
    return Verdict(
        len(pairs),
        Distance.between(ours, right),
        Distance.between(theirs, right),
        Distance.between(ours, theirs),
        fast.used,
    )
