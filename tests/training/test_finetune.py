"""Full fine-tuning against a plain one: padded rows, optax's own AdamW."""

import dataclasses
import functools
import gc
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh

from seal_jax.models import decoder, key_ranges
from seal_jax.training import finetune, plan
from seal_jax.training import settings as training_settings

EOS = 5
ARCH = decoder.Arch("llama", 24, 16, 2, 2, 1, 8, 24, 64)
QWEN_7B = decoder.Arch(
    "qwen2", 152064, 3584, 28, 28, 4, 128, 18944, 32768, qkv_bias=True, dtype="bfloat16"
)
MASKED = training_settings.LossConfig(training_settings.MASKED, 2, 0)


def job(count: int = 7, **changes) -> plan.Job:
    rng = np.random.default_rng(count)
    lines = tuple(
        tuple(rng.integers(0, 24, rng.integers(1, 13)).tolist()) for _ in range(count)
    )
    made = plan.Job(
        lines,
        (3,),
        epochs=2,
        learning_rate=1e-2,
        clip=0.5,
        loss=MASKED,
        batch=3,
        warmup=2,
    )
    # The longest is the beginning of a text: nothing follows it.
    longest = max(range(count), key=lambda i: len(lines[i]))
    made = dataclasses.replace(made, cut=(longest,))
    return dataclasses.replace(made, **changes)


@functools.cache
def drawn(arch: decoder.Arch) -> dict:
    params = decoder.init_params(jax.random.key(0), arch)
    return jax.tree.map(np.asarray, params)


def weights(arch: decoder.Arch) -> dict:
    # Copies, since a training uses them up.
    return jax.tree.map(jnp.array, drawn(arch))


def train(arch=ARCH, work=None, **changes) -> finetune.TunedModel:
    kwargs: Any = {"micro_batch": 1, "length_multiple": 8} | changes
    key = jax.random.key(1)
    return finetune.train(
        weights(arch), work or job(), key, arch=arch, eos=EOS, **kwargs
    )


def plainly(arch: decoder.Arch, work: plan.Job) -> tuple[Any, list[float]]:
    """A line a row, padded to the longest; the schedule written out."""
    steps = work.epochs * -(-len(work.lines) // work.batch)
    climb = optax.linear_schedule(0.0, work.learning_rate, work.warmup)
    fall = optax.linear_schedule(work.learning_rate, 0.0, steps - work.warmup)
    schedule = optax.join_schedules([climb, fall], [work.warmup])
    optimizer = optax.chain(
        optax.clip_by_global_norm(work.clip), optax.adamw(schedule, weight_decay=0.0)
    )
    params = weights(arch)
    state, losses = optimizer.init(params), []
    longest = max(map(len, work.lines)) + 1

    @jax.value_and_grad
    def gradient(params, tokens_BT, mask_BT):
        b, t = tokens_BT.shape
        positions = jnp.broadcast_to(jnp.arange(t), (b, t))
        ranges = key_ranges.causal(jnp.ones((b, t), bool))
        hidden, _ = decoder.hidden(params, None, arch, tokens_BT, positions, ranges)
        log_p = jax.nn.log_softmax(decoder.logits(params, arch, hidden))
        picked = jnp.take_along_axis(log_p[:, :-1], tokens_BT[:, 1:, None], -1)[..., 0]
        return -jnp.sum(picked * mask_BT[:, 1:]) / jnp.sum(mask_BT[:, 1:])

    @jax.jit
    def step(params, state, tokens_BT, mask_BT):
        loss, grads = gradient(params, tokens_BT, mask_BT)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for batch in work.batches():
        tokens, mask = np.full((work.batch, longest), EOS), np.zeros((3, longest))
        for row, i in enumerate(batch):
            n = len(work.lines[i])
            tokens[row, :n] = work.lines[i]
            mask[row, : n if i in work.cut else n + 1] = 1
            mask[row, 0] = 0
        params, state, loss = step(params, state, tokens, mask)
        losses.append(float(loss))
    return params, losses


# Training


@pytest.fixture(scope="module")
def once():
    return train()


def gap(a: dict, b: dict) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)


