"""Prompts read and continued token by token, against one pass over everything."""

import functools
import re

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.models import decoder, key_ranges, kv_cache, lora, row_pages

SLOTS = 16
LENGTHS = np.array([5, 1, 8, 3])


def adapters(arch, count):
    """Drawn, and large enough to show."""
    fresh = [
        lora.init(jax.random.key(i), arch, targets=("q_proj", "down_proj"), rank=2)
        for i in range(count)
    ]
    drawn = [
        jax.tree.map(lambda x, i=i: x + 0.05 * jax.random.normal(key(i), x.shape), one)
        for i, one in enumerate(fresh)
    ]
    return lora.stack(drawn)


def key(i):
    return jax.random.key(100 + i)


def tokens(arch, rows, width):
    rng = np.random.default_rng(0)
    return rng.integers(0, arch.vocab, (rows, width)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def continued(arch, params, delta, own, prompt_BT, length_B, next_BU):
    """Hidden states after the prompt, and after each of the tokens that follow it."""
    at_BT = jnp.broadcast_to(jnp.arange(prompt_BT.shape[1]), prompt_BT.shape)
    start_BT = jnp.where(at_BT < length_B[:, None], 0, -1)
    hidden_BTD, read = kv_cache.read(params, delta, arch, prompt_BT, start_BT)
    room = ((0, 0), (0, 0), (0, SLOTS - prompt_BT.shape[1]), (0, 0))
    cache = jax.tree.map(lambda leaf: jnp.pad(leaf, room), read)
    made = [hidden_BTD[jnp.arange(len(length_B)), length_B - 1]]
    for u in range(next_BU.shape[1]):
        hidden_BD, cache = kv_cache.step(
            params, own, arch, next_BU[:, u], length_B + u, cache
        )
        made.append(hidden_BD)
    return jnp.stack(made, 1)


def whole(arch, params, ids):
    """Hidden states of one row in one pass."""
    t = len(ids)
    ranges = key_ranges.causal(jnp.ones((1, t), bool))
    positions = jnp.arange(t)[None]
    return decoder.hidden(params, None, arch, jnp.array([ids]), positions, ranges)[0][0]


@pytest.mark.parametrize("name", golden_models.NAMES)
def test_rows_of_any_length_continue_as_in_one_pass(name):
    arch, params = golden_models.load(name)
    ids = tokens(arch, len(LENGTHS), 11)
    got = continued(
        arch, params, None, None, ids[:, :8], jnp.array(LENGTHS), ids[:, 8:]
    )
    for b, length in enumerate(LENGTHS):
        want = whole(arch, params, [*ids[b, :length], *ids[b, 8:]])
        np.testing.assert_allclose(got[b], want[length - 1 :], rtol=0, atol=1e-4)


def test_each_run_of_rows_is_under_its_own_adapter():
    arch, params = golden_models.load("qwen25")
    stack = adapters(arch, 3)
    ids = tokens(arch, 6, 10)
    slots = [2, -1, 0]  # two rows each
    own = lora.select(stack, jnp.array(slots))
    own = jax.tree.map(lambda leaf: leaf.at[1].set(0), own)
    got = continued(
        arch,
        params,
        lora.assign(stack, jnp.array(slots)),
        own,
        ids[:, :8],
        jnp.full(6, 8),
        ids[:, 8:],
    )
    for b in range(6):
        slot = slots[b // 2]
        merged = params if slot < 0 else lora.merge(params, lora.select(stack, slot))
        want = whole(arch, merged, ids[b])
        np.testing.assert_allclose(got[b], want[7:], rtol=0, atol=1e-4)
    base = whole(arch, params, ids[0])
    assert np.abs(got[0] - base[7:]).max() > 1e-2


def test_prompts_in_one_row_are_read_as_if_each_were_alone():
    arch, params = golden_models.load("qwen3")
    ids = tokens(arch, 1, 12)[0]
    spans = [(0, 4), (4, 5), (7, 12)]
    # All in the first row, then each at the beginning of one of its own.
    tokens_PT, start_PT = np.tile(ids, (4, 1)), np.full((4, 12), -1)
    for row, (first, stop) in enumerate(spans, 1):
        start_PT[0, first:stop] = first
        start_PT[row, : stop - first] = 0
        tokens_PT[row, : stop - first] = ids[first:stop]
    hidden_PTD, cache = jax.jit(kv_cache.read, static_argnums=2)(
        params, None, arch, tokens_PT, start_PT
    )
    assert np.isfinite(hidden_PTD).all()
    for row, (first, stop) in enumerate(spans, 1):
        together, alone = hidden_PTD[0, first:stop], hidden_PTD[row, : stop - first]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
        for leaf in jax.tree.leaves(cache):
            together, alone = leaf[0, :, first:stop], leaf[row, :, : stop - first]
            np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_rows_that_lie_anywhere_are_under_the_adapter_of_their_page():
    arch, params = golden_models.load("qwen2")
    stack = adapters(arch, 3)
    ids = tokens(arch, 6, 10)
    slots = [2, 0, -1, 2, 0, 2]
    # Pages of two rows: the second one's other place is nobody's, the last is empty.
    members = np.array([[[3, 0], [1, 4], [6, 5], [6, 6]]])
    own = lora.select(stack, jnp.array([2, 0, 2, 1]))
    own = jax.tree.map(lambda leaf: leaf.at[3].set(jnp.nan), own)
    got = continued(
        arch,
        params,
        lora.assign(stack, jnp.array(slots)),
        lora.shared(own, row_pages.pages(members, 6)),
        ids[:, :8],
        jnp.full(6, 8),
        ids[:, 8:],
    )
    for b, slot in enumerate(slots):
        merged = params if slot < 0 else lora.merge(params, lora.select(stack, slot))
        want = whole(arch, merged, ids[b])
        np.testing.assert_allclose(got[b], want[7:], rtol=0, atol=1e-4)


def test_a_step_updates_a_donated_cache_in_place():
    arch, params = golden_models.load("llama")
    rows, slots = 32, 4096
    cache = jax.eval_shape(lambda: kv_cache.init(arch, rows=rows, slots=slots))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))

    def steps(token_B, length_B, cache):
        def one(carry):
            count, token_B, cache = carry
            _, cache = kv_cache.step(
                params, None, arch, token_B, length_B + count, cache
            )
            return count + 1, token_B, cache

        carry = (jnp.int32(0), token_B, cache)
        return jax.lax.while_loop(lambda carry: carry[0] < 9, one, carry)

    row = jax.ShapeDtypeStruct((rows,), jnp.int32)
    compiled = jax.jit(steps, donate_argnums=2).lower(row, row, cache).compile()
    used = compiled.memory_analysis()
    assert used.alias_size_in_bytes >= size
    assert used.temp_size_in_bytes < size / 4
    text = compiled.as_text()
    shape = ",".join(map(str, cache[0]["k"].shape))
    assert re.search(rf"\[{shape}\]", text)
    assert not re.search(rf"= f32\[{shape}\]\S* copy\(", text)
