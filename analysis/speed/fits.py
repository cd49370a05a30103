"""Speed against one size: candidate curves, fitted to log residuals, chosen by AICc with parsimony.

Candidates for throughput y and time t = tokens / y over a size n:
constant y = a; linear y = a + b n; quadratic y = a + b n + c n^2; and, as computers work, time_linear t = a + b n
and time_quadratic t = a + b n + c n^2 (a: what a call costs, b: each token, c: attention over all earlier tokens).

Noise of a timing is relative, so every candidate minimises the sum of squared residuals of the logarithm; those of t
and of y are the same up to the sign, which is why their AICc (Hurvich and Tsai 1989, Biometrika 76:297) compare. Of all
candidates within MARGIN of the best AICc the one with the fewest coefficients is chosen: R^2 would always prefer the
largest.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from secateur.analysis.arithmetic import t_quantile

FORMS: dict[str, tuple[str, int]] = {
    "constant": ("speed", 1),
    "linear": ("speed", 2),
    "quadratic": ("speed", 3),
    "time_linear": ("time", 2),
    "time_quadratic": ("time", 3),
}
"""Form -> what it describes, and its coefficients."""
MARGIN = 6.0
"""AICc that a larger candidate must gain: chance alone gains as much in about one of 200 data sets."""
TINY = 1e-24
STEPS, HALVINGS = 60, 30


@dataclass(frozen=True)
class Fit:
    """One candidate curve.

    Attributes:
        coefficients, low, high: a, b, c with 95 % intervals (Student); tokens/s or seconds over powers of n.
        points, df: Data points, and degrees of freedom of the residuals.
        error: Residual standard deviation, relative (share).
        cross: Leave-one-out error, relative, root of the mean square (share).
        delta: AICc above the best candidate's.
        r2: Share of the squared relative error of "no dependence" that is gone; for orientation only.
    """

    form: str
    coefficients: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    points: int
    df: int
    error: float
    cross: float
    aicc: float
    delta: float
    r2: float
    chosen: bool = False

    def speed(self, n: np.ndarray, tokens: np.ndarray | float) -> np.ndarray:
        """Throughput that the curve gives at n, tokens/s; `tokens` of one pass."""
        value = sum(c * n**power for power, c in enumerate(self.coefficients))
        return np.asarray(tokens / value if FORMS[self.form][0] == "time" else value + 0 * n, dtype=float)


def fit_all(n: np.ndarray, speed: np.ndarray, tokens: np.ndarray, taken: int = 0) -> list[Fit]:
    """Every candidate that the number of different n allows, in the order of FORMS; one is chosen.

    Args:
        n: Size of each point.
        speed: Throughput of each point, tokens/s.
        tokens: Tokens of one pass of each point.
        taken: Degrees of freedom that were used before (levels of other sizes taken off).
    """
    levels = len(np.unique(n))
    count = len(n) - taken
    found = [
        _fit(form, n, speed, tokens, count)
        for form, (_, terms) in FORMS.items()
        if terms < max(levels, 2) and count - terms - 2 > 0
    ]
    if not found:
        return []
    best = min(fit.aicc for fit in found)
    close = [fit for fit in found if fit.aicc - best <= MARGIN]
    chosen = min(close, key=lambda fit: (len(fit.coefficients), fit.aicc)).form
    flat = found[0].df * found[0].error ** 2
    return [
        replace(
            fit,
            delta=fit.aicc - best,
            chosen=fit.form == chosen,
            r2=1 - fit.df * fit.error**2 / max(flat, TINY),
        )
        for fit in found
    ]


def _fit(form: str, n: np.ndarray, speed: np.ndarray, tokens: np.ndarray, count: int) -> Fit:
    kind, terms = FORMS[form]
    target = tokens / speed if kind == "time" else speed
    scale = float(np.max(np.abs(n))) or 1.0
    powers_of = np.stack([(n / scale) ** power for power in range(terms)], axis=1)
    solution = _least_logs(powers_of, target)
    fitted = powers_of @ solution
    residual = np.log(target / fitted)
    design = powers_of / fitted[:, None]
    inverse = np.linalg.pinv(design.T @ design)
    rss = max(float(residual @ residual), TINY)
    df = count - terms
    variance = rss / df
    half = t_quantile(df) * np.sqrt(np.maximum(variance * np.diag(inverse), 0.0))
    powers = scale ** np.arange(terms)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    left_out = residual / np.maximum(1 - leverage, 1e-9)
    k = terms + 1  # the variance is estimated, too
    aicc = (
        count * math.log(rss / count) + 2 * k + 2 * k * (k + 1) / (count - k - 1)
        if count > k + 1
        else math.inf
    )
    return Fit(
        form=form,
        coefficients=_tuple(solution / powers),
        low=_tuple((solution - half) / powers),
        high=_tuple((solution + half) / powers),
        points=len(n),
        df=df,
        error=math.sqrt(variance),
        cross=float(np.sqrt(np.mean(left_out**2))),
        aicc=aicc,
        delta=0.0,
        r2=0.0,
    )


def _least_logs(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients [terms] that bring the logarithm of design [points, terms] @ coefficients closest to the target's.

    Gauss-Newton from the flat curve; a step that would make the curve negative at a point, or worse, is halved.
    """
    solution = np.zeros(design.shape[1])
    solution[0] = np.exp(np.log(target).mean())
    loss = float(np.sum(np.log(target / solution[0]) ** 2))
    for _ in range(STEPS):
        fitted = design @ solution
        step = np.linalg.lstsq(design / fitted[:, None], np.log(target / fitted), rcond=None)[0]
        for _ in range(HALVINGS):
            tried = design @ (solution + step)
            if (tried > 0).all() and (new := float(np.sum(np.log(target / tried) ** 2))) <= loss:
                break
            step = step / 2
        else:
            return solution
        solution = solution + step
        if loss - new <= 1e-13 * loss:
            return solution
        loss = new
    return solution