@pytest.mark.parametrize("tied", [False, True])
def test_it_is_plain_fine_tuning(tied, once):
    arch = dataclasses.replace(ARCH, tied=tied)
    got = train(arch) if tied else once
    params, losses = plainly(arch, job())
    np.testing.assert_allclose(got.losses, losses, rtol=1e-5)
    assert got.finite and gap(got.params, params) < 3e-5
    # It learns, and every weight takes part.
    assert losses[-1] < losses[0]
    for a, b in zip(
        jax.tree.leaves(got.params), jax.tree.leaves(weights(arch)), strict=True
    ):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-3


def test_how_rows_are_cut_changes_nothing(once):
    other = train(micro_batch=2, length_multiple=32)
    np.testing.assert_allclose(once.losses, other.losses, rtol=1e-5)
    assert once.tokens == other.tokens and gap(once.params, other.params) < 3e-5


def test_tokens_are_counted(once):
    work = job()
    assert once.tokens == work.epochs * (sum(map(len, work.lines)) - len(work.cut))
    assert once.computed_tokens >= once.tokens
    assert once.computed_tokens % 16 == 0  # rows of the longest line's 16


def test_a_rate_too_high_is_told():
    assert not train(work=job(learning_rate=1e30, warmup=0, clip=1e30)).finite


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"given": (1,) * 7}, "takes whole lines"),
        ({"beside": ((1, 2),), "beside_weight": 0.1}, "takes whole lines"),
        (
            {"loss": training_settings.LossConfig(training_settings.PADDED, 2, 0)},
            "mode='padded'",
        ),
    ],
)
def test_jobs_for_adapters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        train(work=job(**changes))


# Rounding


def test_random_rounding_is_right_in_the_mean():
    # A quarter of the way from one bfloat16 to the next.
    low, high = 1.0, 1.0 + 2.0**-7
    x = jnp.full(40_000, low + 0.25 * (high - low), jnp.float32)
    got = np.asarray(
        finetune.round_at_random(x, jnp.dtype("bfloat16"), jax.random.key(0)), float
    )
    assert set(got) == {low, high}
    share = (got == high).mean()
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(got)) ** 0.5
    mirrored = finetune.round_at_random(-x, jnp.dtype("bfloat16"), jax.random.key(0))
    assert (np.asarray(mirrored, float) == -got).all()


@pytest.mark.parametrize("value", [0.0, -1.5, 2.0**-130, np.inf, -np.inf, np.nan])
def test_what_bfloat16_can_say_stays(value):
    x = jnp.full(64, value, jnp.float32)
    got = finetune.round_at_random(x, jnp.dtype("bfloat16"), jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(got, np.float32), np.float32(value))


def test_float32_is_not_rounded():
    x = jnp.float32(0.1) + jnp.zeros(3)
    assert finetune.round_at_random(x, jnp.dtype("float32"), jax.random.key(0)) is x


def test_small_steps_are_not_lost_in_bfloat16():
    """Steps below half of a weight's last bit: to the nearest, all would be lost."""
    arch = dataclasses.replace(ARCH, dtype="bfloat16")
    rate = 2.0**-11
    got = train(arch, job(learning_rate=rate, epochs=8, warmup=0))
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(got.params))
    # Norms begin at 1; bfloat16's nearest values are 2^-8 below it, 2^-7 above.
    layers = [got.params[f"layers_{i}"] for i in range(arch.layers)]
    norms = [got.params["final_norm"]]
    norms += [layer[name] for layer in layers for name in ("input_norm", "post_norm")]
    scales = np.concatenate([np.asarray(n["scale"], float).ravel() for n in norms])
    assert (scales != 1.0).mean() > 0.2
    assert np.abs(scales - 1.0).max() <= 4 * 2.0**-7


def test_every_step_is_rounded_by_chances_of_its_own(monkeypatch):
    arch, real, keys = dataclasses.replace(ARCH, dtype="bfloat16"), finetune._update, []

    def spy(slot, total, rate, clip, key, **kwargs):
        def norm(used):
            fresh = jax.tree.map(jnp.copy, slot)
            return real(fresh, total, rate, clip, used, **kwargs)[0].adapter

        # By the step's own key, that of the step before, and its own again.
        own, before = norm(key), norm(keys[-1]) if keys else None
        assert gap_of(own, norm(key)) == 0
        assert before is None or gap_of(own, before) > 0
        keys.append(key)
        return real(slot, total, rate, clip, key, **kwargs)

    monkeypatch.setattr(finetune, "_update", spy)
    train(arch)
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == 6


