"""The inner loop against torch + PEFT, and many adapters against one."""

import dataclasses
import functools
import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trainings
from safetensors.numpy import load_file

from seal_jax.models import decoder, hf, lora
from seal_jax.training import inner, packed, plan, plan_arrays
from seal_jax.training.settings import LossConfig, PlanConfig
from seal_kernels.adam import api as adam_op
from seal_kernels.adam import triton_gpu as adam_triton
from seal_kernels.lora_matmul import dispatch
from seal_kernels.lora_matmul import triton_gpu as low_rank_triton

GOLDEN = Path(__file__).parents[1] / "golden" / "inner"
MASKED = LossConfig(mode="masked", pad_to=64, pad_samples=0)
EXACT = LossConfig(mode="reference", pad_to=64, pad_samples=-1)

ARCH = decoder.Arch("qwen2", 64, 32, 2, 4, 2, 8, 48, 128, qkv_bias=True, tied=True)
EOS = 63

# Compiled once per config and shape; the functions stay what they are.
STEP = jax.jit(inner.train_step, static_argnums=(5, 6))
ADAPT = jax.jit(inner.adapt, static_argnums=(6, 7))
LOSS = jax.jit(inner.batch_loss, static_argnums=3)
WIDTH = 32


def config(**changes) -> inner.EngineConfig:
    sizes = {"tile": 4, "row_tokens": WIDTH, "step_tokens": 64, "slots": 3, "active": 3}
    sizes |= {"chunk_tokens": 0, "by_slot": False}
    sizes |= {name: changes.pop(name) for name in list(changes) if name in sizes}
    base = dict(targets=("q_proj", "v_proj"), rank=4, alpha=8.0, pool=6)
    return inner.EngineConfig(**(base | changes), plan=PlanConfig(**sizes))


def tree(file: Path) -> dict:
    """An adapter of a golden file, whose leaves hold all layers."""
    nested: dict = {}
    for key, leaf in load_file(file).items():
        _, name, side = key.split("/")
        for i, of_layer in enumerate(leaf):
            layer = nested.setdefault(f"layers_{i}", {})
            layer.setdefault(name, {})[side] = jnp.asarray(of_layer)
    return nested


def stack(rows, width: int = 0, count: int = 0) -> dict:
    """Rows as arrays `[B, T]`, filled up to so many positions and lines."""
    width = max(width, *(len(row["tokens"]) for row in rows))
    missing = max(0, count - len(rows))
    return {
        name: np.stack(
            [np.pad(row[name], (0, width - len(row[name]))) for row in rows]
            + [np.zeros(width, rows[0][name].dtype)] * missing
        )
        for name in rows[0]
    }


def first_step(lines, loss, *, width: int, eos: int = 63, seed: int = 0, **job) -> dict:
    """Arrays `[B, T]` of a step on all these lines, in any order."""
    lines = tuple(map(tuple, lines))
    own = plan.Job(lines, (seed,), 1, 1e-3, 1.0, loss, batch=len(lines), **job)
    (rows,) = plan_arrays.rows(own, eos=eos, multiple=1)
    return stack(rows, width)


