"""What a step on a text would do to a loss, known without one: gradients at the start.

An adapter starts with B = 0, so its loss has no slope in A, and that in B says how the
first step moves the model. Of a text and a target the *influence* is the inner product

    <grad_B L_text, grad_B L_target>

at that start: a step of SGD on the text, at a small rate, lowers the target's loss by
the rate times it. `L_text` is the sum of the text's lines' losses, what an epoch goes
through; `L_target` is that of the target's lines. All adapters have one A, drawn from
one key: with others their B's gradients would be of other coordinates. GREATS and G-DIG
rank training data so, and "Language Models Need Sleep" (arXiv 2606.03979) self-edits.

The lines are packed into global steps as for training, each read and differentiated
once. A target's gradient is held, `[R, F]` for each linear; a text's never is: what
each of its lines has is multiplied with the target's at once, and summed. No text
occurs in another's sum, so one that is not finite leaves the others as they are.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from seal_jax.models import decoder, float8_base, lora
from seal_jax.runtime import ahead, interrupts, meshes
from seal_jax.training import packed, plan, plan_arrays, plan_shards, teacher
from seal_jax.training.inner import EngineConfig
from seal_jax.training.plan_arrays import Extras


class Sizes(NamedTuple):
    """What a shard holds: gradients of `targets`, and influences of `texts`."""

    targets: int
    texts: int


class Held(NamedTuple):
    """`slopes`: of each target, `{layer: {linear: [P, R, F]}}`; `sums_E`: of texts."""

    slopes: lora.Tree
    sums_E: Array


class Influences(NamedTuple):
    """`values`: of each text, nan or infinite where something was; all positions that
    were computed, and those of lines among them."""

    values: np.ndarray
    computed_tokens: int
    tokens: int


class Text(NamedTuple):
    """`job`: a text's lines; `target`: index of that which it is held against."""

    job: plan.Job
    target: int


