"""Training in waves on an adapter's own answers: what lies beneath, what is noted."""

import jax.numpy as jnp
import numpy as np

from seal_jax.rounds import practice
from seal_jax.rounds.practice import Practice


def tree(rows, rank, value):
    """A stack of one linear, width 2, each row its own number."""
    each = np.arange(rows)[:, None, None] + np.full((rows, rank, 2), float(value))
    return {"0": {"q_proj": {"a": jnp.asarray(each), "b": jnp.asarray(each)}}}


def test_adapters_answer_on_top_of_their_own_stack():
    applied = practice.on_top(tree(5, 4, 0.5), [4, 0, 2], 2)
    bare = applied(range(1, 3), None)["0"]["q_proj"]["a"]
    assert bare.shape == (2, 4, 2)
    assert (bare[:, :, 0] == jnp.array([0.5, 2.5])[:, None]).all()
    # A pool with two rows to spare, which lie on something or other.
    whole = applied(range(1, 3), tree(4, 1, 7.0))["0"]["q_proj"]
    for side in ("a", "b"):
        assert whole[side].shape == (4, 4, 2)
        assert (whole[side][:2, :2] == bare[:, :2]).all()
        assert (whole[side][:2, 2, 0] == jnp.array([7.0, 8.0])).all()
        assert (whole[side][:2, 3] == bare[:, 3]).all()


def test_notes_are_by_pool_and_by_wave():
    said = []
    notes = practice.Notes(said.append)
    told = [Practice(i, 1.0, 0.0, 1.0, None if i == 3 else 0.5) for i in range(4)]
    for i, wave in enumerate((0, 1, 0, 1)):
        notes(wave, told[i])
    assert notes.pools == [told[:2], told[2:]] and notes.last == told[2:]
    assert said[1].startswith("wave 2: 1 answers of 1.0 tokens, 0% empty")
    assert said[1].endswith("0.50 nats a token")
    assert said[3].endswith("100% distinct, - nats a token")
