"""Items come in order, and one is made before it is asked for."""

import itertools
import threading

import pytest

from seal_jax.runtime import ahead

SECONDS = 60  # So long a thread is waited for; nothing here takes that long.


class Made:
    """Numbers, each of which tells when it is made."""

    def __init__(self, count):
        self.events = [threading.Event() for _ in range(count)]

    def __iter__(self):
        for i, event in enumerate(self.events):
            event.set()
            yield i


@pytest.mark.parametrize("items", [[], [1], [3, 1, 2], [None, 0, ()]])
def test_items_and_their_order_stay(items):
    assert list(ahead.ahead(iter(items))) == items
    assert list(ahead.ahead(iter(items), count=3)) == items


@pytest.mark.parametrize("count", [1, 2])
def test_the_next_ones_are_made_while_one_is_used(count):
    made = Made(6)
    for i in ahead.ahead(iter(made), count=count):
        for event in made.events[i : i + 1 + count]:
            assert event.wait(SECONDS)
        # And no more than that: they take memory.
        assert not any(event.is_set() for event in made.events[i + 1 + count :])


def test_what_making_one_raises_comes_in_its_place():
    def items():
        yield 1
        raise ValueError("the second")

    got = ahead.ahead(items())
    assert next(got) == 1
    with pytest.raises(ValueError, match="the second"):
        next(got)


def test_who_stops_early_leaves_no_thread():
    before = threading.active_count()
    got = ahead.ahead(itertools.count())
    assert next(got) == 0
    got.close()
    assert threading.active_count() == before
