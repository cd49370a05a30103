"""How a fact's number is printed; the guard reads it back by rounding."""

import math

from secateur.analysis.insight.claims import Claim


def show(claim: Claim) -> str:
    """The value with its unit: `12.5 ms`, `0.4213`, `15.0%`; four significant digits unless the fact says otherwise."""
    text = number(claim.value, claim.digits, claim.error)
    unit = claim.unit.name if claim.unit is not None else ""
    if unit in ("", "share"):
        return text
    return f"{text}%" if unit == "%" else f"{text} {unit}"


def number(value: float, digits: int | None = None, error: float = math.nan) -> str:
    """A number to four significant digits, and to two of its standard error at most; whole numbers whole."""
    if error > 0:
        decimals = max(0, 1 - math.floor(math.log10(error)))
        text = number(value, digits)
        plain = "e" not in text and len(text.partition(".")[2]) > decimals
        return f"{value:.{decimals}f}" if plain and float(f"{value:.{decimals}f}") else text
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:.0f}"
    if digits == 1 and abs(value) >= 0.1:
        return f"{value:.1f}"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
