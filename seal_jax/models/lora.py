"""LoRA deltas as plain trees (Hu et al. 2021), mirroring the paths they modify.

    {"layers_0": {"q_proj": {"a": [R, D], "b": [R, F]}, ...}, "layers_1": ...}

`b` is stored `[R, F]` so that forward and backward share one kernel layout. Many
adapters are stacked on the first axis of every leaf, `[A, R, D]`.
Adapters are float32 over any base dtype. The scale alpha / R is folded into `b` by
`scaled` when a delta is applied, so that the model knows nothing of it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.sharding import NamedSharding

from seal_jax.models import float8_base
from seal_jax.models.decoder import Arch, layer_name
from seal_jax.models.row_pages import Pages

type Tree = dict


def check(
    cfg: Arch, *, targets: tuple[str, ...], rank: int, name: str = "lora"
) -> None:
    """Refuses an adapter the model cannot carry; `name` is the config's.

    Raises:
      ValueError: a target the model does not have, none at all, or a bad rank.
    """
    linears = cfg.linears()
    if not targets or any(t not in linears for t in targets):
        rule = "each must be one" if targets else "must name one or more"
        raise ValueError(f"{name}.targets={list(targets)}: {rule} of {list(linears)}")
    widest = min(min(linears[t]) for t in targets)
    if not 1 <= rank <= widest:
        raise ValueError(
            f"{name}.rank={rank} must lie in 1..{widest}, the narrowest target's width;"
            f" use {min(max(rank, 1), widest)}"
        )


def init(key: Array, cfg: Arch, *, targets: tuple[str, ...], rank: int) -> Tree:
    """A fresh adapter: A kaiming-uniform with a = sqrt(5), as PEFT draws it; B zero.

    Raises:
      ValueError: see `check`.
    """
    check(cfg, targets=targets, rank=rank)
    linears = cfg.linears()
    names = list(linears)

    def a_of_layers(name: str) -> Array:
        # fold_in by the linear's place in a layer, so that adding a target leaves the
        # draws of the others as they were.
        d, _ = linears[name]
        own, bound = jax.random.fold_in(key, names.index(name)), d**-0.5
        shape = (cfg.layers, rank, d)
        return jax.random.uniform(own, shape, jnp.float32, -bound, bound)

    drawn = {name: a_of_layers(name) for name in targets}

    def layer(index: int) -> dict:
        return {
            name: {
                "a": drawn[name][index],
                "b": jnp.zeros((rank, linears[name][1]), jnp.float32),
            }
            for name in targets
        }

    return _layers(cfg, layer)


def _layers(cfg: Arch, layer: Callable[[int], dict]) -> Tree:
    return {layer_name(i): layer(i) for i in range(cfg.layers)}


def empty(
    cfg: Arch, *, targets: tuple[str, ...], rank: int, adapters: int, dtype: str
) -> Tree:
    """Stacked deltas of zeros, `[A, R, .]`, which add nothing until written to."""

    def zeros_of(name: str) -> dict[str, Array]:
        lead = (adapters, rank)
        d, f = cfg.linears()[name]
        return {"a": jnp.zeros((*lead, d), dtype), "b": jnp.zeros((*lead, f), dtype)}

    return _layers(cfg, lambda _: {name: zeros_of(name) for name in targets})


def join(first: Tree, second: Tree) -> Tree:
    """The sum of two deltas, as one: their ranks side by side, in `first`'s dtype.

    All axes but the rank's are equal; so are the targets. Scales are folded in.
    """
    return jax.tree.map(
        lambda x, y: jnp.concatenate([x, y.astype(x.dtype)], axis=-2), first, second
    )


def write(stack: Tree, block: Tree, at: int | Array) -> Tree:
    """`stack` with the ranks `at`, `at + 1`, ... taken by those of `block`.

    So a stack with room for n deltas, `[..., n R, .]`, is filled one after the other.
    What would lie beyond the last rank is moved back to end there; only a number is
    checked, since an `at` on the device is not known here.

    Raises:
      ValueError: a number `at` that leaves too few ranks.
    """

    def put(old: Array, new: Array) -> Array:
        room, rank = old.shape[-2], new.shape[-2]
        if isinstance(at, int) and not 0 <= at <= room - rank:
            raise ValueError(
                f"{rank} ranks at={at} do not fit a stack of {room}; at must lie in "
                f"0..{room - rank}"
            )
        new = new.astype(old.dtype)
        return jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=old.ndim - 2)

    return jax.tree.map(put, stack, block)


def per_linear(delta: Tree, change: Callable[[dict], dict]) -> Tree:
    """A delta with `change` made to each linear's `{"a", "b"}`."""
    return {
        layer: {name: change(ab) for name, ab in linears.items()}
        for layer, linears in delta.items()
    }


def scaled(delta: Tree, scale: float) -> Tree:
    """The delta as the model applies it: `b` times alpha / R."""
    return per_linear(delta, lambda ab: {"a": ab["a"], "b": ab["b"] * scale})


def cast(delta: Tree, cfg: Arch) -> Tree:
    """The delta in the base's dtype, in which the model multiplies with it anyway.

    Its gradient is then in that dtype as well, as autocast has it.
    """
    return jax.tree.map(lambda leaf: leaf.astype(cfg.dtype), delta)


