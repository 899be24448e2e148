"""The low-rank term of rows that decode, each under an adapter of its own.

One row at a time, an adapter would be read as often as it has rows, and in decoding all
is reading. So the rows of one adapter, which may lie anywhere, are brought together: a
page is up to Q of them and one copy of their adapter. The rows are few and narrow
beside the adapters, so that bringing them together and back costs little.

Rows and pages may be cut over C shards; a row's page is in its own shard.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Pages(NamedTuple):
    """Which rows are in which page, counted in their shard.

    Attributes:
      members_CGQ: rows of each of a shard's G pages; one past the last is none.
      place_CB: the place of each row among its shard's G * Q; past the last is none.
    """

    members_CGQ: Array
    place_CB: Array


def pages(members_CGQ: Array | np.ndarray, rows: int) -> Pages:
    """Pages from their members, for `rows` rows of all shards together."""
    members_CGQ = jnp.asarray(members_CGQ)
    shards = len(members_CGQ)
    members_CN = members_CGQ.reshape(shards, -1)
    own, places = rows // shards, members_CN.shape[1]

    def place(members_N: Array) -> Array:
        none_B = jnp.full(own, places, jnp.int32)
        return none_B.at[members_N].set(
            jnp.arange(places, dtype=jnp.int32), mode="drop"
        )

    return Pages(members_CGQ, jax.vmap(place)(members_CN))


def low_rank(x_MD: Array, a_GRD: Array, b_GRF: Array, pages: Pages) -> Array:
    """`(x a^T) b` of each row with its page's adapter; zero for a row that has none.

    Args:
      x_MD: the rows of all shards.
      a_GRD, b_GRF: the adapter of each page, in the dtype of `x`.
      pages: which rows are in them.
    """
    shards, _, per_page = pages.members_CGQ.shape
    x_CND = _pick(x_MD, pages.members_CGQ.reshape(shards, -1))
    x_GQD = x_CND.reshape(len(a_GRD), per_page, -1)
    # Or XLA would make one product of those of q, k and v, for which it puts their `a`
    # side by side in every step: three times the bytes of reading them.
    x_GQD, a_GRD = jax.lax.optimization_barrier((x_GQD, a_GRD))
    u_GQR = jnp.einsum("gqd,grd->gqr", x_GQD, a_GRD)
    low_GQF = jnp.einsum("gqr,grf->gqf", u_GQR, b_GRF)
    low_NF = low_GQF.reshape(-1, low_GQF.shape[-1])
    return _pick(low_NF, pages.place_CB).reshape(len(x_MD), -1)


def _pick(rows_M: Array, at_CN: Array) -> Array:
    """Rows of each shard's own part, `[C, N, ...]`; zeros for one past its last."""
    rows_CM = rows_M.reshape(len(at_CN), -1, rows_M.shape[-1])
    pick = lambda rows_M, at_N: rows_M.at[at_N].get(mode="fill", fill_value=0)
    return jax.vmap(pick)(rows_CM, at_CN)