def gap_of(a: dict, b: dict) -> float:
    return gap(*(jax.tree.map(lambda x: x.astype(jnp.float32), t) for t in (a, b)))


# Memory


def test_a_training_holds_what_is_said(monkeypatch):
    arch = dataclasses.replace(ARCH, dtype="bfloat16")
    gc.collect()
    held, real = [], {n: getattr(finetune, n) for n in ("_zeros", "_accumulate")}
    others = live_bytes()

    def spied(name):
        def spy(*args, **kwargs):
            made = real[name](*args, **kwargs)
            held.append(live_bytes() - others)
            return made

        return spy

    for name in real:
        monkeypatch.setattr(finetune, name, spied(name))
    train(arch)
    count = finetune.state_bytes(arch, None) // 16
    # All but a micro-batch's gradient, which lives within a program; batches beside.
    assert 14 * count <= max(held) < 14.5 * count


def live_bytes() -> int:
    return sum(x.nbytes for x in jax.live_arrays())


def test_the_bytes_of_a_7b_model():
    count = 7_615_616_512  # as its publisher counts them
    assert finetune.state_bytes(QWEN_7B, None) == 16 * count
    full = dataclasses.replace(QWEN_7B, dtype="float32")
    assert finetune.state_bytes(full, None) == 20 * count


def test_a_mesh_cuts_the_bytes():
    whole = finetune.state_bytes(QWEN_7B, None)
    for data, shards in ((1, 2), (2, 4)):
        mesh = AbstractMesh((data, shards), ("data", "model"))
        cut = finetune.state_bytes(QWEN_7B, mesh)  # type: ignore[arg-type]
        # Norms and biases are whole on each: less than one in ten thousand.
        assert whole / shards <= cut < whole / shards * 1.001


def test_what_does_not_fit_is_refused_in_one_line():
    finetune.check(QWEN_7B, None, limit=int(122e9))
    with pytest.raises(ValueError) as caught:
        finetune.check(QWEN_7B, None, limit=int(73.6e9))
    said = str(caught.value)
    assert "121.8 GB" in said and "73.6 GB" in said and "mesh.model=2" in said
    assert "\n" not in said
    with pytest.raises(ValueError, match="micro_batch=3 rows must be a multiple of me"):
        mesh = AbstractMesh((2, 1), ("data", "model"))
        finetune.check_rows(3, mesh)  # type: ignore[arg-type]


# Meshes

CHILD = """
import json, sys
import jax, numpy as np
import test_finetune as t
from seal_jax.models import placement
from seal_jax.runtime import meshes
from seal_jax.training import finetune

mesh = meshes.make_mesh(data=2, model=2)
placed = jax.device_put(t.weights(t.ARCH), placement.param_shardings(t.ARCH, mesh))
both = finetune.train(placed, t.job(), jax.random.key(1), arch=t.ARCH, micro_batch=2,
                      length_multiple=8, eos=t.EOS, mesh=mesh)
np.savez(sys.argv[1], *map(np.asarray, jax.tree.leaves(both.params)))
kernel = both.params["layers_0"]["gate_proj"]["kernel"]
print(json.dumps([both.losses, kernel.sharding.shard_shape(kernel.shape)[-1]]))
"""


def test_a_mesh_trains_the_same(once, tmp_path, root, child_env):
    flags = "--xla_force_host_platform_device_count=4"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(tmp_path / "leaves.npz")],
        cwd=root / "tests/training",
        env={**child_env, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    losses, width = json.loads(result.stdout.splitlines()[-1])
    np.testing.assert_allclose(losses, once.losses, rtol=1e-5)
    assert width == ARCH.ff // 2
    leaves = np.load(tmp_path / "leaves.npz")
    tree = jax.tree.structure(once.params).unflatten(leaves.values())
    assert gap(tree, once.params) < 3e-5