def sizes(cfg: EngineConfig, *, targets: int, most: int, shards: int = 1) -> Sizes:
    """For so many targets with at most `most` texts each.

    No more targets are held than adapters are in training, of which each has, besides,
    two moments and an A: where training fits, this does.
    """
    held = max(1, min(cfg.plan.slots, -(-targets // shards)))
    return Sizes(held, held * max(1, most))


def empty(
    arch: decoder.Arch, cfg: EngineConfig, size: Sizes, *, shards: int = 1
) -> Held:
    """Zeros, those of all shards side by side."""
    whole = lora.empty(
        arch,
        targets=cfg.targets,
        rank=cfg.rank,
        adapters=size.targets * shards,
        dtype="float32",
    )
    return Held(_b_of(whole), jnp.zeros(size.texts * shards))


def _b_of(adapters: lora.Tree) -> lora.Tree:
    return lora.per_linear(adapters, lambda ab: ab["b"])


def slopes(
    params: dict,
    fresh: lora.Tree,
    step: plan_arrays.Steps,
    arch: decoder.Arch,
    cfg: EngineConfig,
    extras: Extras,
    bank_UD: Array | None = None,
) -> lora.Tree:
    """The gradient in B of what lies in each place of a step, `[K, R, F]`.

    `fresh` is the adapter that all of them have, untrained.
    """

    def each(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (cfg.plan.places, *leaf.shape))

    adapters = jax.tree.map(each, fresh)

    def loss(b: lora.Tree) -> Array:
        joined = {
            layer: {
                name: {"a": ab["a"], "b": b[layer][name]}
                for name, ab in linears.items()
            }
            for layer, linears in adapters.items()
        }
        scaled = lora.scaled(joined, cfg.alpha / cfg.rank)
        return packed.loss(scaled, params, step, arch, cfg, extras, None, bank_UD)[0]

    return jax.grad(loss)(_b_of(adapters))


def run_block(
    params: dict,
    held: Held,
    of_E: Array,
    key: Array,
    begins: Array,
    steps: plan_arrays.Steps,
    counts: Array,
    extras: Extras,
    bank_UD: Array | None = None,
    *,
    arch: decoder.Arch,
    cfg: EngineConfig,
) -> Held:
    """The first `counts[0]` of `steps`, which read targets, or texts.

    Args:
      params: frozen base parameters, as `float8_base.running`.
      held: what there is so far.
      of_E: the target of each text, by its row.
      key: draws the one A.
      begins: bool `[]`, whether these are targets, whose gradients are added up.
      steps, counts: as of `packed.run_block`; nothing is trained.
      extras: `frozen` is the row of the target, or of the text, in each place.
      bank_UD: what teachers predict, if `cfg.teach`.
      arch, cfg: the decoder, and the inner loop.
    """
    params = float8_base.turned(params)
    fresh = _not_folded(lora.init(key, arch, targets=cfg.targets, rank=cfg.rank))

    def body(i: Array, held: Held) -> Held:
        step, more = jax.tree.map(lambda leaf: leaf[i], (steps, extras))
        own = slopes(params, fresh, step, arch, cfg, more, bank_UD)
        used_K = step.slots < cfg.plan.slots

        def place(k: Array, held: Held) -> Held:
            one, row = jax.tree.map(lambda leaf: leaf[k], own), more.frozen[k]

            def target(held: Held) -> Held:
                def add(old: Array, new: Array) -> Array:
                    both = old[row] + new
                    return jax.lax.dynamic_update_index_in_dim(old, both, row, 0)

                return held._replace(slopes=jax.tree.map(add, held.slopes, one))

            def text(held: Held) -> Held:
                other = jax.tree.map(lambda leaf: leaf[of_E[row]], held.slopes)
                return held._replace(sums_E=held.sums_E.at[row].add(_dot(one, other)))

            def both(held: Held) -> Held:
                return jax.lax.cond(begins, target, text, held)

            return jax.lax.cond(used_K[k], both, lambda held: held, held)

        return jax.lax.fori_loop(0, cfg.plan.places, place, held)

    return jax.lax.fori_loop(0, counts[0], body, held)


def _not_folded(fresh: lora.Tree) -> lora.Tree:
    """The same adapter, whose B is zero by what is drawn and not by a constant.

    Of a constant XLA works out, as it compiles, what the kernels ask of it, element by
    element, which takes minutes at 7B.
    """

    def change(ab: dict) -> dict:
        return {"a": ab["a"], "b": ab["b"] + 0.0 * ab["a"][0, 0]}

    return lora.per_linear(fresh, change)


def _dot(one: lora.Tree, other: lora.Tree) -> Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), one, other)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))


@functools.cache
def program(
    arch: decoder.Arch, cfg: EngineConfig, mesh: Mesh | None, size: Sizes
) -> jax.stages.Compiled:
    """`run_block`, compiled, what is held donated: one program for both passes.

    On a mesh each shard of the axis `data` has targets and texts of its own; nothing
    crosses between shards.
    """
    run = functools.partial(run_block, arch=arch, cfg=cfg)
    args = arguments(arch, cfg, mesh, size)
    if mesh is None:
        jitted = jax.jit(run, donate_argnums=1)
        return packed.compiled(jitted.lower(*args), None)
    shard = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=_specs(cfg),
        out_specs=PartitionSpec("data"),
        axis_names={"data"},
        check_vma=False,
    )
    out = meshes.named(mesh, PartitionSpec("data"))
    jitted = jax.jit(shard, donate_argnums=1, out_shardings=out)
    return packed.compiled(jitted.lower(*args), mesh)


def _specs(cfg: EngineConfig) -> tuple[PartitionSpec, ...]:
    whole, cut = PartitionSpec(), PartitionSpec("data")
    return whole, cut, cut, whole, whole, cut, cut, cut, *(cut,) * bool(cfg.teach)


