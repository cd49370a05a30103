"""Names of models and run folders: valid everywhere, readable in any script, never a surprise."""

import random
import unicodedata

import pytest

from secateur.eval.config import RunConfig
from secateur.eval.identity import run_id
from secateur.pruning.config import ModelConfig
from secateur.pruning.naming import LONGEST, RESERVED, folder_name, safe_name

ODD = [
    "",
    " ",
    ".",
    "..",
    "---",
    "...",
    "-.-",
    "!!!",
    "/",
    "\0",
    "\ud800",
    "🙂",
    "CON",
    "nul.txt",
    "com1",
    "LPT9.tar.gz",
]
READABLE = ["模型", "ラマ-7B", "модель", "नमूना", "نموذج", "Llama-3.2_1B", "café", "한국어"]


def random_texts(count: int) -> list[str]:
    source = random.Random(0)
    pools = [
        (0, 127),
        (0x80, 0x24F),
        (0x600, 0x6FF),
        (0x900, 0x97F),
        (0x4E00, 0x4EFF),
        (0xD800, 0xDFFF),
        (0, 0x10FFFF),
    ]
    return [
        "".join(chr(source.randint(*source.choice(pools))) for _ in range(source.randint(0, 200)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("text", [*ODD, *READABLE, "a" * 500, "模" * 500, "-rf", ".hidden", "name.", "name "])
def test_a_name_is_a_file_name_on_every_system(text: str) -> None:
    check(safe_name(text))


def test_so_is_that_of_any_text() -> None:
    for text in random_texts(2000):
        check(safe_name(text))
        assert safe_name(safe_name(text)) == safe_name(text)


def check(name: str) -> None:
    assert name
    assert name[0] not in "-."
    assert name[-1] not in "-. "
    assert len(name.encode()) <= LONGEST + 1
    assert name.split(".")[0].upper() not in RESERVED
    assert not set(name) & set('<>:"/\\|?*\0 ')
    assert all(unicodedata.category(letter)[0] in "LNM" or letter in "._-" for letter in name)


@pytest.mark.parametrize("text", READABLE)
def test_letters_of_any_script_stay(text: str) -> None:
    assert safe_name(text) == unicodedata.normalize("NFC", text)
    assert safe_name(unicodedata.normalize("NFD", text)) == safe_name(text)


def test_texts_of_signs_and_long_ones_are_told_apart() -> None:
    assert len({safe_name(text) for text in ("", "!!!", "???", "🙂", "\ud800")}) == 5
    assert len({safe_name("模" * 300 + end) for end in "abc"}) == 3


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/模型", "模型"), ("/data/大模型/model", "大模型-model"), ("Qwen/Qwen2-0.5B", "Qwen2-0.5B"),
        ("runs/tiny-taylor-0.2-16x8-0123456789/model/", "tiny-taylor-0.2-16x8-0123456789-model"), ("model", "model"),
        (".", "local"), ("/", "local"), ("../-x", "x"), ("/data/a b (v2)", "a-b-v2"),
    ],
)  # fmt: skip
def test_a_model_is_called_by_its_folder(path: str, name: str) -> None:
    assert folder_name(path) == name
    assert ModelConfig(path=path).name == name
    assert ModelConfig(path=path, name="mine").name == "mine"


def test_a_run_folder_never_has_an_odd_name() -> None:
    raw = {
        "calibration": {"name": "world", "source": "world"},
        "eval": {"tasks": [], "ppl": {"protocols": []}},
    }
    for name in ("-rf", ".x", "a/b", "模型"):
        config = RunConfig.model_validate({**raw, "model": {"name": name, "path": "bundled:tiny_llama"}})
        check(run_id(config).split("-dense")[0])
        assert run_id(config).startswith(f"{safe_name(name)}-")
