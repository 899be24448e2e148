"""The low-rank term of rows under adapters of their own, against one row at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.models import row_pages


def drawn(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


# Members of pages by shard, counted in the shard: 4 is none.
MEMBERS = {
    "one shard": [[[2, 0, 4], [4, 4, 4], [1, 4, 4]]],
    "all in one page": [[[3, 1, 0, 2]]],
    "two shards": [[[3, 1], [4, 4]], [[4, 0], [2, 1]]],
    "nobody": [[[4, 4]]],
}


@pytest.mark.parametrize("name", MEMBERS)
def test_each_row_has_its_own_pages_term(name):
    members = np.array(MEMBERS[name], np.int32)
    shards, own, per_page = members.shape
    rows, pages = 4 * shards, shards * own
    x_MD, a_GRD, b_GRF = (
        drawn(rows, 5),
        drawn(pages, 2, 5, seed=1),
        drawn(pages, 2, 3, seed=2),
    )
    made = row_pages.pages(members, rows)
    got_MF = row_pages.low_rank(x_MD, a_GRD, b_GRF, made)
    want_MF = np.zeros((rows, 3), np.float32)
    for shard, page, place in np.argwhere(members < 4):
        row, g = 4 * shard + members[shard, page, place], shard * own + page
        want_MF[row] = x_MD[row] @ a_GRD[g].T @ b_GRF[g]
    np.testing.assert_allclose(got_MF, want_MF, rtol=1e-5, atol=1e-6)
    nobodys_CB = (want_MF == 0).all(1).reshape(shards, 4)
    np.testing.assert_array_equal(made.place_CB == own * per_page, nobodys_CB)


def test_a_page_that_is_not_finite_reaches_its_own_rows_alone():
    members = np.array([[[2, 0], [1, 4]]], np.int32)
    a_GRD = drawn(2, 2, 5).at[1].set(jnp.nan)
    x_MD = drawn(4, 5).at[1].set(jnp.inf)
    made = row_pages.pages(members, 4)
    got_MF = row_pages.low_rank(x_MD, a_GRD, drawn(2, 2, 3), made)
    np.testing.assert_array_equal(np.isfinite(got_MF).all(1), [True, False, True, True])
    assert not got_MF[3].any()
