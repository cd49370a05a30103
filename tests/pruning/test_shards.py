"""Checkpoints in several files, written at once, are the ones that the library would have written."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from secateur.pruning import shards
from secateur.pruning.checkpoint import load_pruned, save_pruned
from secateur.pruning.errors import StorageError
from secateur.pruning.shards import NAMES, write_shard
from secateur.pruning.surgery import prune
from tests.pruning.commands import tokenizer
from tests.pruning.conftest import build, text
from tests.pruning.test_surgery import plan_for


def test_every_dtype_and_shape_is_read_back_by_the_library(tmp_path: Path) -> None:
    tensors = {str(kind): (torch.randn(5, 7) * 9).to(kind) for kind in NAMES}
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.empty(0, 4), "turned": torch.randn(6, 3).T}
    path = tmp_path / "a.safetensors"
    write_shard(tensors, path, {"format": "pt"})
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


@pytest.mark.parametrize("size", [10_000, 10**9])
def test_a_checkpoint_in_many_files_is_the_same_model(
    variant: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD", size)
    loaded, stock = build(variant), shards.modeling_utils.safe_save_file
    plan = plan_for(loaded, "no-mlp")
    model: Any = prune(loaded.model, loaded.adapter, plan)
    folder = save_pruned(tmp_path / "model", model, tokenizer(), plan, {})
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 3) == (size == 10_000)
    assert shards.modeling_utils.safe_save_file is stock
    if len(files) > 1:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        assert set(index["weight_map"].values()) == {file.name for file in files}
    again: Any = load_pruned(folder)
    with torch.no_grad():
        assert torch.equal(again(text(2).ids).logits, model.eval()(text(2).ids).logits)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one of several threads."""
    whole = shards.write_shard

    def full(tensors: Any, path: Path, metadata: Any = None) -> None:
        if "00003" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(tensors, path, metadata)

    monkeypatch.setattr(shards, "SHARD", 10_000)
    monkeypatch.setattr(shards, "write_shard", full)
    loaded = build("llama")
    plan = plan_for(loaded, "no-mlp")
    model: Any = prune(loaded.model, loaded.adapter, plan)
    with pytest.raises(StorageError, match="No space left on device"):
        save_pruned(tmp_path / "model", model, tokenizer(), plan, {})
    assert list(tmp_path.iterdir()) == []