def _tuple(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


@dataclass(frozen=True)
class Balanced:
    """Points over one size, with the effect of the other sizes taken off; all arrays [points].

    Attributes:
        rows: Positions of the points among those given.
        taken: Degrees of freedom of what was taken off.
    """

    n: np.ndarray
    speed: np.ndarray
    tokens: np.ndarray
    rows: np.ndarray
    taken: int


def balance(n: np.ndarray, other: np.ndarray, speed: np.ndarray, tokens: np.ndarray) -> Balanced:
    """The largest full rectangle of sizes x other sizes, each other size brought to the common mean.

    A grid that a context cuts off has no short prompts' counterpart for long outputs; averaging over what is there
    would mix the two. Within a full rectangle the (geometric) mean over n of every level of the other sizes is
    brought to the grand mean; the tokens of a pass are, for every n, the (geometric) mean over the other sizes.

    Args:
        n: Size of each point.
        other: Number of its combination of the other sizes.
        speed: Throughput, tokens/s.
        tokens: Tokens of one pass.
    """
    levels = np.unique(n)
    present = {level: set(other[n == level].tolist()) for level in levels}
    best: tuple[int, list[float], set[int]] = (0, [], set())
    for start in range(len(levels)):
        common: set[int] = set(present[levels[start]])
        for end in range(start, len(levels)):
            common &= present[levels[end]]
            width = end - start + 1
            area = width * len(common) * (1 if width > 2 else 0.01)
            if area > best[0]:
                best = (int(max(area, 1)), [float(x) for x in levels[start : end + 1]], set(common))
    rows = np.flatnonzero(np.isin(n, best[1]) & np.isin(other, list(best[2])))
    logs = np.log(speed[rows])
    mean = logs.mean()
    adjusted = logs.copy()
    for level in best[2]:
        mask = other[rows] == level
        adjusted[mask] += mean - logs[mask].mean()
    work = np.log(tokens[rows])
    mean_work = np.array([work[n[rows] == size].mean() for size in n[rows]])
    return Balanced(n[rows], np.exp(adjusted), np.exp(mean_work), rows, max(0, len(best[2]) - 1))
