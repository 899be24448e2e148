"""A look-up's gradient, whose sums have an order, against autodiff of `jnp.take`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.models import embedding

IDS = [[3, 0, 3, 3, 7, 0, 3], [5], [2, 2, 2, 2], [8, 7, 6]]


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_sums_are_the_gradient_of_take(ids, dtype):
    rng = np.random.default_rng(0)
    ids_M = jnp.array(ids, jnp.int32)
    table_VD = jnp.asarray(rng.normal(size=(9, 5)), dtype)
    weights_MD = jnp.asarray(rng.normal(size=(len(ids), 5)), dtype)

    def loss(look):
        return lambda table: jnp.sum((look(table) * weights_MD).astype("float32"))

    take = lambda table: jnp.take(table.astype("float32"), ids_M, axis=0)
    want = jax.grad(loss(take))(table_VD)
    got = jax.jit(jax.grad(loss(lambda t: embedding.lookup(t, ids_M))))(table_VD)
    assert got.dtype == table_VD.dtype
    tolerance = {"float32": 1e-6, "bfloat16": 2e-2}[dtype]
    np.testing.assert_allclose(
        np.float32(got), np.float32(want), rtol=tolerance, atol=tolerance
    )
    wide = weights_MD.astype("float32")
    sums = [
        add(wide, ids_M, rows=9) for add in (embedding._scattered, embedding._sorted)
    ]
    np.testing.assert_allclose(*sums, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(
        embedding.lookup(table_VD, ids_M), np.asarray(table_VD)[ids]
    )


def test_another_row_that_is_not_finite_changes_nothing():
    ids_M = jnp.array([1, 4, 1, 2], jnp.int32)
    d_MD = jnp.ones((4, 3)).at[1].set(jnp.nan)
    got = np.asarray(embedding._sorted(d_MD, ids_M, rows=6))
    assert np.isnan(got[4]).all()
    np.testing.assert_array_equal(got[[0, 1, 2, 3, 5]].sum(1), [0, 6, 3, 0, 0])
