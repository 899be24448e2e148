"""Which data a round learns from."""

import pytest

from seal_jax.rounds import select
from seal_jax.training.settings import IMITATE_DATA


@pytest.mark.parametrize(
    ("past", "new", "policy", "expected"),
    [
        ([], ["a"], "replace", ["a"]),
        ([], ["a"], "accumulate", ["a"]),
        ([["a", "b"], ["c"]], ["d", "e"], "replace", ["d", "e"]),
        ([["a", "b"], ["c"]], ["d", "e"], "accumulate", ["a", "b", "c", "d", "e"]),
        # What came twice counts twice, and a round may bring nothing.
        ([["a"], []], ("a",), "accumulate", ["a", "a"]),
        ([["a"]], [], "replace", []),
        ([["a"]], [], "accumulate", ["a"]),
    ],
)
def test_training_set(past, new, policy, expected):
    assert select.training_set(past, new, policy) == expected


@pytest.mark.parametrize("policy", IMITATE_DATA)
def test_what_was_given_stays_as_it_was(policy):
    past, new = [["a"]], ["b"]
    chosen = select.training_set(past, new, policy)
    chosen.append("c")
    assert (past, new) == ([["a"]], ["b"])


def test_unknown_data_are_refused():
    with pytest.raises(ValueError, match="data='append' must be one of replace, acc"):
        select.training_set([], [1], "append")