def merge(params: Tree, delta: Tree, *, consume: bool = False) -> Tree:
    """Adds a scaled delta into the weights: `W + A^T B`, summed in float32.

    Weights of a narrower type are rounded stochastically, so that on average nothing
    of the delta is lost. To the nearest most of a small one would be: what is below
    half a unit in a weight's last place leaves the weight as it was, in every round
    anew. The draw's seed is the delta itself: the same delta merges to the same bits
    again, in a resumed run too. Weights in eight bits are made anew from the others.

    Every layer is a call of its own, so that one program is compiled for all of them,
    which are alike. On a mesh the weights stay where they are.

    `consume`: the memory of the linears that change becomes the new ones'.
    """
    sums_N, merged = _sums(delta), dict(params)
    # Sorted, as jax has them inside jit: by it the draws are told apart.
    for at, (layer, linears) in enumerate(sorted(delta.items())):
        old = {name: params[layer][name] for name in linears}
        add = _adding(_placed(old), consume)
        merged[layer] = params[layer] | add(old, linears, sums_N, np.uint32(at))
    return merged


def _placed(
    layer: Tree,
) -> tuple[tuple[str, tuple[tuple[str, NamedSharding], ...]], ...]:
    """Where linears' leaves lie on a mesh; nothing without one, and inside jit.

    Arrays that are bound to a device are others to jax than those that are not, and
    every program would be compiled again for them.
    """
    if _traced(layer):
        return ()
    found = {
        name: tuple(
            (key, leaf.sharding)
            for key, leaf in leaves.items()
            if isinstance(leaf, Array) and isinstance(leaf.sharding, NamedSharding)
        )
        for name, leaves in layer.items()
    }
    return tuple(found.items()) if all(found.values()) else ()


def _traced(tree: Tree) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


@functools.cache
def _adding(
    placed: tuple[tuple[str, tuple[tuple[str, NamedSharding], ...]], ...],
    consume: bool,
) -> Callable[..., Tree]:
    """Linears of a layer with theirs of a delta added to their kernels, compiled."""

    def add_to_layer(old: Tree, linears: Tree, sums_N: Array, at: Array) -> Tree:
        new, seed = {}, _folded(sums_N)
        for index, (name, ab) in enumerate(linears.items()):
            kernel = old[name][float8_base.KERNEL]
            key = jax.random.fold_in(seed, index)
            key = jax.random.fold_in(key, at)
            update = jnp.einsum("rd,rf->df", ab["a"], ab["b"])
            exact = _rounded(kernel.astype(jnp.float32) + update, kernel.dtype, key)
            new[name] = float8_base.with_kernel(old[name], exact)
        return new

    out = {name: dict(leaves) for name, leaves in placed} or None
    donated = 0 if consume else ()
    return jax.jit(add_to_layer, out_shardings=out, donate_argnums=donated)


def _sums(delta: Tree) -> Array | np.ndarray:
    """Of a delta's bits, leaf by leaf: the same in whatever order they are added."""
    leaves = jax.tree.leaves(delta)
    if not _traced(delta):
        # Sums of integers are the same here, and need no programs.
        bits = (np.asarray(leaf).astype(np.float32).view(np.uint32) for leaf in leaves)
        return np.array([x.sum(dtype=np.uint32) for x in bits])

    def total(leaf: Array) -> Array:
        bits = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
        return jnp.sum(bits, dtype=jnp.uint32)

    return jnp.stack([total(leaf) for leaf in leaves])


def _folded(sums_N: Array) -> Array:
    """A key of all sums."""
    # In a loop: hundreds of folds one after the other take a CPU's compiler long.
    key, _ = jax.lax.scan(
        lambda key, sum: (jax.random.fold_in(key, sum), None),
        jax.random.key(0),
        sums_N,
    )
    return key


def _rounded(exact: Array, dtype: jnp.dtype, key: Array) -> Array:
    """float32 to one of its two neighbours in `dtype`, the nearer one more often.

    The odds are such that the mean is `exact`. What `dtype` holds stays as it is, and
    so does what is not finite.

    Raises:
      ValueError: neither float32 nor bfloat16.
    """
    if dtype == jnp.float32:
        return exact
    if dtype != jnp.bfloat16:
        raise ValueError(f"dtype={dtype} must be float32 or bfloat16")
    # bfloat16 is float32 without its low 16 bits: a random number below 2**16 carries
    # into the rest as often as they are large.
    low = jax.random.bits(key, exact.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(exact, jnp.uint32) + low
    kept = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(exact), kept, exact).astype(dtype)


def stack(adapters: list[Tree]) -> Tree:
    """Many adapters as one tree, A first."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters)


def select(adapters: Tree, index: int | Array) -> Tree:
    """One adapter (or, with an index array, several) out of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[index], adapters)


def assign(
    adapters: Tree, slots_G: Array, *, chunks: int = 1, sound_S: Array | None = None
) -> Tree:
    """A stack as a delta of packed tokens: run g of them is under `slots_G[g]`.

    The tokens of a batch `[B, T]`, row by row, are cut into G runs of equal length. A
    slot outside the stack is no adapter at all. `chunks` equal parts of the tokens may
    be under the adapters of the same part of the stack alone. `sound_S` says which
    adapters are finite, if that is known (`lora_matmul_packed`).
    """
    more = {"slots": slots_G.reshape(chunks, -1)}
    if sound_S is not None:
        more["sound"] = sound_S
    return per_linear(adapters, lambda ab: {**ab, **more})


def shared(delta: Tree, pages: Pages) -> Tree:
    """Adapters of pages, `[G, R, .]`, as a delta of single rows that are in them."""
    return per_linear(delta, lambda ab: {**ab, "pages": pages})