@pytest.mark.parametrize(("mode", "loss"), [("masked", MASKED), ("reference", EXACT)])
def test_a_run_equals_torch_and_peft_step_by_step(mode, loss):
    golden = json.loads((GOLDEN / "inner.json").read_text())
    path = GOLDEN / golden["model"]
    arch = hf.read_config(path, dtype="float32")
    params = hf.load_params(path, arch)
    cfg = config(rank=golden["rank"], alpha=golden["alpha"])
    rows = [
        first_step([golden["lines"][i]], loss, width=64, eos=golden["eos_id"])
        for i in golden["order"]
    ]
    rates = golden["lr"] * (1 - np.arange(len(rows), dtype=np.float32) / len(rows))
    clip = jnp.float32(golden["clip"])
    slot = inner.init_slot(tree(GOLDEN / "initial.safetensors"))
    losses = []
    for row, rate in zip(rows, rates, strict=True):
        before = slot.loss_sum
        slot = STEP(params, slot, row, rate, clip, arch, cfg)
        losses.append(float(slot.loss_sum - before))
    np.testing.assert_allclose(losses, golden["modes"][mode]["losses"], rtol=2e-5)
    # Adam turns a gradient of any size into a step of the learning rate's size, so the
    # final weights are compared against how far they moved.
    final, initial = (
        tree(GOLDEN / f"{mode}.safetensors"),
        tree(GOLDEN / "initial.safetensors"),
    )
    moved = max(
        float(jnp.abs(f - i).max())
        for f, i in zip(jax.tree.leaves(final), jax.tree.leaves(initial), strict=True)
    )
    assert moved > 3e-3
    for ours, theirs in zip(
        jax.tree.leaves(slot.adapter), jax.tree.leaves(final), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=0.01 * moved)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    fresh, total = tree(GOLDEN / "initial.safetensors"), jnp.int32(len(rows))
    scanned = ADAPT(params, fresh, stacked, rates, clip, total, arch, cfg)
    for a, b in zip(
        jax.tree.leaves(scanned.adapter), jax.tree.leaves(slot.adapter), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


# The packed run against the definition

MOST_LINES, MOST_EPOCHS, MOST_BATCH = 4, 3, 3


def workload(seed: int, count: int, *, losses=(MASKED,), longest=14) -> list[plan.Job]:
    """Jobs that differ in lines, lengths, epochs, learning rate, clip and loss mode."""
    rng = np.random.default_rng(seed)
    return [
        plan.Job(
            tuple(
                tuple(int(t) for t in rng.integers(0, 60, rng.integers(2, longest)))
                for _ in range(rng.integers(1, MOST_LINES + 1))
            ),
            (seed, j),
            epochs=int(rng.integers(1, MOST_EPOCHS + 1)),
            learning_rate=float(rng.choice([3e-3, 1e-2])),
            clip=float(rng.choice([0.05, 1.0])),
            loss=losses[j % len(losses)],
        )
        for j in range(count)
    ]


def few_shot(seed: int, count: int, *, losses=(MASKED,), most=3) -> list[plan.Job]:
    """Jobs that differ in batch, given tokens, warm-up and schedule as well.

    Lines of 3 tokens up to a whole row; steps of up to `most` lines.
    """
    rng = np.random.default_rng(seed)
    jobs = workload(seed, count, losses=losses, longest=WIDTH // 2)
    made = []
    for j, job in enumerate(jobs):
        lengths = [3, *map(len, job.lines[1:]), WIDTH - j][: 1 + MOST_LINES - j % 3]
        lines = tuple(
            tuple(rng.integers(0, 60, n).tolist()) for n in lengths[-MOST_LINES:]
        )
        few = dataclasses.replace(
            job,
            lines=lines,
            batch=1 + j % most,
            given=tuple(int(rng.integers(1, len(ids) + 1)) for ids in lines),
            warmup=(0, 1, 2)[(j + seed) % 3],
            schedule=("cosine", "linear")[j % 2],
        )
        made.append(few)
    return made


def definition_args(job: plan.Job) -> tuple:
    """What `adapt` trains for a job: rows of one width, rates, clip, total steps.

    Filled up with lines of no weight and with steps beyond the total, so that jobs
    share one compiled program.
    """
    lines = 1 if job.batch == 1 else MOST_BATCH
    steps = plan_arrays.rows(job, eos=EOS, multiple=1)
    batches = [stack(rows, WIDTH, lines) for rows in steps]
    missing = MOST_LINES * MOST_EPOCHS - len(batches)
    stacked = jax.tree.map(
        lambda *leaves: np.stack(leaves), *batches, *[batches[0]] * missing
    )
    rates = np.pad(job.rates(), (0, missing))
    return stacked, rates, jnp.float32(job.clip), jnp.int32(job.total)


def solo(params, job: plan.Job, key, cfg: inner.EngineConfig) -> inner.Slot:
    """The definition: `adapt` on this job, alone."""
    fresh = lora.init(key, ARCH, targets=cfg.targets, rank=cfg.rank)
    slot = ADAPT(params, fresh, *definition_args(job), ARCH, cfg)
    return slot._replace(adapter=lora.scaled(slot.adapter, cfg.alpha / cfg.rank))


SAMPLED, UNSAMPLED = (LossConfig("reference", WIDTH, n) for n in (3, 0))
WHOLE = LossConfig("reference", WIDTH, -1)
CHUNKED = {"tile": 1, "slots": 4, "active": 2, "chunk_tokens": 8}
BY_SLOT = {"tile": 1, "slots": 4, "active": 4, "by_slot": True}
WORKLOADS = [
    (config(), 6, (MASKED,)),
    (config(slots=6, active=4, step_tokens=32), 6, (MASKED, SAMPLED)),
    (config(targets=tuple(ARCH.linears()), rank=2, alpha=2.0), 5, (MASKED,)),
    (config(tile=1), 4, (SAMPLED, UNSAMPLED)),
    (config(tile=16, step_tokens=128, pool=9), 6, (MASKED, UNSAMPLED, WHOLE)),
    # The program of the slopes below.
    (config(**CHUNKED, resumes=True), 6, (MASKED, SAMPLED)),
    (config(**BY_SLOT), 6, (MASKED, SAMPLED)),
]


def assert_packed_equals_solo(jobs, cfg):
    params, count = decoder.init_params(jax.random.key(0), ARCH), len(jobs)
    keys = jax.random.split(jax.random.key(1), count)
    trained = packed.train(params, jobs, keys, arch=ARCH, cfg=cfg, eos=EOS)
    assert trained.finite_A.all()
    assert trained.adapter_steps == sum(job.total for job in jobs)
    assert trained.computed_tokens == trained.steps * cfg.plan.step_tokens
    for a, job in enumerate(jobs):
        alone = solo(params, job, keys[a], cfg)
        trainings.assert_alike(lora.select(trained.adapters, a), alone.adapter)
        np.testing.assert_allclose(
            trained.loss_A[a], alone.loss_sum / job.total, rtol=1e-4
        )


@pytest.mark.parametrize(("cfg", "count", "losses"), WORKLOADS)
def test_every_packed_adapter_equals_its_solo_run(cfg, count, losses):
    assert_packed_equals_solo(workload(count, count, losses=losses), cfg)


PADDED, PADDED_SAMPLED, PADDED_UNSAMPLED = (
    LossConfig("padded", 2, n) for n in (-1, 3, 0)
)
CHUNKS_OF_LINES = {"step_tokens": 96, "slots": 4, "active": 2, "chunk_tokens": 16}
FEW_SHOTS = [
    (config(step_tokens=96), 6, (MASKED, PADDED)),
    (config(step_tokens=96, slots=1, active=1), 3, (MASKED, PADDED)),
    (config(step_tokens=128, tile=1), 6, (PADDED_UNSAMPLED, MASKED, PADDED_SAMPLED)),
    (config(**CHUNKS_OF_LINES), 6, (MASKED, PADDED)),
    (config(step_tokens=96, slots=4, active=2, by_slot=True), 6, (MASKED, PADDED)),
    # Steps of one line beside batches, in one plan.
    (config(step_tokens=160, tile=16, pool=9), 7, (MASKED, PADDED_SAMPLED, SAMPLED)),
]


@pytest.mark.parametrize(("cfg", "count", "losses"), FEW_SHOTS)
def test_every_packed_few_shot_adapter_equals_its_solo_run(cfg, count, losses):
    rest = [loss for loss in losses if loss != SAMPLED]
    jobs = few_shot(count, count, losses=rest)
    if SAMPLED in losses:
        jobs[1:3] = workload(1, 2, losses=(SAMPLED,))
    assert {len(batch) for job in jobs for batch in job.batches()} == {1, 2, 3}
    assert_packed_equals_solo(jobs, cfg)


def test_short_steps_are_the_same_steps(monkeypatch):
    """The last adapters' steps, by a program of their own, which a plan asks for."""
    params = decoder.init_params(jax.random.key(0), ARCH)
    jobs = workload(9, 6)
    jobs = [*jobs[:-1], dataclasses.replace(jobs[-1], epochs=30)]
    keys = jax.random.split(jax.random.key(1), 6)
    cfg = config(slots=8, active=8, step_tokens=16 * WIDTH)
    run = functools.partial(packed.train, params, jobs, keys, arch=ARCH, eos=EOS)
    monkeypatch.setattr(plan, "LEAST_SPARED", 1000)
    assert cfg.short is not None and 8 * cfg.short.places <= cfg.plan.slots
    got = run(cfg=cfg)
    monkeypatch.setattr(plan, "LEAST_SPARED", 10**9)
    want = run(cfg=cfg)
    assert (got.steps, got.adapter_steps) == (want.steps, want.adapter_steps)
    assert got.computed_tokens < want.computed_tokens / 2
    trainings.assert_stacks_alike(got.adapters, want.adapters)
    np.testing.assert_allclose(got.loss_A, want.loss_A, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": 9},
        {"by_slot": True, "active": 8},
        {"chunk_tokens": 8},
        {"step_tokens": WIDTH},
    ],
    ids=str,
)
def test_steps_stay_as_long_where_slots_are_refilled_or_places_are_few(changes):
    sizes = {"slots": 8, "active": 2, "pool": 8, "step_tokens": 16 * WIDTH}
    assert config(**sizes).short is not None
    assert config(**(sizes | changes)).short is None


def test_chunks_with_all_their_adapters_at_once_are_the_same():
    """As on accelerators; lines that lie in two chunks are among them."""
    params = decoder.init_params(jax.random.key(0), ARCH)
    jobs, keys = few_shot(5, 6, most=2), jax.random.split(jax.random.key(1), 6)
    cfg = config(**CHUNKED)
    blocks = list(plan_arrays.blocks(jobs, cfg.plan, eos=EOS))
    assert sum(block.extras.fold_count.sum() for block in blocks) > 20
    run = functools.partial(packed.train, params, jobs, keys, eos=EOS)
    dense = dataclasses.replace(ARCH, kernel="dense")
    got = run(arch=dense, cfg=cfg)
    want = run(arch=ARCH, cfg=config(tile=1))
    trainings.assert_stacks_alike(got.adapters, want.adapters)
    np.testing.assert_allclose(got.loss_A, want.loss_A, rtol=1e-4)


def test_by_kernels_for_a_gpu_it_is_the_same(monkeypatch):
    """Where an adapter lies, the products and the optimizer's step: interpreted."""
    params = decoder.init_params(jax.random.key(0), ARCH)
    jobs, keys = few_shot(5, 6, most=2), jax.random.split(jax.random.key(1), 6)
    # A rank that the products' kernels take.
    cfg = config(**BY_SLOT, rank=16, alpha=32.0)
    run = functools.partial(packed.train, params, jobs, keys, cfg=cfg, eos=EOS)
    want = run(arch=ARCH)
    packed.program.cache_clear()
    stepped = []

    def step(old, slope, by, rule):
        stepped.append(slope.shape)
        numbers = adam_op._numbers(by, rule)
        moved = adam_triton.step(old, slope, numbers, rule, interpret=True)
        return adam_op.Moved(*moved)

    products = types.SimpleNamespace(
        forward=functools.partial(low_rank_triton.forward, interpret=True),
        backward=functools.partial(low_rank_triton.backward, interpret=True),
    )
    monkeypatch.setattr(dispatch, "xla", products)
    monkeypatch.setattr(adam_op, "reference", step)
    got = run(arch=dataclasses.replace(ARCH, kernel="xla"))
    packed.program.cache_clear()
    assert set(stepped) == {(4, 16, 32), (4, 16, 16)}
    trainings.assert_stacks_alike(got.adapters, want.adapters)
    np.testing.assert_allclose(got.loss_A, want.loss_A, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, CHUNKED, BY_SLOT], ids=str)