def arguments(
    arch: decoder.Arch, cfg: EngineConfig, mesh: Mesh | None, size: Sizes
) -> tuple:
    """What `program` takes: shapes, dtypes and, on a mesh, shardings."""
    shards = meshes.shards(mesh)
    count = plan_arrays.BLOCK * shards
    steps = plan_arrays.empty_steps(cfg.plan, eos=0, count=count)
    extras = plan_arrays.empty_extras(
        cfg.plan,
        anchored=cfg.divergence,
        frozen=True,
        taught=bool(cfg.teach),
        count=count,
    )

    def like() -> tuple:
        key = jax.random.key(0)
        made = (
            float8_base.running(decoder.init_params(key, arch)),
            empty(arch, cfg, size, shards=shards),
            jnp.zeros(size.texts * shards, jnp.int32),
            key,
            jnp.zeros((), bool),
        )
        bank = (teacher.empty(arch, cfg, shards=shards),) if cfg.teach else ()
        return *made, steps, np.zeros(shards, np.int32), extras, *bank

    args = jax.eval_shape(like)
    if mesh is None:
        return args
    whole = packed.arguments(arch, cfg, mesh)[0]
    shardings = meshes.named(mesh, _specs(cfg))[1:]
    return whole, *jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        args[1:],
        jax.tree.broadcast(shardings, args[1:]),
    )


def measure(
    params: dict,
    targets: Sequence[plan.Job],
    texts: Sequence[Text],
    key: Array,
    *,
    most: int,
    arch: decoder.Arch,
    cfg: EngineConfig,
    eos: int,
    mesh: Mesh | None = None,
) -> Influences:
    """The influence of every text on its target.

    Only the lines of jobs count, each once, its loss weighted as a step of its own.

    Args:
      params: frozen base parameters; on a mesh, placed as
        `placement.param_shardings`.
      targets: the lines of each target.
      texts: what is held against them, at most `most` for each.
      key: typed, draws the one A that all have.
      most: see above; the program is made for it.
      arch: the decoder.
      cfg: hyper-parameters of the adapters, and how lines are packed.
      eos: end-of-text id.
      mesh: devices to share the work, or None for the one that holds `params`.

    Raises:
      ValueError: more texts of a target than `most`; or see `plan_arrays.blocks`.
    """
    shards = meshes.shards(mesh)
    size = sizes(cfg, targets=len(targets), most=most, shards=shards)
    own = _by_target(texts, len(targets))
    if (found := max(map(len, own), default=0)) > most:
        raise ValueError(f"{found} texts of a target must be at most most={most}")
    run = program(arch, cfg, mesh, size)
    running = float8_base.running(params)
    key = meshes.put(key, mesh)
    call = functools.partial(
        _pass, running, run, key, arch=arch, cfg=cfg, eos=eos, mesh=mesh
    )
    values, costs = np.full(len(texts), np.nan), np.zeros(2, int)
    work = [
        _positions(job) + sum(_positions(texts[e].job) for e in group)
        for job, group in zip(targets, own, strict=True)
    ]
    for first in range(0, len(targets), size.targets * shards):
        here = range(first, min(first + size.targets * shards, len(targets)))
        shares = _shares([work[p] for p in here], shards, most=size.targets)
        of_shards = [[here[i] for i in share] for share in shares]
        laid = [[e for p in share for e in own[p]] for share in of_shards]
        of_E = np.zeros(size.texts * shards, np.int32)
        for shard, (share, group) in enumerate(zip(of_shards, laid, strict=True)):
            row_of = {p: row for row, p in enumerate(share)}
            begin = shard * size.texts
            of_E[begin : begin + len(group)] = [row_of[texts[e].target] for e in group]
        held = _empty(arch, cfg, size, mesh)
        of_E = meshes.put(of_E, mesh, "data")
        held, cost = call(
            held, of_E, [_rows_of(share, targets) for share in of_shards], begins=True
        )
        costs += cost
        jobs = [text.job for text in texts]
        for piece in _pieces([_rows_of(group, jobs) for group in laid], cfg):
            held, cost = call(held, of_E, piece, begins=False)
            costs += cost
        sums = held.sums_E if mesh is None else meshes.gather(held.sums_E, mesh)
        for shard, group in enumerate(laid):
            begin = shard * size.texts
            values[group] = np.asarray(sums)[begin : begin + len(group)]
    return Influences(values, *costs.tolist())


