"""The Hopper kernel of `y = x w + u b`, and of `dx = dy w^T + v a` by the same code.

A persistent grid, one block of threads for each multiprocessor. One warpgroup copies
(TMA), two multiply (wgmma) and share each tile of rows; a ring of `steps` stages in
shared memory is between them. After the last stage of `x` and `w` the same ring brings
`u` and the `b` of each adapter in the block of rows, so that the low-rank product is
added before the result leaves the registers, and y is written once.

Rows are on the N side of the multiplication (`y^T = w^T x^T`): there a tile of any
multiple of 8 rows can have an adapter of its own, where the M side knows only 64. Its
product has an accumulator of its own too, added to its columns of the large one: slices
of the large one as accumulators are possible in Pallas, but ptxas then serialises every
wgmma of the kernel and copies the accumulator around it.

Neighbouring tiles with one adapter are a run, and its `b` is copied once.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

# Warpgroups that multiply; one more copies.
CONSUMERS = 2

# Shared memory of one multiprocessor, in bytes, less what barriers take.
SHARED_BYTES = 232_448 - 1024

# What the compiler shares out among the three warpgroups: 65,536 in all.
COPY_REGISTERS = 40
MULTIPLY_REGISTERS = 232


@dataclasses.dataclass(frozen=True)
class Config:
    """Tile sizes of the kernel, for one shape.

    Attributes:
      tile_m: rows of a block.
      tile_n: output columns of one of the two multiplying warpgroups.
      tile_k: depth of one stage; not less than the rank.
      steps: stages of the ring.
      store_m: rows that are written at once.
      width: blocks of rows that go through the same columns of `w` side by side.
    """

    tile_m: int = 128
    tile_n: int = 128
    tile_k: int = 64
    steps: int = 4
    store_m: int = 32
    width: int = 16

    def block_n(self) -> int:
        """Output columns of a block."""
        return CONSUMERS * self.tile_n

    def shared_bytes(self) -> int:
        """Shared memory of a block, in bytes, for operands of two bytes."""
        stage = (self.tile_m + self.block_n()) * self.tile_k
        return 2 * (self.steps * stage + 2 * self.store_m * self.block_n())

    def fits(self) -> bool:
        """Whether shared memory and the registers of an accumulator suffice."""
        accumulator = self.tile_m * self.tile_n // 128
        return self.shared_bytes() <= SHARED_BYTES and accumulator <= 128


def tiled(minor: int, dtype: Any = jnp.bfloat16) -> tuple[Any, ...]:
    """How a buffer is laid out in shared memory whose rows, or part of them that is
    multiplied at once, have `minor` elements.
    """
    size = jnp.dtype(dtype).itemsize
    swizzle = plgpu.find_swizzle(minor * size * 8)
    return (
        plgpu.TilingTransform((8, swizzle // size)),
        plgpu.SwizzleTransform(swizzle),
    )


def core(
    x_MK: Array,
    w: Array,
    u_MR: Array,
    b_SRN: Array,
    slots_G: Array,
    *,
    transposed: bool,
    config: Config,
    sms: int,
    interpret: Any = None,
) -> Array:
    """`x w + u b` in the dtype of x, every tile of rows with the b of its slot.

    Args:
      x_MK: rows, `M / G` to a tile; a tile is a multiple of 8 rows.
      w: `[K, N]`, or `[N, K]` if `transposed`.
      u_MR: the rank-R factor of each row.
      b_SRN: the other factor of each slot, in the dtype of x; R is 16, 32 or 64.
      slots_G: the slot of each tile; S for none, whose `u` must be zero.
      transposed: whether `w` is.
      config: tile sizes; its blocks divide K and N.
      sms: thread blocks, at most; one runs on each multiprocessor.
      interpret: `plgpu.InterpretGPUParams` to run on the CPU.
    """
    rows, _ = x_MK.shape
    _, rank, columns = b_SRN.shape
    blocks = pl.cdiv(rows, config.tile_m), columns // config.block_n()
    slots_BP, starts_B = _runs(rows, slots_G, len(b_SRN), blocks[0], config)
    w_shape = (config.tile_k, config.block_n())
    w_shape = w_shape[::-1] if transposed else w_shape

    def shared(*shape: int, minor: int) -> Any:
        return plgpu.SMEM(shape, x_MK.dtype, transforms=tiled(minor))

    # A stage holds x and w, or u and b: of the same size, so that both kinds are one
    # ring. u and b are multiplied over R, which their layouts must not exceed.
    u_rows = config.tile_m * config.tile_k // rank
    ring = plgpu.RefUnion(
        [
            shared(config.steps, config.tile_m, config.tile_k, minor=config.tile_k),
            shared(config.steps, *w_shape, minor=w_shape[1]),
        ],
        [
            shared(config.steps, u_rows, rank, minor=rank),
            shared(config.steps, config.tile_k, config.block_n(), minor=rank),
        ],
    )
    y_shape = (CONSUMERS, 2, config.store_m, config.tile_n)
    kernel = plgpu.kernel(
        functools.partial(_kernel, transposed=transposed, config=config, blocks=blocks),
        out_type=jax.ShapeDtypeStruct((rows, columns), x_MK.dtype),
        grid=(min(sms, blocks[0] * blocks[1]),),
        grid_names=("sm",),
        num_threads=CONSUMERS + 1,
        thread_name="warpgroup",
        kernel_name="lora_matmul_core",
        scratch_types={
            "ring": ring,
            "y_smem": shared(*y_shape, minor=config.tile_n),
            "full": plgpu.Barrier(num_arrivals=2, num_barriers=config.steps),
            "empty": plgpu.Barrier(num_arrivals=CONSUMERS, num_barriers=config.steps),
        },
        interpret=interpret,
    )
    return kernel(x_MK, w, u_MR, b_SRN, slots_BP, starts_B)


def piece_of(tile: int, config: Config) -> int:
    """Rows that are multiplied by an adapter at once: a part of a tile."""
    return next(n for n in (32, 16, 8) if not tile % n and not config.store_m % n)


def _runs(
    rows: int, slots_G: Array, none: int, blocks: int, config: Config
) -> tuple[Array, Array]:
    """The slot of each piece of each block of rows, and where a block's runs start: bit
    p is set if piece p, not the first, has another slot than the one before.
    """
    tile = rows // len(slots_G)
    piece = piece_of(tile, config)
    slots_P = jnp.repeat(slots_G, tile // piece)
    pieces = config.tile_m // piece
    missing = blocks * pieces - len(slots_P)
    slots_BP = jnp.pad(slots_P, (0, missing), constant_values=none)
    slots_BP = slots_BP.reshape(blocks, pieces)
    starts_BP = (slots_BP[:, 1:] != slots_BP[:, :-1]).astype(jnp.int32)
    starts_B = (starts_BP << jnp.arange(1, pieces)).sum(1, dtype=jnp.int32)
    return slots_BP, starts_B


def _kernel(
    x_ref: Any,
    w_ref: Any,
    u_ref: Any,
    b_ref: Any,
    slots_ref: Any,
    starts_ref: Any,
    y_ref: Any,
    *,
    transposed: bool,
    config: Config,
    blocks: tuple[int, int],
    **scratch: Any,
) -> None:
    warpgroup = lax.axis_index("warpgroup")

    def each_block(body):
        """Runs `body(i, j, count)` for this thread block's blocks of rows and columns;
        `count` stages were used before. Returns the count after the last."""
        loop = plgpu.nd_loop(
            (blocks[0] * blocks[1],), collective_axes="sm", init_carry=jnp.int32(0)
        )

        @loop
        def count(info: plgpu.NDLoopInfo, carry: Array) -> Array:
            i, j = plgpu.planar_snake(info.index[0], blocks, 0, config.width)
            return body(i, j, carry)

        return count

    @pl.when(warpgroup == CONSUMERS)
    def _():
        plgpu.set_max_registers(COPY_REGISTERS, action="decrease")
        gmem = x_ref, w_ref, u_ref, b_ref, slots_ref, starts_ref
        _copy(each_block, *gmem, transposed=transposed, config=config, **scratch)

    @pl.when(warpgroup < CONSUMERS)
    def _():
        plgpu.set_max_registers(MULTIPLY_REGISTERS, action="increase")
        sizes = x_ref.shape[1], u_ref.shape[1], slots_ref.shape[1]
        gmem = starts_ref, y_ref, sizes, warpgroup
        _multiply(each_block, *gmem, transposed=transposed, config=config, **scratch)


def _copy(
    each_block,
    x_ref,
    w_ref,
    u_ref,
    b_ref,
    slots_ref,
    starts_ref,
    *,
    transposed,
    config,
    ring,
    full,
    empty,
    y_smem,
):
    """What the copying warpgroup does: keeps the ring full."""
    del y_smem
    (x_smem, w_smem), (u_smem, b_smem) = ring
    steps, block_n, rank = config.steps, config.block_n(), u_ref.shape[1]
    pieces = slots_ref.shape[1]

    def stage(count):
        at = lax.rem(count, steps)

        @pl.when(count >= steps)
        def _():
            plgpu.barrier_wait(empty.at[at])

        return at, full.at[at]

    def fill(i, j, count):
        m = pl.ds(i * config.tile_m, config.tile_m)
        n = pl.ds(j * block_n, block_n)
        starts = starts_ref[i]

        @pl.loop(0, x_ref.shape[1] // config.tile_k)
        def _(step):
            at, ready = stage(count + step)
            k = pl.ds(step * config.tile_k, config.tile_k)
            w_part = w_ref.at[n, k] if transposed else w_ref.at[k, n]
            plgpu.copy_gmem_to_smem(x_ref.at[m, k], x_smem.at[at], ready)
            plgpu.copy_gmem_to_smem(w_part, w_smem.at[at], ready)

        def run(piece, count):
            new = (piece == 0) | ((starts >> piece) & 1 == 1)

            @pl.when(new)
            def _():
                at, ready = stage(count)
                # Slot S, none, is outside of b: what is copied from there is zero.
                b_part = b_ref.at[slots_ref[i, piece], :, n]
                u_here = u_smem.at[at, pl.ds(0, config.tile_m)]
                plgpu.copy_gmem_to_smem(u_ref.at[m], u_here, ready)
                plgpu.copy_gmem_to_smem(b_part, b_smem.at[at, pl.ds(0, rank)], ready)

            return count + new.astype(jnp.int32)

        count += x_ref.shape[1] // config.tile_k
        return lax.fori_loop(0, pieces, run, count)

    count = each_block(fill)

    # No barrier may be left with an arrival that nobody waited for.
    @pl.loop(lax.max(count - steps, 0), count)
    def _(used):
        plgpu.barrier_wait(empty.at[lax.rem(used, steps)])


def _multiply(
    each_block,
    starts_ref,
    y_ref,
    sizes,
    warpgroup,
    *,
    transposed,
    config,
    ring,
    full,
    empty,
    y_smem,
):
    """What a multiplying warpgroup does: its half of the columns of every block."""
    (x_smem, w_smem), (u_smem, b_smem) = ring
    depth, rank, pieces = sizes
    steps, tile_n, piece = config.steps, config.tile_n, config.tile_m // pieces
    half = pl.ds(warpgroup * tile_n, tile_n)

    def base(count, acc):
        def multiply(step, _):
            at = lax.rem(count + step, steps)
            plgpu.barrier_wait(full.at[at])
            if transposed:
                w = w_smem.at[at, half]
            else:
                w = w_smem.at[at, :, half].transpose((1, 0))
            plgpu.wgmma(acc, w, x_smem.at[at].transpose((1, 0)))
            # The product of the step before is done, and its stage free.
            plgpu.wgmma_wait(1)

            @pl.when(step > 0)
            def _():
                plgpu.barrier_arrive(empty.at[lax.rem(count + step - 1, steps)])

        lax.fori_loop(0, depth // config.tile_k, multiply, None)
        plgpu.wgmma_wait(0)
        last = count + depth // config.tile_k - 1
        plgpu.barrier_arrive(empty.at[lax.rem(last, steps)])
        return acc[...]

    def low_rank(at, rows, acc):
        b = b_smem.at[at, pl.ds(0, rank), half].transpose((1, 0))
        plgpu.wgmma(acc, b, u_smem.at[at, rows].transpose((1, 0)))
        return acc[...]

    def accumulator(product, *args, rows):
        return pl.run_scoped(
            functools.partial(product, *args), plgpu.ACC((tile_n, rows), jnp.float32)
        )

    def block(i, j, count):
        starts = starts_ref[i]
        base_NM = accumulator(base, count, rows=config.tile_m)
        count += depth // config.tile_k
        for p in range(pieces):
            at = lax.rem(count, steps)
            first, last = p == 0, p == pieces - 1
            begins = first or (starts >> p) & 1 == 1
            ends = last or (starts >> (p + 1)) & 1 == 1
            rows = slice(p * piece, (p + 1) * piece)
            pl.when(begins)(lambda at=at: plgpu.barrier_wait(full.at[at]))
            low_NP = accumulator(low_rank, at, rows, rows=piece)
            pl.when(ends)(lambda at=at: plgpu.barrier_arrive(empty.at[at]))
            count += 1 if last else ends.astype(jnp.int32)
            y_NP = (base_NM[:, rows] + low_NP).astype(y_ref.dtype)
            store(i, j, p, y_NP)
        return count

    def store(i, j, p, y_NP):
        part, row = divmod(p * piece, config.store_m)
        out = y_smem.at[warpgroup, part % 2]
        if row == 0:
            # The other buffer may still be read; this one, two writes old, not.
            plgpu.wait_smem_to_gmem(1, wait_read_only=True)
        y_NP = plgpu.layout_cast(y_NP, plgpu.Layout.WGMMA_TRANSPOSED)
        out.at[pl.ds(row, piece)].transpose((1, 0))[...] = y_NP
        if row + piece == config.store_m:
            plgpu.commit_smem()
            m = pl.ds(i * config.tile_m + part * config.store_m, config.store_m)
            n = pl.ds(j * config.block_n() + warpgroup * tile_n, tile_n)
            plgpu.copy_smem_to_gmem(out, y_ref.at[m, n])

    each_block(block)
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
