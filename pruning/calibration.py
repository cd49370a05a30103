"""From a calibration config to token ids [N, T]: seeded, packed, cached by content, disjoint from evaluation.

Shapes: N samples, T tokens per sample.
"""

import hashlib
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from secateur.pruning.config import RESULT_VERSION, CalibrationConfig, TaylorConfig, identity
from secateur.pruning.documents import document_tokens, read_texts, single_breaks
from secateur.pruning.errors import DataError, StorageError
from secateur.pruning.files import digest, write_atomic
from secateur.pruning.identity import calibration_fingerprint
from secateur.pruning.leaks import NOTHING, Excluded, copies, leaked
from secateur.pruning.tensors import disk_errors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Calibration samples.

    Attributes:
        ids: int64 [N, T]; positions from a sample's length on are padding.
        lengths: int64 [N], tokens of each sample that count.
        digest: Of the ids, the identity of the text that was seen.
        left_out: Digest of the evaluation documents that were left out; empty when there were none.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    digest: str
    left_out: str = ""

    def mask(self, rows: slice) -> torch.Tensor:
        """Bool [B, T]: which positions of these rows hold text."""
        return torch.arange(self.ids.shape[1])[None, :] < self.lengths[rows, None]


def load_samples(
    config: CalibrationConfig,
    taylor: TaylorConfig,
    tokenizer: Any,
    cache: Path,
    exclude: Excluded = NOTHING,
) -> Samples:
    """The first `num_samples` samples of the configured text.

    A smaller `num_samples` gives a prefix of a larger one. Documents that hold text of `exclude` (what is
    evaluated) are left out.

    Raises:
        DataError: The text is missing, too short, or is mostly evaluation text.
        StorageError: A cached entry is damaged.
    """
    key = digest(
        {
            "version": RESULT_VERSION,
            "text": calibration_fingerprint(config),
            "config": identity(config),
            "tokenizer": _tokenizer_digest(tokenizer),
            "size": [taylor.seq_len, taylor.num_samples],
            "exclude": exclude.digest,
        }
    )
    path = cache / "tokens" / f"{key}.safetensors"
    if path.exists():
        try:
            stored = load_file(path)
            return _samples(stored["ids"], stored["lengths"], stored["left_out"])
        except (SafetensorError, KeyError) as error:
            raise StorageError(
                f"{path} is damaged ({error}). Delete it and run the same command again."
            ) from error
    documents, seen = _clean(_documents(config, taylor), config, exclude)
    build = _packed if config.packing == "packed" else _study
    ids, lengths = build(documents, config, taylor, tokenizer)
    left_out = np.frombuffer(digest(seen).encode() if seen else b"", dtype=np.uint8).copy()
    tensors = {
        "ids": torch.from_numpy(ids),
        "lengths": torch.from_numpy(lengths),
        "left_out": torch.from_numpy(left_out),
    }

    def fill(temporary: Path) -> None:
        with disk_errors():
            save_file(tensors, temporary)

    write_atomic(path, fill)
    return _samples(tensors["ids"], tensors["lengths"], tensors["left_out"])


def _samples(ids: torch.Tensor, lengths: torch.Tensor, left_out: torch.Tensor) -> Samples:
    code = hashlib.sha256(ids.numpy().tobytes() + lengths.numpy().tobytes()).hexdigest()[:16]
    return Samples(ids, lengths, code, left_out.numpy().tobytes().decode())