def test_slopes_are_the_definitions(changes):
    params = decoder.init_params(jax.random.key(0), ARCH)
    cfg = config(resumes=True, **changes)
    assert cfg.alpha != cfg.rank  # Else a missing scale would not show.
    jobs, keys = workload(5, 4), jax.random.split(jax.random.key(1), 4)
    trained = packed.train(params, jobs, keys, arch=ARCH, cfg=cfg, eos=EOS)
    for a, job in enumerate(jobs):
        fresh = lora.init(keys[a], ARCH, targets=cfg.targets, rank=cfg.rank)
        alone = ADAPT(params, fresh, *definition_args(job), ARCH, cfg)
        own = jax.tree.map(lambda leaf, a=a: leaf[a], trained.slots)
        trainings.assert_slopes_alike(own, alone)


@pytest.mark.parametrize("changes", [CHUNKED, BY_SLOT], ids=str)
def test_in_bfloat16_the_first_slope_is_the_definitions_and_rounded_like_it(changes):
    arch = dataclasses.replace(ARCH, layers=1, dtype="bfloat16")
    params = decoder.init_params(jax.random.key(0), arch)
    cfg = config(resumes=True, **changes)
    jobs = [
        dataclasses.replace(job, lines=(max(job.lines, key=len),), epochs=1, clip=1e9)
        for job in workload(5, 4)
    ]
    (block,) = plan_arrays.blocks(jobs, cfg.plan, eos=EOS)
    if cfg.plan.chunks > 1:  # Sums of several places are rounded, too.
        assert block.extras.fold_count.sum()
    keys = jax.random.split(jax.random.key(1), 4)
    trained = packed.train(params, jobs, keys, arch=arch, cfg=cfg, eos=EOS)
    for a, job in enumerate(jobs):
        fresh = lora.init(keys[a], arch, targets=cfg.targets, rank=cfg.rank)
        alone = ADAPT(params, fresh, *definition_args(job), arch, cfg)
        own = jax.tree.map(lambda leaf, a=a: leaf[a], trained.slots)
        assert trainings.apart(own.adam.mu, alone.adam.mu) < 0.02
        for moments in (own.adam.mu, alone.adam.mu):
            slope = np.float32(10) * np.concatenate(
                [
                    np.ravel(ab["b"])
                    for layer in moments.values()
                    for ab in layer.values()
                ]
            )
            rounded = np.asarray(jnp.asarray(slope, jnp.bfloat16), np.float32)
            assert slope.any()
            np.testing.assert_allclose(slope, rounded, rtol=1e-6)


