"""Adapters on top of frozen low-rank stacks: packed, alone, and merged."""

import dataclasses
import functools
import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model
import trainings

from seal_jax.models import decoder, key_ranges, lora
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules
from seal_jax.training import capacity, inner, packed, plan, plan_arrays, throughput
from seal_jax.training.settings import EngineOptions, LossConfig, PlanConfig

ARCH = decoder.Arch("llama", 48, 16, 2, 2, 1, 8, 24, 64, tied=True)
EOS, WIDTH, RANK = 47, 16, 2
MASKED = LossConfig(mode="masked", pad_to=2, pad_samples=0)
PARAMS = jax.tree.map(lambda x: x * 4, decoder.init_params(jax.random.key(0), ARCH))
ADAPT = jax.jit(inner.adapt, static_argnums=(6, 7))


TEXT = 9


@jax.jit
def predict(text_T, params, delta=None):
    """What the model predicts after each of the tokens of one text."""
    t = len(text_T)
    ranges = key_ranges.causal(jnp.ones((1, t), bool))
    positions = jnp.arange(t)[None]
    hidden = decoder.hidden(params, delta, ARCH, text_T[None], positions, ranges)[0]
    return decoder.logits(params, ARCH, hidden)[0]


def settings(**changes) -> inner.EngineConfig:
    sizes = PlanConfig(tile=4, row_tokens=WIDTH, step_tokens=32, slots=3, active=2)
    base = dict(targets=("q_proj", "down_proj"), rank=RANK, alpha=4.0, pool=4)
    return inner.EngineConfig(**(base | changes), plan=sizes)


PLAIN = settings()
FROZEN = settings(frozen_rank=3, frozen_rows=3)
PENALTY = dataclasses.replace(FROZEN, orthogonal=20.0)
# All that an inner loop can have, in chunks of half a row.
WHOLE = dataclasses.replace(
    PENALTY,
    divergence=True,
    plan=dataclasses.replace(PENALTY.plan, tile=2, chunk_tokens=8, slots=4),
)


def drawn(seed: int, *, rank: int, rows: int, scale: float = 0.2) -> lora.Tree:
    """Stacks that do something, B drawn too."""
    empty = lora.empty(
        ARCH, targets=PLAIN.targets, rank=rank, adapters=rows, dtype="float32"
    )
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, scale, x.shape), "float32"), empty
    )


STACKS = drawn(5, rank=3, rows=3)


def workload(count: int, *, beside: bool = False) -> list[plan.Job]:
    """Jobs that differ in lines, lengths, epochs and texts beside them."""
    rng = np.random.default_rng(count)

    def texts(number: int) -> tuple:
        lengths = rng.integers(2, WIDTH, number)
        return tuple(tuple(rng.integers(0, 46, n).tolist()) for n in lengths)

    # The second has no texts beside its lines, in a program that could have some.
    return [
        plan.Job(
            texts(1 + j % 3),
            (count, j),
            epochs=2 - j % 2,
            learning_rate=1e-2,
            clip=(0.05, 1.0)[j % 2],
            loss=MASKED,
            beside=texts(2) if beside and j != 1 else (),
            beside_weight=3.0 * (beside and j != 1),
        )
        for j in range(count)
    ]


def solo(job: plan.Job, key, cfg: inner.EngineConfig, params=PARAMS, frozen=None):
    """The definition: `adapt` on this job, alone."""
    steps = []
    for rows in plan_arrays.rows(job, eos=EOS, multiple=WIDTH):
        if cfg.divergence:
            rows = [{"anchors": np.zeros(WIDTH, np.float32)} | row for row in rows]
        absent = jax.tree.map(np.zeros_like, rows[0])
        rows += [absent] * (2 - len(rows))
        steps.append(jax.tree.map(lambda *leaves: np.stack(leaves), *rows))
    missing = 6 - len(steps)
    steps += steps[:1] * missing
    rows = jax.tree.map(lambda *leaves: np.stack(leaves), *steps)
    rates = np.pad(job.rates(), (0, missing))
    clip, total = jnp.float32(job.clip), jnp.int32(job.total)
    fresh = lora.init(key, ARCH, targets=cfg.targets, rank=cfg.rank)
    return ADAPT(params, fresh, rows, rates, clip, total, ARCH, cfg, frozen)


def scaled(slot: inner.Slot, cfg: inner.EngineConfig) -> lora.Tree:
    return lora.scaled(slot.adapter, cfg.alpha / cfg.rank)


def train(jobs, cfg, mesh=None):
    keys = jax.random.split(jax.random.key(1), len(jobs))
    of = np.arange(len(jobs))[::-1] % 3 if cfg.frozen_rank else None
    stacks = STACKS if cfg.frozen_rank else None
    run = functools.partial(packed.train, arch=ARCH, cfg=cfg, eos=EOS, mesh=mesh)
    return keys, of, run(PARAMS, jobs, keys, frozen=stacks, frozen_of=of)


