"""Streams of random numbers that must not meet."""

from seal_jax.rounds import trials


def test_no_two_stages_draw_the_same_numbers():
    stages = {
        name: value
        for name, value in vars(trials).items()
        if name.isupper() and type(value) is int
    }
    assert {"PROPOSE", "PRACTICE", "DREAM", "STRATEGY", "SCORE"} <= stages.keys()
    assert len({*stages.values()}) == len(stages)
