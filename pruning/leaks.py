"""Which calibration documents hold evaluation text: overlap of word n-grams, both ways. No torch here.

A match is a run of 13 words (GPT-3, Brown et al. 2020, appendix C), or all words of a shorter text down to
`SHORTEST`; still shorter texts match only as a whole. Runs that many documents share are boilerplate and tell nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from secateur.pruning.words import Words, plain, words_of

RUN, SHORTEST = 13, 8
"""Words of a run that is compared, and words of the shortest text that is looked for inside others."""
SHORTEST_CHARACTERS = 40
"""A text of fewer than `SHORTEST` words counts, as a whole, from this many characters on."""
MOSTLY = 0.5
"""A document is evaluation text, and a passage of evaluation text is found, from this share of its words on."""
PART, PART_WORDS = 0.1, 50
"""So is a document of which this share, and this many words (Lee et al. 2022 count that as a copy), match."""
COMMON = 10
"""A run in more evaluation documents than this is boilerplate (Brown et al. 2020) ..."""
COMMON_SHARE = 0.05
"""... and so is one that is in more than `COMMON` calibration documents and in more than this share of them."""


@dataclass(frozen=True)
class Excluded:
    """Evaluation text, which calibration must not see.

    Attributes:
        documents: Each a tuple of passages: a document of a perplexity's text has one, a question of a task its
            context, the question itself, and the question with each answer.
    """

    documents: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def digest(self) -> str:
        """Identity of the text; empty when there is none."""
        state = hashlib.sha256()
        for passages in self.documents:
            for text in (str(len(passages)), *passages):
                data = text.encode("utf-8", "surrogatepass")
                state.update(b"%d:" % len(data) + data)
        return state.hexdigest()[:16] if self.documents else ""

    @cached_property
    def different(self) -> tuple[tuple[str, ...], ...]:
        """The documents, each once."""
        return tuple(dict.fromkeys(self.documents))

    @cached_property
    def passages(self) -> list[str]:
        """The passages of all documents, one after another."""
        return [text for passages in self.different for text in passages]

    @cached_property
    def words(self) -> Words:
        """All passages as words."""
        return words_of(self.passages)

    @cached_property
    def document(self) -> np.ndarray:
        """Which document each passage is of. int64."""
        return np.repeat(np.arange(len(self.different)), [len(passages) for passages in self.different])


NOTHING = Excluded()


@dataclass(frozen=True)
class _Matches:
    """Runs that calibration and evaluation text share: where each begins, its words, its number; and its text."""

    at: np.ndarray
    n: np.ndarray
    run: np.ndarray
    text: np.ndarray

    def where(self, keep: np.ndarray) -> "_Matches":
        return _Matches(self.at[keep], self.n[keep], self.run[keep], self.text[keep])

    def runs(self, count: int) -> np.ndarray:
        """Which of all runs are here. bool [count]."""
        found = np.zeros(count, dtype=bool)
        found[self.run] = True
        return found

    def spread(self, count: int) -> np.ndarray:
        """In how many different texts each run is. int64 [count]."""
        order = np.argsort(self.run, kind="stable")  # within a run the texts are in order
        run, text = self.run[order], self.text[order]
        fresh = np.ones(len(run), dtype=bool)
        fresh[1:] = (run[1:] != run[:-1]) | (text[1:] != text[:-1])
        return np.bincount(run[fresh], minlength=count)


def leaked(texts: Sequence[str], excluded: Excluded) -> list[int]:
    """Numbers of the texts that hold evaluation text, in order."""
    ours, theirs = words_of(texts), excluded.words
    here, there, count = _matches(ours, excluded)
    rare = there.spread(count) <= COMMON
    here, there = here.where(rare[here.run]), there.where(rare[there.run])
    found = ours.covered(here.at, here.n) >= np.maximum(1, MOSTLY * ours.sizes)
    rare = here.spread(count) <= max(COMMON, COMMON_SHARE * len(texts))
    here, there = here.where(rare[here.run]), there.where(rare[there.run])
    words = ours.covered(here.at, here.n)
    found |= (words >= PART_WORDS) & (words >= PART * ours.sizes)
    whole = theirs.covered(there.at, there.n) >= np.maximum(1, MOSTLY * theirs.sizes)
    seen = there.where(whole[theirs.owner[there.at]]).runs(count)
    here = here.where(seen[here.run])
    found |= ours.covered(here.at, here.n) >= np.clip(ours.sizes, 1, SHORTEST)
    small, short = np.flatnonzero(ours.sizes < SHORTEST), np.flatnonzero(theirs.sizes < SHORTEST)
    found[small[copies([texts[int(i)] for i in small], [excluded.passages[int(i)] for i in short])]] = True
    return np.flatnonzero(found).tolist()


def copies(texts: Sequence[str], passages: Sequence[str]) -> list[int]:
    """Numbers of the texts that are, as a whole, one of some passages (of `SHORTEST_CHARACTERS` or more)."""
    known = {plain(text) for text in passages if len(text) >= SHORTEST_CHARACTERS}
    return [number for number, text in enumerate(texts) if known and plain(text) in known]


def _matches(ours: Words, excluded: Excluded) -> tuple[_Matches, _Matches, int]:
    """Runs in both, of `RUN` words or of all words of a shorter text of one of the two; and how many different ones."""
    theirs = excluded.words
    here, there, count = list[_Matches](), list[_Matches](), 0
    for n in range(SHORTEST, RUN + 1):
        mine, positions = ours.runs(n), theirs.inside(n)
        other, among = theirs.runs(n)[positions], list[np.ndarray]()
        if n < RUN:
            own = ours.inside(n)
            short = mine[own[ours.sizes[ours.owner[own]] == n]]
            among = [np.concatenate([other[theirs.sizes[theirs.owner[positions]] == n], short])]
        known = _common([mine, other, *among])
        at, run = _numbered(mine, known)
        here.append(_Matches(at, np.full(len(at), n), count + run, ours.owner[at]))
        at, run = _numbered(other, known)
        at = positions[at]
        there.append(_Matches(at, np.full(len(at), n), count + run, excluded.document[theirs.owner[at]]))
        count += len(known)
    return _joined(here), _joined(there), count


def _joined(parts: list[_Matches]) -> _Matches:
    names = ("at", "n", "run", "text")
    return _Matches(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _common(arrays: list[np.ndarray]) -> np.ndarray:
    """The values that are in all arrays, sorted, each once."""
    known = min(arrays, key=len)
    for values in arrays:
        known = known[_maybe(known, values)]
    if not len(known):
        return known
    together = np.sort(np.concatenate([_different(values[_maybe(values, known)]) for values in arrays]))
    more = len(arrays) - 1
    return together[more:][together[more:] == together[:-more]]


def _different(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return ordered[np.concatenate([np.ones(len(ordered[:1]), dtype=bool), ordered[1:] != ordered[:-1]])]


def _numbered(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the values that are known (sorted), and which one each is."""
    at = np.flatnonzero(_maybe(values, known))
    order = np.argsort(values[at])
    run = np.empty(len(at), dtype=np.int64)
    run[order] = np.searchsorted(known, values[at][order])
    good = known[np.minimum(run, len(known) - 1)] == values[at] if len(known) else np.zeros(0, dtype=bool)
    return at[good], run[good]


def _maybe(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values may be known: no known one is missed. bool."""
    table = np.zeros(1 << 24, dtype=bool)
    table[known >> np.uint64(40)] = True
    return table[values >> np.uint64(40)]
