"""Names of models and runs that every file system takes and every script can write. No torch here."""

import unicodedata
from pathlib import PurePath

from secateur.pruning.files import digest

LONGEST = 96
"""Bytes of a name in UTF-8: with method, sizes and digest behind it a run's folder stays below 255."""
SIGNS = "._-"
RESERVED = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)
"""Names that Windows keeps for devices, whatever their suffix."""
SAVED = "model"
"""What the folder of every saved model is called: the folder around it tells them apart."""
NOWHERE = frozenset({"", ".", "..", "~", "/", "\\"})


def safe_name(text: str) -> str:
    """A text as a file name: letters and digits of any script and `._-`, anything else becomes `-`.

    Never empty, never a device of Windows, no `-`, `.` at its beginning or end, at most `LONGEST` bytes. Texts that
    differ only in signs may get one name; a text of nothing but signs, and what a long one loses, become a digest.
    """
    normal = unicodedata.normalize("NFC", text)
    kept = "".join(letter if _is_kept(letter) else " " for letter in normal)
    name = "-".join(kept.split()).strip("-.")
    if not any(letter.isalnum() for letter in name):
        return f"name-{_code(text)}"
    if len(name.encode()) > LONGEST:
        short = name.encode()[: LONGEST - 9].decode(errors="ignore").rstrip("-.")
        name = f"{short}-{_code(text)}"
    return f"_{name}" if name.split(".")[0].upper() in RESERVED else name


def folder_name(path: str) -> str:
    """What a model is called that lies in a folder: as its last part, `PARENT-model` where that is `model`."""
    places = [part for part in PurePath(path).parts if part not in NOWHERE]
    if not places:
        return "local"
    last = places[-1]
    return safe_name(f"{places[-2]}-{last}" if last == SAVED and len(places) > 1 else last)


def _is_kept(letter: str) -> bool:
    """Letters, digits and the marks on letters, of any script."""
    return letter.isalnum() or letter in SIGNS or unicodedata.category(letter) in ("Mn", "Mc")


def _code(text: str) -> str:
    return digest([ord(letter) for letter in text], 8)