# The packed run against the definition, and that against merged weights


@functools.cache
def whole_run():
    """Everything at once: stacks, penalty, divergence, chunks."""
    return train(workload(4, beside=True), WHOLE)


def test_everything_at_once_by_slot_is_the_same():
    plan = dataclasses.replace(WHOLE.plan, chunk_tokens=0, active=4, by_slot=True)
    *_, got = train(workload(4, beside=True), dataclasses.replace(WHOLE, plan=plan))
    *_, want = whole_run()
    trainings.assert_stacks_alike(got.adapters, want.adapters)
    np.testing.assert_allclose(got.loss_A, want.loss_A, rtol=1e-4)


def test_every_packed_adapter_equals_its_solo_run_on_its_own_stack():
    before = jax.tree.map(np.array, STACKS)
    jobs, (keys, of, trained) = workload(4, beside=True), whole_run()
    assert trained.finite_A.all()
    assert trained.adapter_steps == sum(job.total for job in jobs)
    assert len(set(of.tolist())) == 3
    for j, job in enumerate(jobs):
        alone = solo(job, keys[j], WHOLE, frozen=lora.select(STACKS, of[j]))
        trainings.assert_alike(lora.select(trained.adapters, j), scaled(alone, WHOLE))
        loss = alone.loss_sum / job.total
        np.testing.assert_allclose(trained.loss_A[j], loss, rtol=1e-4)
    # What is frozen is neither trained nor given away.
    for kept, leaf in zip(
        jax.tree.leaves(before), jax.tree.leaves(STACKS), strict=True
    ):
        np.testing.assert_array_equal(leaf, kept)
    ranks = {leaf.shape[-2] for leaf in jax.tree.leaves(trained.adapters)}
    assert ranks == {WHOLE.rank}


@pytest.mark.parametrize(
    "cfg", [FROZEN, settings(divergence=True)], ids=["frozen", "divergence"]
)
def test_a_part_alone_makes_a_program_of_what_it_needs(cfg):
    args = packed.arguments(ARCH, cfg)
    extras, frozen = args[5:]
    assert (extras.anchors is None) == (not cfg.divergence)
    assert (extras.frozen is None) == (frozen is None) == (not cfg.frozen_rank)
    run = functools.partial(packed.run_block, arch=ARCH, cfg=cfg)
    assert jax.tree.map(jnp.shape, jax.eval_shape(run, *args)) == jax.tree.map(
        jnp.shape, args[1]
    )
    assert len(packed.arguments(ARCH, PLAIN)) == 5


def test_training_on_a_stack_is_training_on_merged_weights():
    job, key = workload(4)[2], jax.random.key(3)
    stack = lora.select(STACKS, 1)
    on_stack = solo(job, key, FROZEN, frozen=stack)
    merged = solo(job, key, PLAIN, params=lora.merge(PARAMS, stack))
    trainings.assert_alike(on_stack.adapter, merged.adapter)
    np.testing.assert_allclose(on_stack.loss_sum, merged.loss_sum, rtol=1e-5)
    # It is not the same as training on the base.
    assert trainings.gap(on_stack.adapter, solo(job, key, PLAIN).adapter) > 2e-3


def test_the_penalty_keeps_adapters_off_the_stack_and_out_of_the_reported_loss():
    # Without texts beside the lines, only the penalty is left of WHOLE.
    job, stack = workload(4)[2], lora.select(STACKS, 0)
    key = jax.random.key(4)

    def both(job):
        return [solo(job, key, cfg, frozen=stack) for cfg in (FROZEN, WHOLE)]

    free, held = both(job)
    start = lora.init(key, ARCH, targets=PLAIN.targets, rank=RANK)
    before, loose, tight = (
        float(inner.overlap(stack, x)) for x in (start, free.adapter, held.adapter)
    )
    assert tight < 0.9 * min(before, loose)
    # The first step's loss is read before any update.
    free, held = both(dataclasses.replace(job, lines=job.lines[:1], epochs=1))
    np.testing.assert_allclose(free.loss_sum, held.loss_sum, rtol=1e-6)
    assert trainings.gap(free.adapter, held.adapter) > 1e-3


def test_on_a_stack_of_nothing_training_is_that_on_the_base():
    job, key = workload(4)[2], jax.random.key(4)
    nothing = jax.tree.map(jnp.zeros_like, lora.select(STACKS, 0))
    ours = solo(job, key, WHOLE, frozen=nothing)
    theirs = solo(job, key, PLAIN)
    trainings.assert_alike(ours.adapter, theirs.adapter, atol=1e-5)


# Stacks


