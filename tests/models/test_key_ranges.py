"""Ranges of keys, against masks written out one by one."""

import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.models import key_ranges


def mask_of(ranges):
    at_S = np.arange(ranges.first_BT.shape[1])
    first, end = (np.asarray(x)[:, :, None] for x in ranges)
    return (at_S >= first) & (at_S < end)


def by_hand(*rows):
    return [[[c == "x" for c in of_query] for of_query in row] for row in rows]


def test_rows_of_one_line():
    is_key = jnp.array([[True, True, False, False], [False] * 4, [True] * 4])
    want = by_hand(
        ["x...", "xx..", "xx..", "xx.."],
        ["....", "....", "....", "...."],
        ["x...", "xx..", "xxx.", "xxxx"],
    )
    np.testing.assert_array_equal(mask_of(key_ranges.causal(is_key)), want)


def test_lines_with_pads_and_a_rest():
    segments = jnp.array([[4, 4, 4, 4, 1, 1, -1, -1]])
    is_key = jnp.array([[True, True, False, False, True, True, False, False]])
    want = by_hand(
        [
            "x.......",
            "xx......",
            "xx......",
            "xx......",
            "....x...",
            "....xx..",
            "........",
            "........",
        ]
    )
    ranges = key_ranges.of_lines(segments, is_key)
    assert {x.dtype for x in ranges} == {jnp.dtype(jnp.int32)}
    np.testing.assert_array_equal(mask_of(ranges), want)


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_lines_are_block_diagonal_and_causal(seed):
    """Against comparing every two positions, for lines of any length, pads or none."""
    rng = np.random.default_rng(seed)
    segments, is_key = np.full((4, 40), -1), np.zeros((4, 40), bool)
    for row in range(4):
        at = 0
        for line in rng.permutation(9)[: rng.integers(0, 9)]:
            n, pads = rng.integers(1, 8), rng.integers(0, 3)
            if at + n + pads > 40:
                break
            segments[row, at : at + n + pads] = line
            is_key[row, at : at + n] = True
            at += n + pads
    same = segments[:, :, None] == segments[:, None, :]
    want = np.tril(np.ones((40, 40), bool)) & same & is_key[:, None, :]
    got = mask_of(key_ranges.of_lines(jnp.array(segments), jnp.array(is_key)))
    np.testing.assert_array_equal(got, want)