def test_what_is_packed_says_which_adapters_are_sound(monkeypatch):
    """So that on accelerators they are not read once more to see."""
    told = []
    assign = lora.assign

    def watched(*args, **settings):
        delta = assign(*args, **settings)
        told.extend(ab.get("sound") for one in delta.values() for ab in one.values())
        return delta

    monkeypatch.setattr(lora, "assign", watched)
    monkeypatch.setattr(packed, "compiled", lambda lowered, mesh: lowered)
    cfg = config()
    packed.program.__wrapped__(ARCH, cfg, None)
    assert {(x.shape, x.dtype.name) for x in told} == {((cfg.plan.places,), "bool")}


def test_a_gpus_program_has_compiler_options(monkeypatch):
    taken = []
    lowered = types.SimpleNamespace(compile=taken.append)
    gpu = types.SimpleNamespace(platform="gpu")
    packed.compiled(lowered, None)
    packed.compiled(lowered, types.SimpleNamespace(devices=np.array([[gpu]])))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    packed.compiled(lowered, None)
    assert taken == [None, packed.GPU_OPTIONS, packed.GPU_OPTIONS]
    # XLA refuses a name that it does not know, on any device.
    assert len(packed.GPU_OPTIONS) == 2
    doubled = jax.jit(lambda x: 2 * x).lower(1.0).compile(packed.GPU_OPTIONS)
    assert doubled(3.0) == 6.0


