"""Keys are jax's own, and take no program for each number of them."""

import compilations
import jax
import numpy as np
import pytest

from seal_jax.runtime import prng


def words(keys):
    return np.asarray(jax.random.key_data(keys))


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_root_is_the_key_of_its_seed(seed):
    assert np.array_equal(words(prng.root(seed)), words(jax.random.key(seed)))


def test_fold_folds_each_column_in_turn():
    key = jax.random.key(3)
    rows = [(0, 1, 2), (0, 1, 3), (5, 0, 0)]
    made = prng.fold(key, *np.array(rows).T)
    for row, got in zip(rows, made, strict=True):
        want = key
        for value in row:
            want = jax.random.fold_in(want, value)
        assert np.array_equal(words(got), words(want))


def test_fold_takes_a_key_for_each_row_and_more_rows_than_a_program():
    count = prng.ROWS + 3
    keys = jax.random.split(jax.random.key(1), count)
    made = prng.fold(keys, range(count))
    want = jax.vmap(jax.random.fold_in)(keys, np.arange(count, dtype=np.uint32))
    assert np.array_equal(words(made), words(want))
    assert prng.fold(keys[:0], []).shape == (0,)


def test_take_picks_as_an_index_does():
    keys = jax.random.split(jax.random.key(2), 5)
    for index in (0, slice(1, 3), np.array([[4, 4], [0, 1]])):
        taken, want = prng.take(keys, index), keys[index]
        assert taken.shape == want.shape
        assert np.array_equal(words(taken), words(want))


@pytest.mark.parametrize("columns", [(), ([1], [1, 2]), ([1],) * 9])
def test_columns_that_make_no_table_are_refused(columns):
    with pytest.raises(ValueError, match="1 to 8 of equal length"):
        prng.fold(jax.random.key(0), *columns)


def test_one_program_does_for_all_counts():
    with compilations.recorded() as programs:
        keys = prng.fold(prng.root(5), range(1), [2])
        for count in (2, 3, 40):
            keys = prng.fold(prng.take(keys, np.zeros(count, int)), range(count))
    # None where a test before has compiled it.
    assert [program.name for program in programs] in (["_fold"], [])
