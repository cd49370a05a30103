"""The tokenizers of the shipped models: nearly every word of the world is one token, all else bytes.

Two kinds, as in the models' families: pieces with byte fallback that a begin token leads (Llama,
Mistral), and byte-level BPE without one (Qwen2, whose tokenizer Transformers always rebuilds as such).
"""

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from secateur.pruning.world.text import training_documents

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
BYTE_LEVEL_END = "<|endoftext|>"
BYTE_LEVEL_MODELS = ("tiny_qwen2",)
_VOCABULARY_SEED = -1
_VOCABULARY_DOCUMENTS = 6000
_BYTE_LEVEL_SIZE = 1600
_PIECE = re.compile(r"▁[A-Za-z]+|[^A-Za-z]")
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def end_token(name: str) -> str:
    """Return the token that ends a document for a model."""
    return BYTE_LEVEL_END if name in BYTE_LEVEL_MODELS else END


def _documents() -> list[str]:
    return list(islice(training_documents(_VOCABULARY_SEED, phase=0), _VOCABULARY_DOCUMENTS))


def _words() -> list[str]:
    """Every word of the world with the space before it, the most frequent first; then letters."""
    counts: Counter[str] = Counter()
    for text in _documents():
        counts.update(_PIECE.findall(re.sub(r"^| |(?<=\n)", "▁", text)))
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    return list(dict.fromkeys([*ranked, "▁", "\n", *letters]))


def _pieces() -> Tokenizer:
    """Count the words; nothing is trained. A text is led by the begin token."""
    special = [UNKNOWN, BEGIN, END]
    pieces: list[tuple[str, float]] = [(token, 0.0) for token in special]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    # One score per piece: the best split is the one into the fewest pieces, words before letters.
    pieces += [(piece, -1.0 if len(piece.strip("▁")) > 1 else -4.0) for piece in _words()]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    # A word has the same token at the start of a line as within one.
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
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, special.index(BEGIN))],
    )
    return tokenizer


def _byte_level() -> Tokenizer:
    """Merge bytes of the world's text, cut as Qwen2 cuts it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_BYTE_LEVEL_SIZE,
        special_tokens=[AddedToken(BYTE_LEVEL_END, special=True)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_documents(), trainer)
    return tokenizer


def build(name: str) -> Tokenizer:
    """Build the tokenizer of a shipped model; equal on every machine."""
    return _byte_level() if name in BYTE_LEVEL_MODELS else _pieces()


def save(name: str, folder: Path, context: int) -> Tokenizer:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into a model's folder."""
    tokenizer, end = build(name), end_token(name)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    byte_level = name in BYTE_LEVEL_MODELS
    config: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer" if byte_level else "PreTrainedTokenizerFast",
        "unk_token": None if byte_level else UNKNOWN,
        "bos_token": None if byte_level else BEGIN,
        "eos_token": end,
        "pad_token": end,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return tokenizer
