"""Trees into packs: rows of exactly T tokens without padding, sized by a token budget.

T tokens of a pack, M trees in it, R distinct scored positions, E entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secateur.eval.trie import Trees


@dataclass(frozen=True)
class Pack:
    """What one forward pass reads and scores.

    Attributes:
        trees: Indices of its trees.
        nodes: Their nodes in the plan's order [T].
        ids, positions: Token and position of each [T].
        ends: End of each node's subtree, counted in the pack [T].
        lengths: Nodes per tree [M].
        rows: Scored positions [R].
        entry_rows, entry_targets, entry_requests: Row, token and distinct request of each entry, by row [E].
    """

    trees: np.ndarray
    nodes: np.ndarray
    ids: np.ndarray
    positions: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    entry_rows: np.ndarray
    entry_targets: np.ndarray
    entry_requests: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return len(self.ids)


def group(sizes: np.ndarray, chosen: Sequence[int] | np.ndarray, budget: int) -> list[np.ndarray]:
    """Group trees into packs of at most `budget` tokens, largest trees first; a larger tree is alone.

    Trees of one size become neighbours, so that attention over gathered trees pads little.
    """
    order = np.asarray(chosen, dtype=np.int64)
    order = order[np.argsort(-sizes[order], kind="stable")]
    groups: list[np.ndarray] = []
    start, filled = 0, 0
    for i, size in enumerate(sizes[order].tolist()):
        if filled and filled + size > budget:
            groups.append(order[start:i])
            start, filled = i, 0
        filled += size
    if start < len(order):
        groups.append(order[start:])
    return groups


def make_pack(trees: Trees, chosen: np.ndarray) -> Pack:
    """Lay trees one after the other."""
    starts, stops = trees.starts[chosen], trees.starts[chosen + 1]
    lengths = stops - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    nodes = _ranges(starts, lengths)
    first = np.searchsorted(trees.entry_nodes, starts)
    counts = np.searchsorted(trees.entry_nodes, stops) - first
    entries = _ranges(first, counts)
    places = trees.entry_nodes[entries] + np.repeat(offsets - starts, counts)
    rows, entry_rows = np.unique(places, return_inverse=True)
    return Pack(
        trees=chosen,
        nodes=nodes,
        ids=trees.ids[nodes].astype(np.int64),
        positions=trees.positions[nodes].astype(np.int64),
        ends=trees.ends[nodes].astype(np.int64) + np.repeat(offsets, lengths),
        lengths=lengths,
        rows=rows.astype(np.int64),
        entry_rows=entry_rows.astype(np.int64),
        entry_targets=trees.entry_targets[entries].astype(np.int64),
        entry_requests=trees.entry_requests[entries].astype(np.int64),
    )


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenation of `arange(start, start + length)`."""
    total = int(lengths.sum())
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.arange(total) - before + np.repeat(starts, lengths)
