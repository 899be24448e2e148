"""Which of the written edits go on, and what a config may ask for."""

import pytest
import tiny_model

from seal_jax.rounds import sieves
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules

DRAWN = [(5,), (1,), (4,), (0,), (3,), (2,)]


def going_on(rule, scores, valid=(True,) * 6):
    return sieves.going_on(sieves.Sieve(*rule), scores, DRAWN, valid)


def test_the_best_go_on_and_others_by_their_own_numbers():
    scores = [0.1, 0.2, 0.9, -1.0, 0.5, 0.3]
    assert going_on(("gradient", 6, 2, 0), scores) == [2, 4]
    # Of the others 3 has the least number, then 1.
    assert going_on(("gradient", 6, 2, 1), scores) == [2, 3, 4]
    assert going_on(("gradient", 6, 2, 2), scores) == [1, 2, 3, 4]
    # A random filter looks at no score, and however it is divided draws the same.
    for kept, others in ((3, 0), (0, 3), (1, 2)):
        assert going_on(("random", 6, kept, others), scores) == [1, 3, 5]


def test_what_is_not_known_is_drawn_and_what_cannot_be_trained_is_not():
    scores = [None, 0.5, None, None, 0.5, None]
    assert going_on(("gradient", 6, 3, 0), scores) == [1, 3, 4]
    # Of equal ones the first.
    assert going_on(("gradient", 6, 1, 0), scores) == [1]
    valid = (True, False, True, False, True, True)
    assert going_on(("gradient", 6, 1, 1), scores, valid) == [4, 5]
    assert going_on(("gradient", 6, 3, 2), scores, (True,) + (False,) * 5) == [0]


def refused(kind=PassageRounds, name="tiny", **changes):
    values = tiny_model.values("model", **changes) if name == "tiny" else changes
    with pytest.raises(ValueError) as caught:
        config_rules.build(kind, values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_config_says_how_many_are_written_and_trained():
    values = tiny_model.values(
        "model", scale__edits=5, select__prefilter=("gradient", 15, 3, 2)
    )
    exp = config_rules.build(PassageRounds, values)
    assert exp.select.sieve == sieves.Sieve("gradient", 15, 3, 2)
    assert exp.select.written(exp.scale.edits) == 15
    assert exp.select.gradients == ("gradient",)
    # Configs from before train all that is written.
    for key in ("prefilter", "objective"):
        del values["select"][key]
    before = config_rules.build(PassageRounds, values).select
    assert before.sieve is None and before.written(5) == 5
    assert before.objective == "mean" and before.gradients == ()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (("gradient", 15, 2), "must be () or"),
        (("gradient", 15, 3, "2"), "must be () or"),
        (("gradient", 15, 3, -1), "select.prefilter"),
        (("gradients", 15, 1, 1), "use 'gradient'"),
        ((15, 3, 2, 1), "must be one of"),
        (("gradient", 15, 0, 0), "at least 1"),
        (("gradient", 1, 1, 1), "no more than are written"),
        (("gradient", 15, 3, 2), "must train scale.edits=2"),
        (("gradient", 15, 1.5, 2), "must be of type"),
    ],
)
def test_what_a_prefilter_cannot_be_is_said(value, told):
    assert told in refused(select__prefilter=value)


def test_what_is_written_is_bounded_as_a_whole():
    error = refused(scale__passages=2_000, select__prefilter=("random", 600, 0, 2))
    assert "scale.passages * those that select.prefilter=" in error
    assert "= 1200000 must be at most 1000000" in error


def test_what_a_gradient_needs_is_said():
    changes = dict(select__prefilter=("gradient", 4, 1, 1))
    assert "needs the group config.label_free" in refused(label_free=None, **changes)
    error = refused(inner__rule="on_policy", **changes)
    assert "inner.rule='on_policy'" in error and "'gradient'" in error
    assert "'gradient'" in refused(
        inner__rule="on_policy", select__compare=("gradient",)
    )
    assert "select.objective='best' must be one of" in refused(select__objective="best")
    seeds = dict(over_seeds=dict(count=2, chunk=2, together=1, march=2), **changes)
    values = tiny_model.values("model", **{k: v for k, v in changes.items()})
    values |= {"over_seeds": seeds["over_seeds"], "ladder": ("base",)}
    values["inner"]["chunk_tokens"] = 0
    with pytest.raises(ValueError, match=r"select\.prefilter=.* no form on tokens"):
        config_rules.build(OverSeeds, values)


def test_few_shot_edits_are_no_texts_to_rank():
    values = tiny_model.load_config("arc", "tiny").to_dict()
    values["select"]["prefilter"] = ("random", 99, 0, values["scale"]["edits"])
    with pytest.raises(ValueError, match="few-shot tasks are settings; use \\(\\)"):
        config_rules.build(FewShot, values)
