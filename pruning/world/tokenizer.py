"""The tokenizer of the shipped models: every word of the world is one token, all else falls to bytes.

Nothing is trained: the vocabulary is counted from documents of a fixed seed, sorted, and written out.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors

from pruning.world.text import training_documents

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
_VOCABULARY_SEED = -1
_VOCABULARY_DOCUMENTS = 6000
_PIECE = re.compile(r"▁[A-Za-z]+|[^A-Za-z]")


@dataclass(frozen=True)
class Style:
    """How a model marks documents.

    Attributes:
        begins: Whether the tokenizer puts the begin token before every text.
        ends: The token that ends a document.
    """

    begins: bool
    ends: str


STYLES: dict[str, Style] = {
    "tiny_llama": Style(begins=True, ends=END),
    "tiny_qwen2": Style(begins=False, ends="<|endoftext|>"),
    "tiny_mistral": Style(begins=True, ends=END),
}


def _words() -> list[str]:
    """Every word of the world with the space before it, the most frequent first; then letters."""
    counts: Counter[str] = Counter()
    for text in islice(training_documents(_VOCABULARY_SEED), _VOCABULARY_DOCUMENTS):
        counts.update(_PIECE.findall(re.sub(r"^| |(?<=\n)", "▁", text)))
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    return list(dict.fromkeys([*ranked, "▁", "\n", *letters]))


def build(name: str) -> Tokenizer:
    """Build the tokenizer of a model.

    Args:
        name: A key of `STYLES`.

    Returns:
        The tokenizer; equal on every machine.
    """
    style = STYLES[name]
    special = [UNKNOWN, BEGIN, style.ends] if style.begins else [UNKNOWN, style.ends]
    pieces: list[tuple[str, float]] = [(token, 0.0) for token in special]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    # One score per piece: the best split is the one into the fewest pieces, whole words before letters.
    pieces += [(piece, -1.0 if len(piece.strip("▁")) > 1 else -4.0) for piece in _words()]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(" ", "▁"),
            normalizers.Replace(Regex(r"\n(?=[^\n])"), "\n▁"),
            normalizers.Prepend("▁"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
            decoders.Replace("\n ", "\n"),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    if style.begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A",
            pair=f"{BEGIN} $A {BEGIN} $B",
            special_tokens=[(BEGIN, special.index(BEGIN))],
        )
    return tokenizer


def save(name: str, folder: Path, context: int) -> Tokenizer:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into a model's folder."""
    tokenizer, style = build(name), STYLES[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN,
        "bos_token": BEGIN if style.begins else None,
        "eos_token": style.ends,
        "pad_token": style.ends,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return tokenizer
