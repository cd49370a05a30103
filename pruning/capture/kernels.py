# pyright: basic, reportOperatorIssue=false
# (a kernel's arguments are pointers and numbers of another language)
"""Triton kernels of the pass: one walk over a gradient, and one over the activations of a site.

Each is deterministic: a program writes its own partial results and nobody else's, and a second, small reduction in
float64 follows. `pruning/capture/launches.py` says how they are started.

Shapes: R rows, C columns, N tokens of a batch, F features.
"""

import triton
import triton.language as tl

INFINITY = tl.constexpr(float("inf"))
HUGE, TINY = tl.constexpr(2.0**40), tl.constexpr(2.0**-40)
SHIFT = tl.constexpr(2.0**80)


@triton.jit
def fold_kernel(
    gradient, weight, accumulator, moments, squares, rows, columns, factor,
    AXIS: tl.constexpr, SQUARES: tl.constexpr, ACCUMULATE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Add `factor` x gradient [R, C] to `accumulator` [R, C] and measure the gradient, in one walk.

    Each program takes `STEPS` tiles of `ROWS` x `COLUMNS`, one beside the other (`AXIS` 0) or one below the other (1).
    Numbers that are not finite are added as zeros, and make the program's first moment not finite.

    Writes:
        moments: float64 [programs, 5]: sum abs, sum, sum of squares, max, min.
        squares: float32, sums of (w x g)^2 over a program's columns [programs across, R] (`AXIS` 0) or over its rows
            [programs down, C] (1).
    """
    high: tl.constexpr = ROWS if AXIS == 0 else ROWS * STEPS
    wide: tl.constexpr = COLUMNS * STEPS if AXIS == 0 else COLUMNS
    program, across = tl.program_id(0), (columns + wide - 1) // wide
    down, beside = program // across, program % across
    row, column = down * high, beside * wide
    left = (columns - column + COLUMNS - 1) // COLUMNS if AXIS == 0 else (rows - row + ROWS - 1) // ROWS
    r, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    absolute = tl.full([], 0.0, tl.float64)
    total = tl.full([], 0.0, tl.float64)
    second = tl.full([], 0.0, tl.float64)
    largest = tl.full([], -INFINITY, tl.float32)
    smallest = tl.full([], INFINITY, tl.float32)
    found = tl.full([ROWS, COLUMNS], 0.0, tl.float32)
    for _ in range(tl.minimum(left, STEPS)):
        inside = (row + r < rows)[:, None] & (column + c < columns)[None, :]
        at = row.to(tl.int64) * columns + column + (r[:, None] * columns + c[None, :])
        g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        good = tl.where(tl.abs(g) < INFINITY, g, 0.0)
        if ACCUMULATE:
            old = tl.load(accumulator + at, mask=inside, other=0.0)
            tl.store(accumulator + at, old + good * factor, mask=inside)
        if SQUARES:
            product = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32) * good
            found += product * product
        top, bottom = tl.max(tl.where(inside, g, -INFINITY)), tl.min(tl.where(inside, g, INFINITY))
        largest, smallest = tl.maximum(largest, top), tl.minimum(smallest, bottom)
        # a power of two for each tile keeps float32 sums of its squares from overflow and underflow
        size = tl.maximum(top, -bottom)
        unit = tl.where(size > HUGE, 1.0 / SHIFT, tl.where(size < TINY, SHIFT, 1.0)).to(tl.float32)
        back = tl.where(size > HUGE, SHIFT, tl.where(size < TINY, 1.0 / SHIFT, 1.0)).to(tl.float64)
        scaled = g * unit
        absolute += tl.sum(tl.abs(scaled)).to(tl.float64) * back
        total += tl.sum(scaled).to(tl.float64) * back
        second += tl.sum(scaled * scaled).to(tl.float64) * back * back
        if AXIS == 0:
            column += COLUMNS
        else:
            row += ROWS
    into = moments + program.to(tl.int64) * 5
    tl.store(into, absolute)
    tl.store(into + 1, total)
    tl.store(into + 2, second)
    tl.store(into + 3, largest.to(tl.float64))
    tl.store(into + 4, smallest.to(tl.float64))
    if SQUARES:
        if AXIS == 0:
            tl.store(squares + beside.to(tl.int64) * rows + row + r, tl.sum(found, 1), mask=row + r < rows)
        else:
            tl.store(
                squares + down.to(tl.int64) * columns + column + c,
                tl.sum(found, 0),
                mask=column + c < columns,
            )


@triton.jit
def moments_kernel(parts, starts, moments, BLOCK: tl.constexpr):
    """Moments [P, 5] of P tensors from those of the programs that walked over them; `starts` [P + 1] parts them."""
    number = tl.program_id(0)
    start, stop = tl.load(starts + number), tl.load(starts + number + 1)
    absolute = tl.full([BLOCK], 0.0, tl.float64)
    total = tl.full([BLOCK], 0.0, tl.float64)
    second = tl.full([BLOCK], 0.0, tl.float64)
    largest = tl.full([BLOCK], -INFINITY, tl.float64)
    smallest = tl.full([BLOCK], INFINITY, tl.float64)
    for first in range(start, stop, BLOCK):
        at = first + tl.arange(0, BLOCK)
        inside = at < stop
        absolute += tl.load(parts + at * 5, mask=inside, other=0.0)
        total += tl.load(parts + at * 5 + 1, mask=inside, other=0.0)
        second += tl.load(parts + at * 5 + 2, mask=inside, other=0.0)
        largest = tl.maximum(largest, tl.load(parts + at * 5 + 3, mask=inside, other=-INFINITY))
        smallest = tl.minimum(smallest, tl.load(parts + at * 5 + 4, mask=inside, other=INFINITY))
    into = moments + number * 5
    tl.store(into, tl.sum(absolute))
    tl.store(into + 1, tl.sum(total))
    tl.store(into + 2, tl.sum(second))
    tl.store(into + 3, tl.max(largest))
    tl.store(into + 4, tl.min(smallest))


@triton.jit
def sums_kernel(
    activation, text, sums, tokens, features, parts,
    MASKED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sums of an activation [N, F] and of its square over `STEPS` x `ROWS` tokens: float32 [2, parts, F].

    `text` [N] is false for tokens that do not count.
    """
    part, across = tl.program_id(0), tl.program_id(1)
    columns = across * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.full([ROWS, COLUMNS], 0.0, tl.float32)
    second = tl.full([ROWS, COLUMNS], 0.0, tl.float32)
    for step in range(STEPS):
        rows = (part * STEPS + step) * ROWS + tl.arange(0, ROWS)
        counts = rows < tokens
        if MASKED:
            counts = counts & (tl.load(text + rows, mask=counts, other=0) != 0)
        at = rows.to(tl.int64)[:, None] * features + columns[None, :]
        inside = counts[:, None] & (columns < features)[None, :]
        a = tl.load(activation + at, mask=inside, other=0.0).to(tl.float32)
        first += a
        second += a * a
    tl.store(sums + part.to(tl.int64) * features + columns, tl.sum(first, 0), mask=columns < features)
    below = (part + parts).to(tl.int64)
    tl.store(sums + below * features + columns, tl.sum(second, 0), mask=columns < features)


@triton.jit
def products_kernel(
    activation, slope, sums, tokens, features, parts, factor,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sums of `factor` x activation x slope [B, T, F] over `STEPS` x `ROWS` tokens: float32 [B, parts, F]."""
    part, across, sample = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    columns = across * COLUMNS + tl.arange(0, COLUMNS)
    found = tl.full([ROWS, COLUMNS], 0.0, tl.float32)
    for step in range(STEPS):
        rows = (part * STEPS + step) * ROWS + tl.arange(0, ROWS)
        at = (sample.to(tl.int64) * tokens + rows)[:, None] * features + columns[None, :]
        inside = (rows < tokens)[:, None] & (columns < features)[None, :]
        a = tl.load(activation + at, mask=inside, other=0.0).to(tl.float32)
        found += a * tl.load(slope + at, mask=inside, other=0.0).to(tl.float32)
    into = sums + (sample.to(tl.int64) * parts + part) * features + columns
    tl.store(into, tl.sum(found, 0) * factor, mask=columns < features)
