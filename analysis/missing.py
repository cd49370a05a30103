"""The words that stand for "no value", in tables of every kind: one set, here."""

MISSING = frozenset(
    {"", "na", "n/a", "nan", "nat", "null", "none", "nil", "missing", "-", "--", "–", "—", "?", "#n/a"}
)
"""In lower case, without blanks around."""
SPELLINGS = sorted(
    {form for word in MISSING for form in (word, word.upper(), word.capitalize())} | {"NaN", "NaT"}
)
"""As they are written, for readers that compare letter by letter."""


def is_missing(word: str) -> bool:
    """Whether a cell says that there is no value."""
    return word.strip().lower() in MISSING
