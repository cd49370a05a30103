"""The words of the speed reports, over those that all reports share; and numbers as a sentence needs them."""

import math
from functools import cache
from importlib import resources
from typing import Any

import yaml

from secateur.analysis.texts import Texts, read_texts


@cache
def _own(lang: str) -> dict[str, Any]:
    text = (resources.files("secateur.analysis") / "speed" / f"{lang}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


class SpeedTexts(Texts):
    """Texts of one language: the speed reports' own keys first, the shared ones (page, table, columns) behind them."""

    def __init__(self, lang: str) -> None:
        super().__init__(lang)
        own, shared = _own(lang), read_texts(lang)
        self._data = {**{key: shared[key] for key in ("page", "table")}, **own}


def interval_text(mean: float, low: float, high: float) -> str:
    """A relative change with its interval, in percent, to the digits that the interval supports."""
    if math.isnan(mean):
        return "–"
    digits = digits_of((high - low) / 2)
    text = f"{100 * mean:+z.{digits}f} %"
    return text if math.isnan(low) else f"{text} ({100 * low:+z.{digits}f} … {100 * high:+z.{digits}f})"


def size_text(mean: float, low: float, high: float) -> str:
    """The size of a change without its sign, with interval, in percent; the unit is the sentence's."""
    ends = sorted((abs(100 * low), abs(100 * high)))
    digits = digits_of((high - low) / 2)
    return f"{abs(100 * mean):.{digits}f} ({ends[0]:.{digits}f} … {ends[1]:.{digits}f})"


def digits_of(half: float) -> int:
    """Decimals of a percentage whose interval reaches `half` (share) to either side: two significant digits of it."""
    if math.isnan(half) or half <= 0:
        return 2
    return int(min(4, max(0, 1 - math.floor(math.log10(100 * half) + 1e-9))))


def bound_text(bound: float) -> str:
    """A bound in percent, rounded up to two significant digits."""
    percent = 100 * bound
    if percent <= 0:
        return "0"
    step = 10.0 ** (math.floor(math.log10(percent)) - 1)
    return f"{math.ceil(percent / step - 1e-9) * step:.2g}" if percent < 100 else f"{math.ceil(percent)}"


def rate(value: float) -> str:
    """Tokens/s in a sentence."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def short(value: float) -> str:
    """A number with three significant digits, whole above 1000, with a true minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def signed_terms(coefficients: tuple[float, ...], unit: str) -> str:
    """`35.1 - 0.0013 n + 2e-06 n²`: a polynomial with its signs where they belong."""
    powers = ("", " n", " n²")
    first = f"{short(coefficients[0])}{unit}"
    rest = [
        f"{'+' if c >= 0 else '−'} {short(abs(c))}{unit}{powers[place]}"
        for place, c in enumerate(coefficients[1:], 1)
    ]
    return " ".join([first, *rest])
