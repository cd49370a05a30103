"""Large checkpoints are written as several safetensors files at once; of a tensor on a GPU, one copy at a time is made.

The library that Transformers writes with holds Python's lock, and copies a whole file's tensors to the host first.
"""

import json
import os
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import modeling_utils

SHARD = 2 * 10**9
"""Largest file in bytes; a smaller model is one file."""
THREADS = 4
PIECE = 2**26
"""Bytes that are written at once."""
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_shard(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file and flush it to disk: an 8-byte length, a JSON header, and the tensors' bytes.

    Raises:
        OSError: The disk is full, or the file cannot be written.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that each is aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb", buffering=0) as handle:
        _write(handle, memoryview(len(text).to_bytes(8, "little") + text))
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            _write(handle, flat.view(torch.uint8).numpy().data)
        os.fsync(handle.fileno())


def _write(handle: Any, content: memoryview) -> None:
    """All of it: the system may take less at once."""
    done = 0
    while done < len(content):
        done += handle.write(content[done : done + PIECE])


def save_weights(model: Any, folder: Path) -> None:
    """Transformers' `save_pretrained`, its files written by threads.

    Raises:
        OSError: A file cannot be written.
    """
    with _by_threads():
        model.save_pretrained(folder, safe_serialization=True, max_shard_size=SHARD)


@contextmanager
def _by_threads() -> Generator[None]:
    """Let Transformers hand each of its files to a thread; the block ends when all of them are on disk."""
    stock: Any = modeling_utils.safe_save_file  # pyright: ignore[reportPrivateImportUsage]
    waiting: list[Future[None]] = []
    with ThreadPoolExecutor(THREADS) as pool:

        def hand_over(tensors: dict[str, torch.Tensor], path: str, metadata: Any = None) -> None:
            if any(tensor.dtype not in NAMES for tensor in tensors.values()):
                stock(tensors, path, metadata=metadata)
            else:
                waiting.append(pool.submit(write_shard, tensors, Path(path), metadata))

        modeling_utils.safe_save_file = hand_over  # pyright: ignore[reportPrivateImportUsage]
        try:
            yield
        finally:
            modeling_utils.safe_save_file = stock  # pyright: ignore[reportPrivateImportUsage]
        for future in waiting:
            future.result()