# Jobs of a shard, each with its row of what is held there.
type _Rows = list[tuple[int, plan.Job]]


def _by_target(texts: Sequence[Text], targets: int) -> list[list[int]]:
    own: list[list[int]] = [[] for _ in range(targets)]
    for e, text in enumerate(texts):
        own[text.target].append(e)
    return own


def _rows_of(group: Sequence[int], jobs: Sequence[plan.Job]) -> _Rows:
    return [(row, jobs[i]) for row, i in enumerate(group)]


def _positions(job: plan.Job) -> int:
    return sum(job.positions())


def _shares(work: Sequence[int], shards: int, *, most: int) -> list[list[int]]:
    """Which of the targets each shard has, at most `most`, balanced by `work`."""
    load, shares = [0] * shards, [[] for _ in range(shards)]
    for i in sorted(range(len(work)), key=lambda i: -work[i]):
        open_ = [d for d in range(shards) if len(shares[d]) < most]
        shard = min(open_, key=lambda d: load[d])
        shares[shard].append(i)
        load[shard] += work[i]
    return [sorted(share) for share in shares]


def _pieces(of_shards: Sequence[_Rows], cfg: EngineConfig) -> list[list[_Rows]]:
    """The rows of all shards, cut so that what their teachers predict fits the bank."""
    room = cfg.bank * cfg.pool if cfg.teach else None
    cut: list[list[_Rows]] = []
    for rows in of_shards:
        pieces: list[_Rows] = [[]]
        taken = 0
        for row, job in rows:
            need = sum(one.targets for one in job.taught if one)
            if room is not None and pieces[-1] and taken + need > room:
                pieces.append([])
                taken = 0
            pieces[-1].append((row, job))
            taken += need
        cut.append(pieces)
    count = max(map(len, cut), default=0)
    return [
        [pieces[i] if i < len(pieces) else [] for pieces in cut] for i in range(count)
    ]


def _pass(
    params: dict,
    run: Callable[..., Held],
    key: Array,
    held: Held,
    of_E: Any,
    of_shards: Sequence[_Rows],
    *,
    begins: bool,
    arch: decoder.Arch,
    cfg: EngineConfig,
    eos: int,
    mesh: Mesh | None,
) -> tuple[Held, tuple[int, int]]:
    """What is held after all lines of these jobs; positions computed, and of lines."""
    flat = [pair for rows in of_shards for pair in rows]
    if not flat:
        return held, (0, 0)
    jobs = [job for _, job in flat]
    starts = np.cumsum([0, *map(len, of_shards)]).tolist()
    shares = [list(range(first, last)) for first, last in itertools.pairwise(starts)]
    more, shelved = (), None
    if cfg.teach:
        shelves, shelved = teacher.shared(jobs, shares, cfg)
        bank, _ = teacher.fill(params, shelves, arch=arch, cfg=cfg, eos=eos, mesh=mesh)
        more = (bank,)
    laid = plan_shards.blocks(
        *(jobs, shares, cfg),
        eos=eos,
        mesh=mesh,
        frozen_of=[row for row, _ in flat],
        shelved=shelved,
    )
    totals = plan_shards.Totals(mesh)
    flag = meshes.put(np.asarray(begins), mesh)
    for blocks in ahead.ahead(laid):
        interrupts.check()
        steps, counts, extras = plan_shards.put(blocks, mesh)
        held = run(params, held, of_E, key, flag, steps, counts, extras, *more)
        totals.add(blocks)
    tokens, _, _, computed = totals.of_all()
    return held, (computed, tokens)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _empty(
    arch: decoder.Arch, cfg: EngineConfig, size: Sizes, mesh: Mesh | None
) -> Held:
    held = empty(arch, cfg, size, shards=meshes.shards(mesh))
    return meshes.split_rows(held, mesh)