def test_deltas_written_one_after_the_other_equal_weights_merged_one_by_one():
    deltas = [drawn(seed, rank=RANK, rows=2) for seed in range(3)]
    stack = lora.empty(
        ARCH, targets=PLAIN.targets, rank=4 * RANK, adapters=2, dtype="float32"
    )
    text = np.random.default_rng(0).integers(0, 46, TEXT)
    logits = functools.partial(predict, text)
    write, merged = jax.jit(lora.write), [PARAMS, PARAMS]
    for i, delta in enumerate(deltas):
        stack = write(stack, delta, i * RANK)
        merged = [lora.merge(w, lora.select(delta, a)) for a, w in enumerate(merged)]
        for a, params in enumerate(merged):
            want = logits(params)
            np.testing.assert_allclose(
                logits(PARAMS, lora.select(stack, a)), want, rtol=1e-4, atol=1e-4
            )
    joined = functools.reduce(lora.join, deltas)
    for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(stack), strict=True):
        np.testing.assert_array_equal(a, b[..., : 3 * RANK, :])
        assert not b[..., 3 * RANK :, :].any()
    moved = jnp.abs(logits(merged[0]) - logits(PARAMS)).max()
    assert moved > 0.1


def test_an_empty_stack_has_the_shapes_of_its_targets_in_its_dtype():
    made = lora.empty(
        ARCH, targets=("down_proj",), rank=5, adapters=3, dtype="bfloat16"
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype.name), made) == {
        f"layers_{i}": {
            "down_proj": {
                "a": ((3, 5, 24), "bfloat16"),
                "b": ((3, 5, 16), "bfloat16"),
            }
        }
        for i in range(2)
    }
    assert not any(leaf.any() for leaf in jax.tree.leaves(made))
    joined = lora.join(made, jax.tree.map(lambda x: x.astype("float32"), made))
    assert {(x.shape[1], x.dtype.name) for x in jax.tree.leaves(joined)} == {
        (10, "bfloat16")
    }


@pytest.mark.parametrize("at", [-1, 2])
def test_ranks_that_do_not_fit_a_stack_are_refused(at):
    with pytest.raises(ValueError, match=rf"2 ranks at={at} do not fit a stack of 3"):
        lora.write(STACKS, drawn(0, rank=2, rows=3), at)


# The penalty


def test_the_overlap_is_zero_for_orthogonal_rows_alone():
    adapter, frozen = drawn(1, rank=2, rows=3), drawn(2, rank=3, rows=3)
    for layer, name in itertools.product(adapter, PLAIN.targets):
        ab, beneath = adapter[layer][name], frozen[layer][name]
        for row in range(3):
            noise = np.random.default_rng(row).normal(size=(ab["a"].shape[-1], 5))
            basis = np.linalg.qr(noise)[0].T.astype("float32")
            ab["a"] = ab["a"].at[row].set(basis[:2])
            beneath["a"] = beneath["a"].at[row].set(basis[2:])
    assert float(inner.overlap(frozen, adapter)) < 1e-10
    assert float(inner.overlap(frozen, jax.tree.map(lambda x: x + 0.1, adapter))) > 0.1


def test_the_overlap_and_its_gradient_are_the_plain_formula():
    adapter, frozen = drawn(1, rank=2, rows=3), drawn(2, rank=3, rows=3)
    value, grads = jax.value_and_grad(inner.overlap, argnums=1)(frozen, adapter)
    want = 0.0
    for layer, name in itertools.product(adapter, PLAIN.targets):
        a, grad = adapter[layer][name]["a"], grads[layer][name]
        slope = np.zeros(a.shape)
        for row in range(3):
            held = np.float64(frozen[layer][name]["a"][row])
            product = held @ np.float64(a[row]).T
            want += (product**2).sum()
            slope[row] = 2 * product.T @ held
        np.testing.assert_allclose(grad["a"], slope, rtol=1e-4, atol=1e-5)
        assert not grad["b"].any()
    np.testing.assert_allclose(value, want, rtol=1e-5)


# Sizes and refusals