@pytest.mark.parametrize(
    ("make", "others"),
    [
        # Programs that are compiled above.
        (workload, [{"slots": 6, "active": 4, "step_tokens": 32}]),
        (
            functools.partial(few_shot, most=2),
            [CHUNKS_OF_LINES, {"step_tokens": 96}],
        ),
    ],
)
def test_the_budget_the_slots_and_the_neighbours_do_not_matter(make, others):
    params = decoder.init_params(jax.random.key(0), ARCH)
    jobs, keys = make(5, 6), jax.random.split(jax.random.key(1), 6)
    run = functools.partial(packed.train, params, arch=ARCH, eos=EOS)
    first = run(jobs, keys, cfg=config()).adapters
    for other in others:
        again = run(jobs, keys, cfg=config(**other)).adapters
        trainings.assert_stacks_alike(again, first)
    # Other neighbours, in another order and so in other slots.
    order = np.array([4, 0, 2])
    some = run([jobs[i] for i in order], keys[order], cfg=config()).adapters
    some = lora.select(some, np.arange(3))
    trainings.assert_stacks_alike(some, lora.select(first, order))


def test_a_pool_cut_into_blocks_gives_the_same(monkeypatch):
    params = decoder.init_params(jax.random.key(0), ARCH)
    jobs, keys = workload(6, 6), jax.random.split(jax.random.key(1), 6)
    run = functools.partial(packed.train, params, jobs, keys, arch=ARCH, eos=EOS)
    whole = run(cfg=config())
    assert whole.steps > 4
    monkeypatch.setattr(plan_arrays, "BLOCK", 3)
    cut = run(cfg=config())
    assert (cut.steps, cut.tokens) == (whole.steps, whole.tokens)
    for a, b in zip(
        jax.tree.leaves(cut.adapters), jax.tree.leaves(whole.adapters), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_plan_for_another_round_runs_the_same_program():
    params = decoder.init_params(jax.random.key(0), ARCH)
    keys = jax.random.split(jax.random.key(1), 6)
    run = functools.partial(packed.train, params, arch=ARCH, cfg=config(), eos=EOS)
    run(workload(1, 6), keys)
    compiled = packed.program.cache_info().misses
    run(workload(2, 3, losses=(SAMPLED,)), keys[:3])
    assert packed.program.cache_info().misses == compiled


@pytest.mark.parametrize(("make", "batch"), [(workload, 1), (few_shot, 2)])
def test_vmapped_adapt_equals_solo_runs_of_different_length(make, batch):
    params = decoder.init_params(jax.random.key(0), ARCH)
    cfg, jobs = config(), make(7, 3)
    jobs = [dataclasses.replace(job, batch=batch) for job in jobs]
    keys = jax.random.split(jax.random.key(2), 3)
    rows, *rest = jax.tree.map(
        lambda *leaves: np.stack(leaves), *map(definition_args, jobs)
    )
    fresh = jax.vmap(lambda k: lora.init(k, ARCH, targets=cfg.targets, rank=cfg.rank))(
        keys
    )
    many = jax.vmap(inner.adapt, in_axes=(None, 0, 0, 0, 0, 0, None, None))(
        params, fresh, rows, *rest, ARCH, cfg
    )
    scaled = lora.scaled(many.adapter, cfg.alpha / cfg.rank)
    for a, job in enumerate(jobs):
        own = jax.tree.map(lambda leaf, a=a: leaf[a], scaled)
        trainings.assert_alike(own, solo(params, job, keys[a], cfg).adapter)


@pytest.mark.parametrize(
    ("bad", "batch", "kernel"),
    [
        (jnp.nan, 1, "by slot"),
        (1e30, 1, "by slot"),
        (jnp.nan, 1, "auto"),
        (jnp.nan, 2, "auto"),
        (jnp.inf, 1, "auto"),
        (1e30, 1, "auto"),
        (jnp.nan, 1, "dense"),
        (1e30, 1, "dense"),
    ],
)
def test_an_adapter_that_diverges_changes_no_bit_of_its_neighbours(bad, batch, kernel):
    by_slot = kernel == "by slot"
    arch = dataclasses.replace(ARCH, kernel="auto" if by_slot else kernel)
    params = decoder.init_params(jax.random.key(0), arch)
    # All lines share one row of attention, and so every matmul and softmax.
    sizes = {"slots": 4, "active": 4, "row_tokens": 128, "step_tokens": 128}
    cfg = config(**sizes, by_slot=by_slot)
    jobs, keys = workload(3, 4), jax.random.split(jax.random.key(1), 6)
    jobs = [dataclasses.replace(job, batch=batch) for job in jobs]
    (block,) = plan_arrays.blocks(jobs, cfg.plan, eos=EOS)
    assert block.steps.start_count[0] == 4

    def run(poison: bool) -> packed.FinishedPool:
        train, state = packed.program(arch, cfg, None), packed.init_state(arch, cfg)
        state = train(params, state, keys, block.steps, np.array([1], np.int32))
        if poison:
            slots = state.slots
            spoil = functools.partial(jax.tree.map, lambda x: x.at[2].set(bad))
            slots = slots._replace(adapter=spoil(slots.adapter))
            # None, where the model multiplies with copies.
            state = state._replace(slots=slots, applied=spoil(state.applied))
        rest = jax.tree.map(lambda leaf: np.roll(leaf, -1, axis=0), block.steps)
        left = np.array([block.length - 1], np.int32)
        return train(params, state, keys, rest, left).results

    clean, poisoned = run(poison=False), run(poison=True)
    job = int(block.steps.starts[0][block.steps.starts[0][:, 0] == 2][0, 1])
    others = [j for j in range(4) if j != job]
    assert clean.finite_A[:4].all()
    assert not poisoned.finite_A[job]
    assert np.asarray(poisoned.finite_A)[others].all()
    pairs = zip(
        jax.tree.leaves(clean.adapters), jax.tree.leaves(poisoned.adapters), strict=True
    )
    for a, b in pairs:
        np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e30])
