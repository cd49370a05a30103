"""Requests as token trees: every shared prefix is computed once.

Sequences sorted lexicographically share prefixes with their neighbours, so one pass over the lengths of
common prefixes builds the tries in depth-first pre-order. In that order node i may attend to node j exactly
when `j <= i < end[j]`, where `end[j]` is the end of j's subtree: one integer per node is the whole attention
mask.

N nodes, M trees, U distinct requests, R requests, E entries (a scored position and its target token).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_SHARE = 8
MAX_TREE = 4096


@dataclass(frozen=True)
class Trees:
    """Token trees and what is scored in them.

    Attributes:
        ids: Token of each node [N].
        positions: Depth of each node, its position id [N].
        ends: End of each node's subtree, counted from its tree's first node [N].
        starts: First node of each tree, and N [M + 1].
        entry_nodes: Node whose logits score the entry, ascending [E].
        entry_targets: The token that is scored [E].
        entry_requests: Distinct request that the entry belongs to [E].
        inverse: Distinct request of each request [R].
        clipped: How many requests have a continuation longer than the model's context [1].
    """

    ids: np.ndarray
    positions: np.ndarray
    ends: np.ndarray
    starts: np.ndarray
    entry_nodes: np.ndarray
    entry_targets: np.ndarray
    entry_requests: np.ndarray
    inverse: np.ndarray
    clipped: np.ndarray

    @property
    def tokens(self) -> int:
        """Nodes of all trees: the tokens that go through the model."""
        return len(self.ids)

    @property
    def sizes(self) -> np.ndarray:
        """Nodes per tree [M]."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class MergeRule:
    """When a sequence joins the tree before it.

    It saves l shared tokens of linear work and adds attention between its own tokens and the whole tree
    (computed, then masked), so it joins when l * rho >= 2 * size * new.

    Attributes:
        rho: Linear FLOPs of a token over FLOPs of one (query, key) pair.
        min_share: Fewest shared tokens that are worth it.
        max_tree: Largest tree.
    """

    rho: float
    min_share: int = MIN_SHARE
    max_tree: int = MAX_TREE

    def joins(self, shared: int, size: int, new: int) -> bool:
        """Whether a sequence with `shared` common tokens and `new` own ones joins a tree of `size` nodes."""
        if new == 0:
            return shared > 0
        if shared < self.min_share or size + new > self.max_tree:
            return False
        return shared * self.rho >= 2.0 * size * new


def build_trees(encoded: Sequence[tuple[list[int], list[int]]], max_length: int, rule: MergeRule) -> Trees:
    """Turn (context, continuation) token pairs into trees.

    Truncation is HFLM's: the last `max_length + 1` tokens of context + continuation; all but the last are the
    input, and the positions before each continuation token are scored. Of a continuation longer than
    `max_length` (where HFLM stops with an assertion) the last `max_length` tokens are scored, and counted as clipped.
    """
    keys, inverse, clipped = _distinct(encoded, max_length)
    nodes = _Nodes(max_length)
    for number, (_, sequence, scored) in sorted(enumerate(keys), key=lambda item: item[1][0]):
        nodes.add(sequence, scored, number, rule)
    return nodes.finish(np.asarray(inverse, dtype=np.int32), clipped)


Keyed = tuple[bytes, np.ndarray, int]


def _distinct(
    encoded: Sequence[tuple[list[int], list[int]]], max_length: int
) -> tuple[list[Keyed], list[int], int]:
    """Distinct requests as (sort key, tokens, scored count), each request's index among them, requests clipped."""
    known: dict[tuple[int, bytes], int] = {}
    keys: list[Keyed] = []
    inverse: list[int] = []
    clipped = 0
    for context, continuation in encoded:
        scored = min(len(continuation), max_length)
        clipped += scored < len(continuation)
        sequence = np.array((context + continuation)[-(max_length + 1) :], dtype=">u4")
        content = sequence.tobytes()
        index = known.setdefault((scored, content), len(keys))
        if index == len(keys):
            keys.append((content[:-4], sequence, scored))
        inverse.append(index)
    return keys, inverse, clipped


class _Nodes:
    """Grows trees in depth-first pre-order; the current path is the last sequence added."""

    def __init__(self, max_length: int) -> None:
        self._ids: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._ends = np.zeros(1 << 16, dtype=np.int32)
        self._count = 0
        self._starts = [0]
        self._path = np.zeros(max_length + 1, dtype=np.int64)
        self._last = np.zeros(0, dtype=">u4")
        self._nodes: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._requests: list[np.ndarray] = []

    def add(self, sequence: np.ndarray, scored: int, request: int, rule: MergeRule) -> None:
        inputs = sequence[:-1]
        shared = _common(self._last, inputs)
        size = self._count - self._starts[-1]
        if not rule.joins(shared, size, len(inputs) - shared):
            self._close(0)
            if size:
                self._starts.append(self._count)
            shared = 0
        else:
            self._close(shared)
        fresh = inputs[shared:]
        self._reserve(len(fresh))
        self._path[shared : len(inputs)] = np.arange(self._count, self._count + len(fresh))
        self._ids.append(fresh.astype(np.int32))
        self._positions.append(np.arange(shared, len(inputs), dtype=np.int32))
        self._count += len(fresh)
        self._last = inputs
        self._nodes.append(self._path[len(inputs) - scored : len(inputs)].copy())
        self._targets.append(sequence[-scored:].astype(np.int32))
        self._requests.append(np.full(scored, request, dtype=np.int32))

    def _close(self, depth: int) -> None:
        """End the subtrees of the current path's nodes from `depth` on."""
        self._ends[self._path[depth : len(self._last)]] = self._count - self._starts[-1]

    def _reserve(self, count: int) -> None:
        if self._count + count > len(self._ends):
            grown = np.zeros(max(2 * len(self._ends), self._count + count), dtype=np.int32)
            grown[: self._count] = self._ends[: self._count]
            self._ends = grown

    def finish(self, inverse: np.ndarray, clipped: int) -> Trees:
        self._close(0)
        nodes = np.concatenate(self._nodes)
        order = np.argsort(nodes, kind="stable")
        return Trees(
            ids=np.concatenate(self._ids),
            positions=np.concatenate(self._positions),
            ends=self._ends[: self._count].copy(),
            starts=np.asarray([*self._starts, self._count], dtype=np.int64),
            entry_nodes=nodes[order].astype(np.int32),
            entry_targets=np.concatenate(self._targets)[order],
            entry_requests=np.concatenate(self._requests)[order],
            inverse=inverse,
            clipped=np.asarray([clipped], dtype=np.int64),
        )


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """Length of the common prefix of two arrays."""
    length = min(len(first), len(second))
    differs = first[:length] != second[:length]
    return int(differs.argmax()) if differs.any() else length
