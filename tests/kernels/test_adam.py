"""Adam's step for stacked adapters: against optax, and Triton's against the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seal_kernels.adam import api, triton_gpu

S, R, X = 5, 16, 24
RULE = api.Rule(b1=0.9, b2=0.999, eps=1e-8, factor=2.0)
TAKES = np.array([True, False, True, True, False])
COUNT = np.array([0, 3, 5, 9, 0], np.int32)


def drawn(seed=0, shape=(S, R, X)):
    rng = np.random.default_rng(seed)
    normal = lambda: jnp.asarray(rng.normal(size=shape), jnp.float32)
    old = api.Moved(normal(), normal(), jnp.square(normal()), normal())
    by = api.Step(
        jnp.asarray(TAKES),
        jnp.asarray(rng.uniform(0.1, 1, S), jnp.float32),
        jnp.asarray(rng.uniform(0.01, 0.1, S), jnp.float32),
        jnp.asarray(COUNT),
    )
    return old, normal(), by


@jax.jit
def interpreted(old, slope, by):
    numbers = api._numbers(by, RULE)
    return api.Moved(*triton_gpu.step(old, slope, numbers, RULE, interpret=True))


@jax.jit
def reference(old, slope, by):
    return api.reference(old, slope, by, RULE)


@pytest.mark.parametrize("run", [reference, interpreted])
def test_a_step_is_optaxs(run):
    old, slope, by = drawn()
    new = run(old, slope, by)
    adam = optax.scale_by_adam(b1=RULE.b1, b2=RULE.b2, eps=RULE.eps)
    for s in range(S):
        before = jax.tree.map(lambda leaf, s=s: leaf[s], old)
        after = jax.tree.map(lambda leaf, s=s: leaf[s], new)
        if not TAKES[s]:
            jax.tree.map(np.testing.assert_array_equal, after, before)
            continue
        # Whatever is there, one that has taken no step has no moments.
        mu, nu = (COUNT[s] > 0) * before.mu, (COUNT[s] > 0) * before.nu
        state = optax.ScaleByAdamState(jnp.int32(COUNT[s]), mu, nu)
        updates, state = adam.update(by.shrink[s] * slope[s], state)
        weight = before.weight - by.rate[s] * updates
        near = {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(after.weight, weight, **near)
        np.testing.assert_allclose(after.mu, state.mu, **near)
        np.testing.assert_allclose(after.nu, state.nu, **near)
        np.testing.assert_allclose(after.applied, 2 * weight, **near)


def test_the_kernel_is_the_formula():
    old, slope, by = drawn(1)
    old = old._replace(applied=old.applied.astype(jnp.bfloat16))
    old = old._replace(mu=old.mu.at[0].set(np.nan))  # Of one that is fresh.
    by = by._replace(shrink=by.shrink.at[3].set(np.nan).at[4].set(np.nan))
    slope = slope.astype(jnp.bfloat16)
    want, got = reference(old, slope, by), interpreted(old, slope, by)
    for one, other, before in zip(got, want, old, strict=True):
        assert one.dtype == other.dtype == before.dtype
        one, other = (np.asarray(z, np.float32) for z in (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        # A gradient that is not finite spoils its adapter whole, and no other.
        assert np.isnan(one[3]).all()
        assert np.isfinite(one[2]).all()
        np.testing.assert_array_equal(one[1], np.asarray(before, np.float32)[1])
    assert np.isfinite(got.weight[0]).all()


def test_auto_is_the_formula_elsewhere_and_the_kernel_on_cuda(monkeypatch):
    old, slope, by = drawn(2)
    run = jax.jit(lambda *args: api.step(*args, RULE))
    jax.tree.map(
        np.testing.assert_array_equal, run(old, slope, by), reference(old, slope, by)
    )
    monkeypatch.setattr(api, "expects", lambda platform: platform == "cuda")

    def marked(*args):
        return jax.tree.map(jnp.cbrt, api.reference(*args))

    monkeypatch.setattr(api, "_fused", marked)
    traced = jax.jit(lambda *args: api.step(*args, RULE)).trace(old, slope, by)
    for platform, there in (("cuda", True), ("cpu", False), ("tpu", False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("cbrt" in text) == there, platform


def test_auto_does_without_the_kernel_where_that_refuses(monkeypatch):
    old, slope, by = drawn(3)
    monkeypatch.setattr(api, "expects", lambda platform: True)
    traced = jax.jit(lambda *args: api.step(*args, RULE)).trace(old, slope, by)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "custom_call" not in text  # jax knows no GPU here.


def test_what_is_wrong_is_refused():
    old, slope, by = drawn()
    for wrong, match in (
        ({"implementation": "pallas"}, r"='pallas' must be one of auto, reference, tr"),
        ({"slope": slope[:, :2]}, r"one shape, \[S, R, X\]"),
        ({"by": by._replace(rate=by.rate[:2])}, r"of each adapter .* \[S\]"),
        (
            {"old": old._replace(mu=old.mu.astype(jnp.bfloat16))},
            "float32, bfloat16, float32, bool, int32 and must be float32",
        ),
        (
            {"by": by._replace(takes=by.steps)},
            r"int32, int32 and must be .*; cast them",
        ),
    ):
        args = {"old": old, "slope": slope, "by": by, "rule": RULE} | wrong
        with pytest.raises(ValueError, match=match) as caught:
            api.step(**args)
        assert "\n" not in str(caught.value)
    with pytest.raises(NotImplementedError, match="names no GPU"):
        api.step(old, slope, by, RULE, implementation="triton")
    few = [z[:, :1, :3] for z in (*old, slope)]
    with pytest.raises(NotImplementedError, match="3 numbers are no multiple of 128"):
        triton_gpu.step(few[:4], few[4], api._numbers(by, RULE), RULE, interpret=True)
