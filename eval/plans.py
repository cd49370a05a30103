"""Plans (token trees of a request list): built once per tokenizer and task set, kept in memory and on disk."""

import logging
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from secateur.eval.tokens import Encoded
from secateur.eval.trie import MergeRule, Trees, build_trees
from secateur.pruning.files import digest, write_atomic

log = logging.getLogger(__name__)

VERSION = 2
MOST = 4
_memory: OrderedDict[str, Trees] = OrderedDict()


def plan_key(requests: np.ndarray, tokenizer: str, max_length: int, rule: MergeRule) -> str:
    """Name of a plan: everything that decides it.

    Args:
        requests: Keys of the requests' texts [R].
        tokenizer: Identity of the tokenizer, with its prefix token.
        max_length: Longest input.
        rule: When sequences share a tree.
    """
    facts = [VERSION, tokenizer, max_length, rule.rho, rule.min_share, rule.max_tree]
    return digest([*facts, digest(requests.tobytes().hex(), 64)], 32)


def get_plan(
    key: str, folder: Path | None, encode: Callable[[], Sequence[Encoded]], max_length: int, rule: MergeRule
) -> Trees:
    """The plan of that name: from memory, from disk, or built from the tokens that `encode` returns."""
    if key in _memory:
        _memory.move_to_end(key)
        return _memory[key]
    path = None if folder is None else folder / "plans" / f"{key}.npz"
    trees = None if path is None else _load(path)
    if trees is None:
        trees = build_trees(encode(), max_length, rule)
        if path is not None:
            _save(path, trees)
    _memory[key] = trees
    while len(_memory) > MOST:
        _memory.popitem(last=False)
    return trees


def forget_plans() -> None:
    """Drop the plans in memory (those on disk stay)."""
    _memory.clear()


def _save(path: Path, trees: Trees) -> None:
    def fill(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            np.savez(handle, **{field.name: getattr(trees, field.name) for field in fields(trees)})

    write_atomic(path, fill)


def _load(path: Path) -> Trees | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            return Trees(**{field.name: data[field.name] for field in fields(Trees)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("the plan %s is damaged (%s); it is built again", path, error)
        return None
