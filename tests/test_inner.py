"""The inner loop against torch + PEFT, and many adapters against one."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from seal_jax import hf, inner, lora, model, plan

GOLDEN = Path(__file__).parent / "golden" / "inner"
MASKED = plan.LossConfig(mode="masked", pad_to=64, pad_samples=0)
EXACT = plan.LossConfig(mode="reference", pad_to=64, pad_samples=-1)

ARCH = model.ModelConfig("qwen2", 64, 32, 2, 4, 2, 8, 48, 128, qkv_bias=True, tied=True)
EOS = 63

# Compiled once per config and shape; the functions stay what they are.
STEP = jax.jit(inner.train_step, static_argnums=(3, 4))
ADAPT = jax.jit(inner.adapt, static_argnums=(4, 5))
LOSS = jax.jit(inner.line_loss, static_argnums=3)


def config(**changes) -> inner.InnerConfig:
    loss = changes.pop("loss", MASKED)
    classes = changes.pop("length_classes", (8, 16))
    epochs = changes.pop("epochs", 3)
    base = dict(
        targets=("q_proj", "v_proj"),
        rank=4,
        alpha=8.0,
        learning_rate=1e-2,
        clip=1.0,
        plan=plan.PlanConfig(epochs, loss, classes, step_tokens=32),
        slots=5,
    )
    return inner.InnerConfig(**(base | changes))


def tree(file: Path) -> dict:
    nested: dict = {}
    for key, value in load_file(file).items():
        *path, leaf = key.split("/")
        at = nested
        for name in path:
            at = at.setdefault(name, {})
        at[leaf] = jnp.asarray(value)
    return nested


@pytest.mark.parametrize(("mode", "loss"), [("masked", MASKED), ("reference", EXACT)])
def test_a_run_equals_torch_and_peft_step_by_step(mode, loss):
    golden = json.loads((GOLDEN / "inner.json").read_text())
    path = GOLDEN / golden["model"]
    arch = hf.read_config(path, dtype="float32")
    params = hf.load_params(path, arch)
    cfg = config(
        loss=loss,
        rank=golden["rank"],
        alpha=golden["alpha"],
        learning_rate=golden["lr"],
        clip=golden["clip"],
    )
    rng = np.random.default_rng(0)
    rows = [
        plan.make_row(golden["lines"][i], loss, width=64, eos=golden["eos_id"], rng=rng)
        for i in golden["order"]
    ]
    total = jnp.int32(len(rows))
    slot = inner.init_slot(tree(GOLDEN / "initial.safetensors"), total)
    losses = []
    for row in rows:
        before = slot.loss_sum
        slot = STEP(params, slot, row, arch, cfg)
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
    scanned = ADAPT(
        params, tree(GOLDEN / "initial.safetensors"), stacked, total, arch, cfg
    )
    for a, b in zip(
        jax.tree.leaves(scanned.adapter), jax.tree.leaves(slot.adapter), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


MOST_LINES = 4


def workload(seed: int, count: int, longest: int = 14) -> list[plan.Job]:
    rng = np.random.default_rng(seed)
    return [
        plan.Job(
            tuple(
                tuple(int(t) for t in rng.integers(0, 60, rng.integers(2, longest)))
                for _ in range(rng.integers(1, MOST_LINES + 1))
            ),
            (seed, j),
        )
        for j in range(count)
    ]


def solo(params, job: plan.Job, key, cfg: inner.InnerConfig) -> inner.Slot:
    """The definition: `adapt` on this job's rows, at one width, alone.

    Filled up with steps beyond its total, so that jobs share one compiled program.
    """
    pads = np.random.default_rng((*job.seed, 1))
    width = cfg.plan.length_classes[-1]
    rows = [
        plan.make_row(job.lines[i], cfg.plan.loss, width=width, eos=EOS, rng=pads)
        for i in plan.orders(job, cfg.plan.epochs)
    ]
    total = jnp.int32(len(rows))
    rows += [rows[0]] * (MOST_LINES * cfg.plan.epochs - len(rows))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    fresh = lora.init(key, ARCH, targets=cfg.targets, rank=cfg.rank)
    slot = ADAPT(params, fresh, stacked, total, ARCH, cfg)
    return slot._replace(adapter=lora.scaled(slot.adapter, cfg.alpha / cfg.rank))


WORKLOADS = [
    (config(), 5),
    (config(), 3),
    (config(targets=tuple(ARCH.linears()), rank=2, alpha=2.0), 5),
    (config(loss=plan.LossConfig("reference", 32, -1), length_classes=(32,)), 4),
    (config(loss=plan.LossConfig("reference", 32, 3)), 4),
    (config(loss=plan.LossConfig("reference", 32, 0), clip=0.01), 4),
    (config(learning_rate=3e-2, epochs=1, slots=8), 8),
]


@pytest.mark.parametrize(("cfg", "count"), WORKLOADS)
def test_every_adapter_trained_together_equals_its_solo_run(cfg, count):
    params = model.init_params(jax.random.key(0), ARCH)
    jobs = workload(count, count)
    keys = jax.random.split(jax.random.key(1), count)
    trained = inner.train(params, jobs, keys, arch=ARCH, cfg=cfg, eos=EOS)
    assert trained.finite_A[:count].all()
    for a, job in enumerate(jobs):
        alone = solo(params, job, keys[a], cfg)
        for ours, theirs in zip(
            jax.tree.leaves(lora.select(trained.adapters, a)),
            jax.tree.leaves(alone.adapter),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=2e-4)
        np.testing.assert_allclose(
            trained.loss_A[a], alone.loss_sum / alone.total, rtol=1e-4
        )


def test_vmapped_adapt_equals_solo_runs_of_different_length():
    params = model.init_params(jax.random.key(0), ARCH)
    cfg, jobs = config(), workload(7, 3)
    keys = jax.random.split(jax.random.key(2), 3)
    rows, totals = [], []
    for job in jobs:
        pads = np.random.default_rng((*job.seed, 1))
        own = [
            plan.make_row(job.lines[i], MASKED, width=16, eos=EOS, rng=pads)
            for i in plan.orders(job, cfg.plan.epochs)
        ]
        totals.append(len(own))
        own += [own[-1]] * (12 - len(own))
        rows.append(jax.tree.map(lambda *leaves: np.stack(leaves), *own))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    fresh = jax.vmap(lambda k: lora.init(k, ARCH, targets=cfg.targets, rank=cfg.rank))(
        keys
    )
    many = jax.vmap(inner.adapt, in_axes=(None, 0, 0, 0, None, None))(
        params, fresh, stacked, jnp.array(totals), ARCH, cfg
    )
    scaled = lora.scaled(many.adapter, cfg.alpha / cfg.rank)
    for a, job in enumerate(jobs):
        alone = solo(params, job, keys[a], cfg)
        for ours, theirs in zip(
            jax.tree.leaves(lora.select(scaled, a)),
            jax.tree.leaves(alone.adapter),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_a_neighbour_that_turns_nan_changes_no_bit():
    params = model.init_params(jax.random.key(0), ARCH)
    cfg, jobs = config(), workload(3, 4)
    totals = jnp.array([len(j.lines) * 3 for j in jobs] + [1])
    keys = jax.random.split(jax.random.key(1), cfg.slots)
    steps = list(plan.steps(jobs, cfg.plan, slots=cfg.slots, eos=EOS))

    def run(poison: bool) -> inner.Slot:
        slots = inner.init_slots(keys, totals, ARCH, cfg)
        if poison:
            bad = jax.tree.map(lambda x: x.at[2].set(jnp.nan), slots.adapter)
            slots = slots._replace(adapter=bad)
        for step in steps:
            slots = inner.advance(params, slots, step.slots, step.rows, ARCH, cfg)
        return slots

    clean, poisoned = run(poison=False), run(poison=True)
    others = np.array([0, 1, 3])
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(poisoned), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])
    assert np.isnan(np.asarray(poisoned.loss_sum)[2])


def test_a_diverging_adapter_is_flagged_and_the_others_are_not():
    params = model.init_params(jax.random.key(0), ARCH)
    cfg, jobs = config(), workload(3, 4)
    # A base whose embedding of one token is infinite: only job 1 reads that token.
    params = {**params, "embed": params["embed"].at[61].set(jnp.inf)}
    jobs[1] = plan.Job(((61, 4, 5),), (9, 9))
    keys = jax.random.split(jax.random.key(1), 4)
    tied = ARCH.__class__(**{**ARCH.__dict__, "tied": False})
    head = jax.random.normal(jax.random.key(5), (ARCH.width, ARCH.vocab)) * 0.02
    params = {**params, "lm_head": head}
    trained = inner.train(params, jobs, keys, arch=tied, cfg=cfg, eos=EOS)
    assert trained.finite_A[:4].tolist() == [True, False, True, True]


def test_sampled_pads_estimate_the_exact_loss_without_bias():
    params = model.init_params(jax.random.key(0), ARCH)
    delta = lora.init(jax.random.key(1), ARCH, targets=("q_proj",), rank=2)
    delta = jax.tree.map(lambda x: x + 0.3, delta)
    ids, rng = (5, 6, 7, 8, 9), np.random.default_rng(0)

    def loss(samples: int) -> float:
        mode = plan.LossConfig("reference", 64, samples)
        row = plan.make_row(ids, mode, width=64, eos=EOS, rng=rng)
        return float(LOSS(params, delta, row, ARCH))

    exact = loss(-1)
    draws = np.array([loss(4) for _ in range(200)])
    standard_error = draws.std() / np.sqrt(len(draws))
    assert standard_error > 0
    assert abs(draws.mean() - exact) < 4 * standard_error
    assert loss(0) < exact
