"""The leak guard: however evaluation text is dressed up it is found, and what merely sounds like it is not."""

import random
import time
import unicodedata
from collections.abc import Callable

import pytest

from secateur.pruning.leaks import COMMON, RUN, Excluded, leaked
from secateur.pruning.words import plain, words_of

LETTERS = "abcdefghijklmnoprstuvéàñ"


def prose(count: int, words: int, seed: int, letters: str = LETTERS) -> list[str]:
    """Documents of words that hardly ever come twice in the same order."""
    generator = random.Random(seed)
    vocabulary = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(4000)]
    return [" ".join(generator.choices(vocabulary, k=words)) for _ in range(count)]


SEEN, CLEAN = prose(12, 120, seed=1), prose(40, 120, seed=2)
EXCLUDED = Excluded(tuple((text,) for text in SEEN))


def fullwidth(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in text)


def quarters(texts: list[str]) -> list[str]:
    words = [text.split() for text in texts]
    return [" ".join(w[i : i + len(w) // 4]) for w in words for i in range(0, len(w), len(w) // 4)]


def pieces(texts: list[str], size: int, seed: int = 0) -> list[str]:
    """Texts cut into pieces of so many words, shuffled."""
    words = [text.split() for text in texts]
    found = [" ".join(w[i : i + size]) for w in words for i in range(0, len(w), size)]
    random.Random(seed).shuffle(found)
    return found


DISGUISES: dict[str, Callable[[list[str]], list[str]]] = {
    "as it is": list,
    "joined in one document": lambda texts: ["\n".join(texts)],
    "joined without an order": lambda texts: [" ".join(reversed(texts))],
    "byte order marks": lambda texts: ["\ufeff" + text for text in texts],
    "halves": lambda texts: [half for text in texts for half in (text[: len(text) // 2], text[len(text) // 2 :])],
    "quarters": quarters,
    "shuffled pieces of 20 words": lambda texts: pieces(texts, 20),
    "shuffled pieces of 10 words": lambda texts: pieces(texts, 10),
    "lines of 5 words in order": lambda texts: [
        " ".join(w[i : i + 5]) for w in map(str.split, texts) for i in range(0, len(w), 5)
    ],
    "a short prefix": lambda texts: [f"Document number {i}: {text}" for i, text in enumerate(texts)],
    "a prefix of twice the length": lambda texts: [
        f"{own} {text}" for own, text in zip(prose(12, 240, seed=3), texts, strict=True)
    ],
    "halves behind long prefixes": lambda texts: [
        f"{own} {half}"
        for own, half in zip(
            prose(24, 800, seed=4),
            [h for t in texts for h in (t[: len(t) // 2], t[len(t) // 2 :])],
            strict=True,
        )
    ],
    "upper case": lambda texts: [text.upper() for text in texts],
    "punctuation": lambda texts: [", ".join(text.split()) + "!" for text in texts],
    "line breaks": lambda texts: [text.replace(" ", "\r\n\t") for text in texts],
    "decomposed": lambda texts: [unicodedata.normalize("NFD", text) for text in texts],
    "full width": lambda texts: [fullwidth(text) for text in texts],
    "every eighth word changed but for one stretch": lambda texts: [
        " ".join("x" if i % 8 == 0 and i >= 64 else word for i, word in enumerate(text.split())) for text in texts
    ],
    "each fifteen times": lambda texts: [text for text in texts for _ in range(15)],
}  # fmt: skip


@pytest.mark.parametrize("disguise", DISGUISES)
def test_evaluation_text_is_found_however_it_is_dressed(disguise: str) -> None:
    dressed = DISGUISES[disguise](SEEN)
    mixed = [*CLEAN[:20], *dressed, *CLEAN[20:]]
    assert leaked(mixed, EXCLUDED) == list(range(20, 20 + len(dressed)))


def test_a_whole_passage_inside_a_long_document_is_found() -> None:
    book = " ".join([*prose(1, 20_000, seed=5), SEEN[3], *prose(1, 20_000, seed=6)])
    assert leaked([*CLEAN, book], EXCLUDED) == [len(CLEAN)]


def test_evaluation_text_in_one_document_is_found_in_many() -> None:
    """The other way round: calibration on single paragraphs of one long held-out file."""
    book = Excluded((("\n".join([*CLEAN, *SEEN]),),))
    assert leaked([*prose(5, 120, seed=7), *SEEN], book) == list(range(5, 17))


@pytest.mark.parametrize(
    "letters",
    ["的一是不了人我在有他这中大来上国到说们", "กขคงจฉชซญดตถทธนบปผฝพฟภมยรลวสหอฮ", "あいうえおかきくけこさし"],
)
def test_scripts_without_spaces(letters: str) -> None:
    generator = random.Random(0)
    texts = ["".join(generator.choices(letters, k=200)) for _ in range(20)]
    excluded = Excluded(tuple((text,) for text in texts[:5]))
    dressed = [
        f"{texts[9][:50]}{texts[0]}",
        texts[1][:100],
        texts[1][100:],
        "\ufeff" + texts[2],
        texts[3] + texts[4],
    ]
    assert leaked([*texts[10:], *dressed], excluded) == list(range(10, 15))


def test_letters_without_any_space() -> None:
    texts = [text.replace(" ", "") for text in prose(20, 60, seed=8)]
    excluded = Excluded(tuple((text,) for text in texts[:5]))
    assert leaked([*texts[10:], "prefix" + texts[0], texts[1][7:]], excluded) == [10, 11]


def test_short_texts_match_as_a_whole_or_from_eight_words_on() -> None:
    eight, seven = (
        "one two three four five six seven eight",
        "incomprehensible characteristically two three four five six",
    )
    excluded = Excluded(((eight,), (seven,), ("one two three",)))
    texts = [
        f"Well, {eight.upper()}?",
        f"\ufeff{seven}!",
        f"And {seven}",
        "one two three",
        "one two three four five six seven",
    ]
    assert leaked(texts, excluded) == [0, 1]


# --- what is no leak


def test_a_quotation_is_no_leak() -> None:
    """Less than half of either text, and fewer than fifty words."""
    quoted = " ".join(SEEN[0].split()[:40])
    assert leaked([f"{text} {quoted}" for text in CLEAN], EXCLUDED) == []


def test_boilerplate_of_the_evaluation_text_is_no_leak() -> None:
    notice = prose(1, 60, seed=9)[0]
    own = [f"{notice} {text}" for text in prose(COMMON + 1, 120, seed=10)]
    assert leaked([f"{notice} {text}" for text in CLEAN], Excluded(tuple((t,) for t in own))) == []


def test_boilerplate_of_the_calibration_text_is_no_leak() -> None:
    """A licence at the head of every file drops none of them, though two evaluation documents have it too."""
    notice = prose(1, 60, seed=9)[0]
    excluded = Excluded(tuple((f"{notice} {text}",) for text in SEEN[:2]))
    texts = [f"{notice} {text}" for text in prose(60, 120, seed=11)]
    assert leaked(texts, excluded) == []
    assert leaked([*texts, SEEN[0]], excluded) == [60]


def test_same_words_in_another_order_are_no_leak() -> None:
    shuffled = [" ".join(random.Random(i).sample(text.split(), 120)) for i, text in enumerate(SEEN)]
    assert leaked(shuffled, EXCLUDED) == []


# --- against the plain way


def by_hand(texts: list[str], seen: list[str]) -> list[int]:
    """The share of words in shared runs of 13, by sets of tuples; the first rule alone."""

    def runs(text: str) -> list[tuple[str, ...]]:
        words = plain(text).split()
        return [tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)]

    known = {run for text in seen for run in runs(text)}
    found = []
    for number, text in enumerate(texts):
        covered = set[int]()
        for start, run in enumerate(runs(text)):
            covered |= set(range(start, start + RUN)) if run in known else set()
        if 2 * len(covered) >= len(plain(text).split()):
            found.append(number)
    return found


def test_the_hashes_say_what_sets_of_words_say() -> None:
    """Random mixtures of seen and clean stretches, long enough that only shares decide."""
    generator = random.Random(3)
    seen, clean = prose(30, 400, seed=12), prose(60, 400, seed=13)
    texts = []
    for i in range(60):
        own, other, cut = clean[i].split(), seen[i % 30].split(), generator.randint(13, 40)
        texts.append(" ".join([*other[:cut], *own[: generator.randint(20, 50)]]))
    excluded = Excluded(tuple((text,) for text in seen))
    assert leaked(texts, excluded) == by_hand(texts, seen)
    assert 5 < len(leaked(texts, excluded)) < 55


def test_words_are_split_as_plain_says() -> None:
    texts = [
        "Don't  stop\u2014believing",
        "a_b c",
        "",
        "...",
        "x" * 40,
        "Straße",
        "ﬁne １２",
        "naïve\u00a0café",
    ]
    sizes = words_of(texts).sizes.tolist()
    assert sizes == [len(plain(text).split()) for text in texts]
    assert words_of(["STRASSE ﬁne"]).hashes.tolist() == words_of(["straße FINE"]).hashes.tolist()
    assert words_of(["x" * 41, "中文字"]).sizes.tolist() == [41, 3]


def test_ten_megabytes_take_seconds_at_most() -> None:
    texts, seen = prose(8000, 200, seed=14), prose(8000, 200, seed=15)
    assert sum(map(len, texts)) > 9_000_000
    start = time.process_time()
    assert leaked([*texts, seen[7]], Excluded(tuple((text,) for text in seen))) == [8000]
    assert time.process_time() - start < 20  # 2 seconds on a machine of its own
