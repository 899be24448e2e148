"""Block sizes of the TPU kernels: what fits VMEM and reads least from HBM.

By rule, not by measurement: of what a tuner would time, this is the first guess.
"""

import math

LANES = 128
MIB = 2**20

# What the blocks of a kernel may take, of the 64 MiB of the smallest supported chip
# (v5p and v7x; v5e and v6e have 128). The rest is for what the compiler adds.
VMEM_BUDGET = 44 * MIB
VMEM_LIMIT = 60 * MIB

# Starting a step of a grid takes about as long as reading so many bytes.
STEP_BYTES = 300_000

# Longer tiles are cut into pieces of at most so many rows.
PIECE_ROWS = 256

# Rows of one unrolled product of the base.
CHUNK_ROWS = 512


def piece(tile: int, least: int) -> int:
    """Rows of the pieces of a tile: a divisor of it, and a multiple of `least`."""
    sizes = range(least, min(tile, PIECE_ROWS) + 1, least)
    return max(rows for rows in sizes if tile % rows == 0)


def chunk(tiles: int, piece: int) -> int:
    """Rows of one product, of a block of so many tiles (or pieces of tiles)."""
    return piece * max(n for n in _divisors(tiles) if n * piece <= CHUNK_ROWS)


def of_core(
    rows: int,
    columns: int,
    depth: int,
    *,
    piece: int,
    itemsize: int,
    adapters: tuple[int, int, int],
) -> tuple[int, int, int]:
    """Rows, columns and depth of one step of `x w + u b`, by an estimate of reads.

    Args:
      rows, columns, depth: of the product `x w`.
      piece: rows that share an adapter.
      itemsize: bytes of an element of x and w.
      adapters: slots, rank and the bytes of an element of b.

    Raises:
      NotImplementedError: none fit.
    """
    best, least = None, math.inf
    for m in _row_blocks(rows, piece):
        for n in _column_blocks(columns):
            for k in _column_blocks(depth):
                inputs = (m * k + k * n + m * LANES) * itemsize + _stack(adapters) * n
                if 2 * (inputs + m * n * itemsize) + 4 * m * n > VMEM_BUDGET:
                    continue
                row_blocks, depth_blocks = math.ceil(rows / m), depth // k
                # A block stays in VMEM while the steps' indices of it do not change.
                x_reads = columns // n if row_blocks * depth_blocks > 1 else 1
                w_reads = row_blocks if depth_blocks > 1 else 1
                reads = (x_reads * rows + w_reads * columns) * depth * itemsize
                steps = columns // n * row_blocks * depth_blocks
                if reads + STEP_BYTES * steps < least:
                    best, least = (m, n, k), reads + STEP_BYTES * steps
    if best is None:
        raise NotImplementedError(_too_large(adapters))
    return best


def of_side(
    rows: int,
    columns: int,
    *,
    piece: int,
    itemsize: int,
    adapters: tuple[int, int, int],
    sums: bool,
) -> tuple[int, int]:
    """Rows and columns of one step of a pass over rows: all that fit, columns first.

    Args:
      rows, columns: of the rows.
      piece: rows that share an adapter.
      itemsize: bytes of an element of the rows.
      adapters: slots, rank and the bytes of an element of the stack, 0 without one.
      sums: whether float32 sums of the stack's shape are made.

    Raises:
      NotImplementedError: none fit.
    """
    slots, rank, stack_itemsize = adapters
    per_column = _stack(adapters) + (_stack((slots, rank, 4)) if sums else 0)
    for c in reversed(_column_blocks(columns)):
        for m in reversed(_row_blocks(rows, piece)):
            # Of p all rows are there, in float32.
            p_rows = math.ceil(rows / m) * m if stack_itemsize else 0
            small = LANES * (m * itemsize + 4 * p_rows)
            if 2 * (m * c * itemsize + small + per_column * c) <= VMEM_BUDGET:
                return m, c
    raise NotImplementedError(_too_large(adapters))


def _row_blocks(rows: int, piece: int) -> list[int]:
    """Sizes of a block of rows, in whole pieces; the last block may be ragged."""
    wanted = [target for target in (256, 512, 1024, 2048) if target <= rows]
    if rows <= CHUNK_ROWS:
        wanted.append(rows)
    return sorted({target // piece * piece for target in wanted})


def _column_blocks(columns: int) -> list[int]:
    """Sizes of a block of columns: whole lanes, no remainder, not more than 2048."""
    return [n * LANES for n in _divisors(columns // LANES) if n * LANES <= 2048]


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _stack(adapters: tuple[int, int, int]) -> int:
    """Bytes of one column of a stack in VMEM, where rows come in sixteens."""
    slots, rank, itemsize = adapters
    return slots * math.ceil(rank / 16) * 16 * itemsize


def _too_large(adapters: tuple[int, int, int]) -> str:
    slots, rank, _ = adapters
    return (
        f"the adapters of {slots} slots of rank {rank} and the rows of one step do not "
        f"fit the {VMEM_BUDGET // MIB} MiB of VMEM given to them; use fewer slots"
    )
