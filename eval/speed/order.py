"""What is timed when: cells of the grid, and a random order in which drift of the machine meets every setting alike."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from secateur.eval.speed.config import BenchConfig


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid: tokens in the prompt, decode steps, sequences (0: the largest batch that fits)."""

    n_prompt: int
    n_gen: int
    batch: int

    @property
    def key(self) -> str:
        """Short text that names the cell in the journal."""
        return f"{self.n_prompt}x{self.n_gen}x{self.batch or 'max'}"


@dataclass(frozen=True)
class Visit:
    """One sample to take: repetition `round` of a cell under a setting (by its place in the sweep)."""

    variant: int
    cell: Cell
    round: int

    @property
    def key(self) -> str:
        """What a finished sample is recognised by."""
        return f"{self.variant}/{self.cell.key}/{self.round}"


def cells(bench: BenchConfig, context: int | None) -> tuple[list[Cell], list[Cell]]:
    """The grid, and the part of it that is left out because prompt and output exceed the context (tokens)."""
    grid = [
        Cell(p, g, 0 if b == "max" else b)
        for p, g, b in product(
            dict.fromkeys(bench.n_prompt), dict.fromkeys(bench.n_gen), dict.fromkeys(bench.batch)
        )
    ]
    if context is None or bench.beyond_context:
        return grid, []
    return [c for c in grid if c.n_prompt + c.n_gen <= context], [
        c for c in grid if c.n_prompt + c.n_gen > context
    ]


def schedule(
    work: Sequence[tuple[int, Cell]], loads: Sequence[str], rounds: int, seed: int, resident: int
) -> list[Visit]:
    """The order of all samples: in every round each (variant, cell) once, in a new random order.

    Args:
        work: All pairs of variant and cell.
        loads: Per variant, which loaded model it uses.
        rounds: Repetitions of each pair.
        seed: Of the order.
        resident: Models that memory holds at once. With more of them a round is split into random groups of
            models; the order is random within the group.
    """
    dice = random.Random(seed)
    result: list[Visit] = []
    models = sorted({loads[variant] for variant, _ in work})
    for number in range(rounds):
        dice.shuffle(models)
        for start in range(0, len(models), resident):
            group = set(models[start : start + resident])
            part = [Visit(v, cell, number) for v, cell in work if loads[v] in group]
            dice.shuffle(part)
            result += part
    return result
