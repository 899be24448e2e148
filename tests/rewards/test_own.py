"""Graders and rewards of the user's own: what they are called with, and refusals."""

import own_code
import pytest

from seal_jax.rewards import own
from seal_jax.rewards.settings import GradeConfig
from seal_jax.rounds import grading
from seal_jax.rounds.settings import SelectConfig


@pytest.fixture
def here(tmp_path, monkeypatch):
    own_code.stand_in(tmp_path, monkeypatch)
    own.reward.cache_clear()
    own_code.write(
        tmp_path,
        "own_rules",
        """
        def first_word(question, gold, answer):
            return answer.split()[0] == gold.split()[0]
        def unsure(question, gold, answer): return None
        def words(question, gold, answer): return answer
        def short(edit, most=100): return -len(edit) / most
        def sure(answers, *, loss): return len(answers) - loss
        def about(passage, title, questions, gold): return 1.0
        def wrong(edit, answer): return 0
        def nothing(scale=1.0): return 0
        def fails(edit): return {}[edit]
        """,
    )
    return tmp_path


def grade(name):
    return GradeConfig(name=name, threshold=0.6, max_missing=0.0, judge=None)


def test_a_grader_of_ones_own_grades(here, tmp_path):
    score = grading.scorer(grade("own_rules:first_word"), tmp_path)
    assert score(
        [("q", "rye bread", "rye"), ("q", "rye", "oat"), ("q", "rye", " ")]
    ) == [
        1.0,
        0.0,
        0.0,  # A blank answer is wrong, and the grader is not asked.
    ]
    assert grading.scorer(grade("own_rules:unsure"), tmp_path)([("q", "g", "a")]) == [
        None
    ]
    score = grading.scorer(grade("own_rules:words"), tmp_path)
    with pytest.raises(ValueError, match="gave 'a', and must give a number from 0 to"):
        score([("q", "g", "a")])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_rules:first", "did you mean first_word?"),
        ("own_rules:short", "must take (question, gold, answer) and takes (edit, most"),
        ("f2", "must be one of ('recall', 'exact', 'f1', 'judge'); use 'recall'"),
    ],
)
def test_a_config_with_another_grader_is_refused_when_it_is_read(here, name, message):
    with pytest.raises(ValueError) as caught:
        grade(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_reward_asks_by_its_parameters(here):
    short, sure, about = (
        own.reward(f"own_rules:{name}") for name in ("short", "sure", "about")
    )
    given = dict.fromkeys(own.GIVEN, "") | {"edit": "abcd", "answers": ["a"] * 3}
    given["loss"] = 0.5
    assert (short.of(given), sure.of(given), about.of(given)) == (-0.04, 2.5, 1.0)
    assert [r.trains for r in (short, sure, about)] == [False, True, False]
    assert [r.asks for r in (short, sure, about)] == [False, True, True]
    for name, trains, asks in (
        ("grade", True, True),
        ("self_asked", True, False),
        ("rubric", False, False),
        ("majority", True, True),
    ):
        assert (own.trains(name), own.asks(name)) == (trains, asks)


REWARDS = {
    "own_rules:wrong": "answer is none of title, passage, questions, gold, edit, ans",
    "own_rules:nothing": "must ask for some of title, passage",
    "own_rules:sur": "did you mean sure?",
    "numpy:add": "must be a function",
    "gade": "must be one of",
}


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("key", ["reward", "compare"])
def test_a_config_with_another_reward_is_refused_when_it_is_read(here, name, key):
    chosen = {"reward": "grade", "compare": ()}
    chosen[key] = name if key == "reward" else (name,)
    with pytest.raises(ValueError) as caught:
        select(**chosen)
    said = str(caught.value)
    assert f"select.{key}=" in said and "\n" not in said
    if name != "numpy:add":
        assert REWARDS[name] in said


def select(**changes):
    values = {
        "k_best": 1,
        "ties": "first",
        "threshold": "none",
        "halving": (),
        "novelty_bonus": 0.0,
        "max_copied": 1.0,
        "max_overlap": 1.0,
    }
    return SelectConfig(**values | changes)


def test_adapters_are_trained_where_a_reward_asks_for_what_they_gave(here):
    short, sure = "own_rules:short", "own_rules:sure"
    assert not select(reward=short, compare=()).trains
    assert select(reward=short, compare=(sure,)).trains
    with pytest.raises(ValueError, match="races by what adapters earn"):
        select(reward=short, compare=(), halving=((1, 2), (2, 1))).check_scale(
            edits=3, seeds=2
        )


def test_a_threshold_of_ones_own_reward_may_be_any_number(here):
    assert (
        select(reward="own_rules:sure", compare=(), threshold="5").rule.threshold == 5
    )
    with pytest.raises(ValueError, match=r"select\.threshold=5\.0 must be at least"):
        select(reward="grade", compare=(), threshold="5")


def test_what_a_reward_raises_is_one_line(here):
    given = dict.fromkeys(own.GIVEN, "x")
    with pytest.raises(ValueError, match="own_rules line 11: KeyError: 'x'; correct"):
        own.reward("own_rules:fails").of(given)
