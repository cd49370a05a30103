"""Labels as parts of the names of runs and captures: files on every system, never an option or a hidden file."""

import unicodedata

BYTES = 100
"""Length to which one part of a name is cut: with a digest and a suffix it stays below the 255 bytes of a file name."""


def file_name(text: str, other: str) -> str:
    """A label as the beginning of a file's name; a label that is one already stays as it is.

    Letters, marks and digits of any script stay, and `.`, `_` and `-` within; the rest becomes `-`. The result begins
    with a letter, a digit or `_`.

    Args:
        text: The label.
        other: What it is called when nothing is left.
    """
    kept = "".join(c if c in "._-" or unicodedata.category(c)[0] in "LNM" else " " for c in _composed(text))
    name = "-".join(kept.split()).lstrip(".-")
    while name and unicodedata.category(name[0])[0] == "M":  # a mark without its letter
        name = name[1:].lstrip(".-")
    return name.encode()[:BYTES].decode(errors="ignore").rstrip(".") or other


def _composed(text: str) -> str:
    """One spelling of what looks the same: some systems store the other."""
    return unicodedata.normalize("NFC", text)