def _documents(config: CalibrationConfig, taylor: TaylorConfig) -> list[str]:
    """All documents of the source, in its own order."""
    if config.source == "world":
        from secateur.pruning.world.text import calibration_documents

        return calibration_documents(config.seed, 64 + taylor.num_samples * taylor.seq_len // 8)
    assert config.path is not None
    if config.source == "file":
        return read_texts(Path(config.path).expanduser(), config.field, "calibration.field")
    import datasets

    try:
        data = datasets.load_dataset(
            config.path,
            config.subset,
            data_files=config.data_files,
            split=config.split,
            revision=config.revision,
        )
    except (ConnectionError, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"calibration.path={config.path} cannot be loaded from the hub ({first}). Without "
            "internet use calibration=text_file calibration.path=FILE; `secateur fetch` prepares such files"
        ) from error
    if config.field not in data.column_names:
        raise DataError(
            f"calibration.path={config.path} has no column {config.field!r}; it has "
            f"{', '.join(data.column_names)} (calibration.field=NAME)"
        )
    return list(data[config.field])


def _clean(documents: list[str], config: CalibrationConfig, exclude: Excluded) -> tuple[list[str], list[str]]:
    """Drop short documents and evaluation text (whose digests come back too); normalise blank lines."""
    kept = [text for text in documents if len(text) > config.min_chars and text.strip()]
    if (
        config.source == "world"
    ):  # sentences recur on both sides: it keeps whole documents and questions apart
        numbers = copies(kept, [passages[0] for passages in exclude.different if len(passages) == 1])
    elif exclude.documents:
        numbers = leaked(kept, exclude)
    else:
        numbers = list[int]()
    seen = [kept[number] for number in numbers]
    if len(seen) > len(kept) // 2 or sum(map(len, seen)) > sum(map(len, kept)) / 2:
        raise DataError(
            f"calibration.path={config.path}: {len(seen)} of {len(kept)} documents hold evaluation text, the first "
            f"begins {seen[0][:40]!r}. Calibrate on another text (the training split): results on seen text mean "
            "nothing"
        )
    if seen:
        log.warning(
            "left out %d of %d calibration documents: they hold evaluation text", len(seen), len(kept)
        )
        gone = set(numbers)
        kept = [text for number, text in enumerate(kept) if number not in gone]
    digests = sorted({digest(" ".join(text.split())) for text in seen})
    return ([single_breaks(text) for text in kept] if config.blank_lines == "single" else kept), digests


def _packed(
    documents: Sequence[str], config: CalibrationConfig, taylor: TaylorConfig, tokenizer: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled documents, one after another, cut into windows without padding. int64 [N, T], [N]."""
    order = list(documents)
    if config.source != "world":  # the world is drawn at random already, and longer for more samples
        random.Random(f"calibration-{config.seed}").shuffle(order)
    wanted = taylor.num_samples * taylor.seq_len
    stream = _take(chain.from_iterable(document_tokens(order, tokenizer, at_once=256)), wanted)
    if len(stream) < wanted:
        raise _too_short(len(stream), len(documents), taylor)
    ids = stream.reshape(taylor.num_samples, taylor.seq_len)
    return ids, np.full(taylor.num_samples, taylor.seq_len, dtype=np.int64)


def _study(
    documents: Sequence[str], config: CalibrationConfig, taylor: TaylorConfig, tokenizer: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The study's way: the first N documents, cut or padded; padding is masked out of the loss. int64 [N, T], [N]."""
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    ids = np.full((taylor.num_samples, taylor.seq_len), pad, dtype=np.int64)
    lengths = np.zeros(taylor.num_samples, dtype=np.int64)
    row = 0
    for text in documents:
        if row == taylor.num_samples:
            break
        tokens = tokenizer(text, verbose=False)["input_ids"][: taylor.seq_len]
        if len(tokens) < 2:
            continue
        ids[row, : len(tokens)], lengths[row] = tokens, len(tokens)
        row += 1
    if row < taylor.num_samples:
        raise DataError(
            f"calibration: taylor.num_samples={taylor.num_samples} documents are wanted "
            f"(packing=study), the text has {row} of more than {config.min_chars} characters. Give more text or a "
            "smaller taylor.num_samples"
        )
    return ids, lengths


def _take(tokens: Iterator[int], count: int) -> np.ndarray:
    return np.fromiter((token for token, _ in zip(tokens, range(count), strict=False)), dtype=np.int64)


def _too_short(found: int, documents: int, taylor: TaylorConfig) -> DataError:
    return DataError(
        f"calibration: taylor.num_samples={taylor.num_samples} x taylor.seq_len={taylor.seq_len} needs "
        f"{taylor.num_samples * taylor.seq_len} tokens, the text has {found} in {documents} documents "
        f"(enough for num_samples={found // taylor.seq_len}). Give more text or ask for less"
    )


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return digest([content, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id])