BAD = [
    ({"frozen_rank": 2}, r"frozen_rank=2 and inner\.frozen_rows=0"),
    ({"frozen_rank": -1, "frozen_rows": -1}, r"frozen_rank=-1"),
    ({"orthogonal": 0.5}, r"orthogonal=0\.5 has nothing"),
    ({"orthogonal": -1.0}, r"orthogonal=-1\.0 must be at least 0"),
    ({"orthogonal": float("nan")}, r"orthogonal=nan must be at least 0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        settings(**changes)
    assert "\n" not in str(caught.value)


HALF = jax.tree.map(lambda x: x.astype("bfloat16"), STACKS)
WRONG = [
    (FROZEN, None, (0, 0), r"frozen=\{\} must be"),
    (FROZEN, HALF, (0, 0), "bfloat16"),
    (FROZEN, lora.select(STACKS, np.arange(2)), (0, 0), r"frozen_rows=3 say"),
    (FROZEN, STACKS, None, "has 0 rows for 2 jobs"),
    (FROZEN, STACKS, (0,), "has 1 rows for 2 jobs"),
    (FROZEN, STACKS, (0, 3), r"rows 0\.\.3, they must lie in 0\.\.2"),
    (PLAIN, STACKS, None, "frozen_rank=0"),
    (PLAIN, None, (0, 0), "has 2 rows for 2 jobs"),
]


@pytest.mark.parametrize(("cfg", "frozen", "of", "message"), WRONG)
def test_stacks_that_the_settings_do_not_describe_are_refused(cfg, frozen, of, message):
    keys = jax.random.split(jax.random.key(1), 2)
    run = functools.partial(packed.train, arch=ARCH, cfg=cfg, eos=EOS)
    with pytest.raises(ValueError, match=message) as caught:
        run(PARAMS, workload(2), keys, frozen=frozen, frozen_of=of)
    assert "\n" not in str(caught.value)


def test_the_definition_refuses_them_too():
    job, key = workload(2)[0], jax.random.key(1)
    with pytest.raises(ValueError, match="frozen_rank=3 and no frozen stack"):
        solo(job, key, FROZEN)
    with pytest.raises(ValueError, match="frozen_rank=0 and frozen stack"):
        solo(job, key, PLAIN, frozen=lora.select(STACKS, 0))


def test_the_flops_of_a_token_count_what_is_frozen_and_the_base_s_own_pass():
    # q_proj and down_proj, both layers.
    per_rank = 2 * (16 + 16 + 24 + 16)
    flops = functools.partial(throughput.flops_per_token, ARCH)
    assert flops(PLAIN) == 4 * ARCH.matmul_params() + 6 * RANK * per_rank
    assert flops(PENALTY) == flops(PLAIN) + 4 * 3 * per_rank
    # Logits once more and a slope, beside a forward pass that ends in logits.
    head = 4 * ARCH.width * ARCH.vocab
    assert flops(WHOLE) == flops(PENALTY) + 2 * ARCH.matmul_params() + head


def test_the_stacks_are_a_part_of_the_memory():
    memory = capacity.measure(ARCH, WHOLE)
    assert memory.frozen == sum(x.nbytes for x in jax.tree.leaves(STACKS))
    assert memory.other > 0
    assert "frozen stacks" in memory.line()
    assert "frozen" not in memory._replace(frozen=0).line()
    held = memory.base + 2 * memory.frozen
    assert capacity.answering(memory, 1) == held + memory.pool


def test_sizes_are_chosen_for_what_is_asked(monkeypatch):
    memory = capacity.Memory(base=100, slots=10, pool=10, other=30, frozen=50)
    monkeypatch.setattr(capacity, "measure", lambda *args: memory)
    monkeypatch.setattr(capacity, "base_bytes", lambda arch, mesh: 100)
    values = tiny_model.values("model")
    values["inner"] |= {"tile": 4, "row_tokens": 4096, "step_tokens": 0}
    wanted = config_rules.build(PassageRounds, values).inner
    options = EngineOptions(6, 9, orthogonal=0.5, divergence=True)
    pick = functools.partial(capacity.choose, ARCH, wanted, adapters=4)
    plain, _ = pick(limit=210)
    cfg, _ = pick(limit=210, options=options)
    # A row for the line, and one for the text beside it.
    assert (plain.plan.step_tokens, cfg.plan.step_tokens) == (4096, 8192)
    changes = dataclasses.asdict(options)
    assert dataclasses.replace(plain, **changes, plan=cfg.plan) == cfg
    with pytest.raises(ValueError, match="the base, the frozen stacks twice and the"):
        pick(limit=209, options=options)


# A mesh

CHILD = """
import sys
import jax, numpy as np
import test_frozen as t
from seal_jax.runtime import meshes

jobs = t.workload(4, beside=True)
trained = t.train(jobs, t.WHOLE, meshes.make_mesh(data=2))[2]
np.savez(sys.argv[1], *jax.tree.leaves(trained.adapters), tokens=trained.tokens)
"""


def test_devices_that_share_the_jobs_train_what_one_does(root, child_env, tmp_path):
    env = child_env | {"JAX_NUM_CPU_DEVICES": "2"}
    env["PYTHONPATH"] += f":{root / 'tests/training'}"
    file = tmp_path / "trained.npz"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, file],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    found, (_, _, trained) = np.load(file), whole_run()
    assert found["tokens"] == trained.tokens
    wanted = jax.tree.leaves(trained.adapters)
    # Both shards' pools, of which the first rows are the jobs'.
    rows = [found[f"arr_{i}"][: len(leaf)] for i, leaf in enumerate(wanted)]
    trainings.assert_stacks_alike(rows, wanted)
