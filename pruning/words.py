"""Texts as hashes of their words, all at once. No torch here.

Words are compared in Unicode NFKC, case folded, without punctuation and white space; a character of a script without
spaces (and of a "word" of more than `LONGEST` letters) is a word of its own. Shapes: W words, n words of a run.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGEST = 40
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF),
             (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # fmt: skip
"""Code points of Thai, Lao, Burmese, Khmer, kana and Han."""


@dataclass(frozen=True)
class Words:
    """Texts as hashes of their words.

    Attributes:
        hashes: uint64 [W], the words of all texts, one text after another.
        owner: int64 [W], which text a word is of.
        sizes: int64 [number of texts], words of each.
    """

    hashes: np.ndarray
    owner: np.ndarray
    sizes: np.ndarray

    def runs(self, n: int) -> np.ndarray:
        """Hash of the n words from each position on, across texts. uint64 [W - n + 1]."""
        count = max(0, len(self.hashes) - n + 1)
        found = np.zeros(count, dtype=np.uint64)
        for i in range(n):
            found = found * _MULTIPLIER + self.hashes[i : i + count]
        return found

    def inside(self, n: int) -> np.ndarray:
        """Positions whose n words are of one text. int64."""
        count = max(0, len(self.hashes) - n + 1)
        return np.flatnonzero(self.owner[:count] == self.owner[n - 1 : n - 1 + count])

    def covered(self, at: np.ndarray, n: np.ndarray) -> np.ndarray:
        """How many words of each text lie in the runs that begin `at`, of `n` words each. int64."""
        steps = np.bincount(at, minlength=len(self.hashes) + 1)
        steps -= np.bincount(at + n, minlength=len(self.hashes) + 1)
        return np.bincount(self.owner[np.cumsum(steps[:-1]) > 0], minlength=len(self.sizes))


def plain(text: str) -> str:
    """The words of a text, with one blank between them."""
    return " ".join(re.findall(r"[^\W_]+", _folded(text)))


def words_of(texts: Sequence[str]) -> Words:
    """Hashes of the words of texts, all at once."""
    folded = [_folded(text) for text in texts]
    codes = np.frombuffer("\n".join(folded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = _kinds(codes)
    begins = kinds == 2
    begins[:1] |= kinds[:1] == 1
    begins[1:] |= (kinds[1:] == 1) & (kinds[:-1] != 1)
    starts = _split_long(begins, kinds)
    if not len(starts):
        none = np.zeros(0, dtype=np.int64)
        return Words(none.astype(np.uint64), none, np.zeros(len(texts), dtype=np.int64))
    values = codes * np.cumprod(np.full(len(codes), _MULTIPLIER, dtype=np.uint64))
    values[kinds == 0] = 0
    back = np.cumprod(np.full(len(codes), pow(int(_MULTIPLIER), -1, 1 << 64), dtype=np.uint64))
    hashes = np.add.reduceat(values, starts) * back[starts]
    hashes = (hashes ^ (hashes >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    ends = np.cumsum([len(text) + 1 for text in folded])
    owner = np.searchsorted(ends, starts, side="right")
    return Words(hashes, owner, np.bincount(owner, minlength=len(texts)))


def _split_long(begins: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Where words begin, when those of more than `LONGEST` letters are cut into letters."""
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(kinds))
    for word in np.flatnonzero(ends - starts > LONGEST):
        letters = np.count_nonzero(kinds[starts[word] : ends[word]])
        if letters > LONGEST:
            begins[starts[word] : starts[word] + letters] = True
    return np.flatnonzero(begins)


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _kinds(codes: np.ndarray) -> np.ndarray:
    """0 for what is between words, 1 for letters and digits, 2 for a character that is a word of its own."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for code in np.flatnonzero(np.bincount(codes, minlength=len(table))).tolist():
        table[code] = chr(code).isalnum()
        if table[code] and any(low <= code <= high for low, high in _UNSPACED):
            table[code] = 2
    return table[codes]