def test_an_adapter_is_spoilt_as_a_whole(bad):
    """Also by a norm that overflows, so that one of its numbers tells of all."""
    fresh = lora.init(jax.random.key(0), ARCH, targets=config().targets, rank=2)
    ones = jax.tree.map(jnp.ones_like, fresh)
    ones["layers_1"]["v_proj"]["b"] = ones["layers_1"]["v_proj"]["b"].at[1, 2].set(bad)
    step = jnp.float32(0.1), jnp.float32(1)
    slot = inner.update(inner.init_slot(fresh), ones, jnp.float32(0), *step)
    both = lora.stack([slot.adapter, fresh])
    for leaf in jax.tree.leaves(both):
        assert np.isnan(leaf[0]).all() and np.isfinite(leaf[1]).all()
    np.testing.assert_array_equal(inner.is_sound(both), [False, True])


def test_a_diverging_adapter_is_flagged_and_the_others_are_not():
    params = decoder.init_params(jax.random.key(0), ARCH)
    cfg, jobs = config(), workload(3, 4)
    # A base whose embedding of one token is infinite: only job 1 reads that token.
    params = {**params, "embed": params["embed"].at[61].set(jnp.inf)}
    jobs[1] = dataclasses.replace(jobs[1], lines=((61, 4, 5),))
    keys = jax.random.split(jax.random.key(1), 4)
    untied = dataclasses.replace(ARCH, tied=False)
    head = jax.random.normal(jax.random.key(5), (ARCH.width, ARCH.vocab)) * 0.02
    params = {**params, "lm_head": head}
    trained = packed.train(params, jobs, keys, arch=untied, cfg=cfg, eos=EOS)
    assert trained.finite_A.tolist() == [True, False, True, True]


