# pyright: reportArgumentType=false
# (the constants of a kernel are written as plain numbers)
"""How the kernels are started: as operations of PyTorch, so that meta tensors and dispatch modes know them too.

Shapes: R rows, C columns, P tensors, B batch, T tokens, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from secateur.pruning.capture import kernels

LIBRARY = torch.library.Library("secateur", "DEF")
OPTIONS: dict[str, Any] = {"enable_fp_fusion": False}
"""Products are rounded before they are added, as PyTorch's own kernels do; the default differs between versions."""

TOKENS, FEATURES, TOKEN_STEPS = 32, 128, 2
"""Tile of the kernels that sum over tokens, and tiles one below the other of a program."""
BLOCK = 256
"""Programs of a walk whose moments are added at once."""


@dataclass(frozen=True)
class Tile:
    """What a program of `fold_kernel` takes at once, how often, and in which direction it goes on."""

    axis: int
    rows: int
    columns: int
    steps: int

    @property
    def options(self) -> dict[str, Any]:
        """How the kernel is compiled: three programs fit into a multiprocessor's 65,536 registers."""
        return {"num_warps": 8, "maxnreg": 80, **OPTIONS}


FLAT = Tile(0, 1, 4096, 4)
TILES = (Tile(0, 4, 512, 8), Tile(1, 8, 256, 8))
"""By the axis along which squares are kept apart; `FLAT` where none are wanted."""


@dataclass(frozen=True)
class Walk:
    """How a tensor is shared out among programs: as a matrix [R, C]."""

    rows: int
    columns: int
    tile: Tile

    @property
    def down(self) -> int:
        """Programs one below the other."""
        return ceil(self.rows / (self.tile.rows * (self.tile.steps if self.tile.axis else 1)))

    @property
    def across(self) -> int:
        """Programs side by side."""
        return ceil(self.columns / (self.tile.columns * (1 if self.tile.axis else self.tile.steps)))

    @property
    def programs(self) -> int:
        """All programs."""
        return self.down * self.across

    @property
    def parts(self) -> tuple[int, int]:
        """Shape of the sums of squares: programs that share a row (or column), rows (or columns)."""
        return (self.down, self.columns) if self.tile.axis else (self.across, self.rows)


def walk_over(shape: torch.Size, axis: int, *, squares: bool) -> Walk:
    """The walk over a weight [R, C] whose units lie along `axis`, or over a bias [R]."""
    if not squares:
        return Walk(1, shape.numel(), FLAT)
    return Walk(1, shape[0], TILES[1]) if len(shape) == 1 else Walk(shape[0], shape[1], TILES[axis])


def token_parts(tokens: int) -> int:
    """Into how many parts a sum over tokens falls."""
    return ceil(tokens / (TOKENS * TOKEN_STEPS))


def _operation(schema: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function an operation `torch.ops.secateur.NAME` that changes its arguments; nothing to do on meta."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        name = LIBRARY.define(f"{function.__name__}{schema} -> ()")
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        LIBRARY.impl(name, lambda *_: None, "Meta")
        return getattr(torch.ops.secateur, name).default

    return register


@_operation(
    "(Tensor gradient, Tensor? weight, Tensor(a!)? accumulator, Tensor(b!) moments, Tensor(c!)? squares, int axis, "
    "float factor)"
)
def fold(
    gradient: torch.Tensor,
    weight: torch.Tensor | None,
    accumulator: torch.Tensor | None,
    moments: torch.Tensor,
    squares: torch.Tensor | None,
    axis: int,
    factor: float,
) -> None:
    """`fold_kernel` over one tensor; `accumulator` is None where the host holds it, `squares` where none are wanted."""
    walk = walk_over(gradient.shape, axis, squares=squares is not None)
    tile = walk.tile
    with torch.cuda.device_of(gradient):
        kernels.fold_kernel[(walk.programs,)](
            gradient, gradient if weight is None else weight, moments if accumulator is None else accumulator,
            moments, moments if squares is None else squares, walk.rows, walk.columns, factor,
            AXIS=tile.axis, SQUARES=squares is not None, ACCUMULATE=accumulator is not None,
            ROWS=tile.rows, COLUMNS=tile.columns, STEPS=tile.steps, **tile.options,
        )  # fmt: skip


@_operation("(Tensor parts, Tensor starts, Tensor(a!) moments)")
def moments(parts: torch.Tensor, starts: torch.Tensor, moments: torch.Tensor) -> None:
    """`moments_kernel`: float64 [P, 5]."""
    with torch.cuda.device_of(parts):
        kernels.moments_kernel[(len(moments),)](parts, starts, moments, BLOCK=BLOCK, **OPTIONS)


@_operation("(Tensor activation, Tensor? text, Tensor(a!) sums)")
def site_sums(activation: torch.Tensor, text: torch.Tensor | None, sums: torch.Tensor) -> None:
    """`sums_kernel` over [B, T, F]; `text` bool [B, T], `sums` [2, parts, F]."""
    tokens, features = activation.shape[:-1].numel(), activation.shape[-1]
    parts = sums.shape[1]
    with torch.cuda.device_of(activation):
        kernels.sums_kernel[(parts, ceil(features / FEATURES))](
            activation, activation if text is None else text, sums, tokens, features, parts,
            MASKED=text is not None, ROWS=TOKENS, COLUMNS=FEATURES, STEPS=TOKEN_STEPS,
            **OPTIONS,
        )  # fmt: skip


@_operation("(Tensor activation, Tensor slope, Tensor(a!) sums, float factor)")
def site_products(activation: torch.Tensor, slope: torch.Tensor, sums: torch.Tensor, factor: float) -> None:
    """`products_kernel` over [B, T, F]; `sums` [B, parts, F]."""
    samples, tokens, features = activation.shape
    parts = sums.shape[1]
    with torch.cuda.device_of(activation):
        kernels.products_kernel[(parts, ceil(features / FEATURES), samples)](
            activation, slope, sums, tokens, features, parts, factor,
            ROWS=TOKENS, COLUMNS=FEATURES, STEPS=TOKEN_STEPS, **OPTIONS,
        )  # fmt: skip