def test_more_jobs_than_the_pool_holds_are_refused():
    params = decoder.init_params(jax.random.key(0), ARCH)
    keys = jax.random.split(jax.random.key(1), 7)
    with pytest.raises(ValueError, match=r"7 jobs must fit inner\.pool=6"):
        packed.train(params, workload(1, 7), keys, arch=ARCH, cfg=config(), eos=EOS)


def operations(jaxpr):
    """Every equation of a jaxpr and of those inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        inside = jax.tree.leaves(
            list(eqn.params.values()),
            is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
        )
        for one in inside:
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield from operations(one)


def packed_step(cfg, arch=ARCH):
    """The jaxpr of a step on a step of a real plan."""
    (block,) = plan_arrays.blocks(workload(1, 3), cfg.plan, eos=EOS)
    step = jax.tree.map(lambda leaf: leaf[0], block.steps)
    params, state, keys, *_ = packed.arguments(arch, cfg)
    made = jax.make_jaxpr(packed.step_all, static_argnums=(4, 5))
    return made(params, state, keys, step, arch, cfg).jaxpr


def test_a_slot_that_waits_costs_no_matmul():
    """The optimizer passes over all slots; tokens and gradients are of the active."""
    cfg = config(slots=50, active=2)
    seen = set()
    for eqn in operations(packed_step(cfg)):
        shapes = [v.aval.shape for v in (*eqn.invars, *eqn.outvars)]
        if any(len(s) > 2 and cfg.plan.slots in s for s in shapes):
            seen.add(eqn.primitive.name)
    assert "gather" in seen
    assert not seen & {"dot_general", "reduce_sum", "scatter-add", "sort"}


def test_a_step_never_copies_a_weight_for_each_adapter():
    """The base's matmuls see all tokens at once: `[D, F]`, one layer at a time."""
    # Sizes that nothing else has.
    arch = decoder.Arch("llama", 64, 56, 2, 4, 2, 10, 76, 128, tied=True)
    cfg = config(targets=tuple(arch.linears()), slots=50, active=7)
    linears = {pair for d, f in arch.linears().values() for pair in ((d, f), (f, d))}
    weights = set()
    for eqn in operations(packed_step(cfg, arch)):
        for var in (*eqn.invars, *eqn.outvars):
            shape = getattr(var.aval, "shape", ())
            if shape[-2:] in linears:
                weights.add(shape[:-2])
    assert weights == {()}
