"""Rewards of the user's own in a round: for each seed or each edit, asked once."""

import functools

import make_run as run_maker
import own_code
import pytest
from make_run import BLANK

from seal_jax.rewards import own
from seal_jax.rounds import evaluate, own_rewards, scoring, trials
from seal_jax.rounds.graded import Graded, Trial
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage

ITEMS = [Passage.of("Karsk", f"Ada bakes {i}.") for i in range(2)]
# The second edit of the second passage is refused.
EDITS = [Edit(p, e, "", "x" * (3 * p + e + 1)) for p in range(2) for e in range(2)]
EDITS[3] = Edit(1, 1, "", "", refused="blank")
SURE, SHORT = "round_rules:sure", "round_rules:short"


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    own_code.stand_in(tmp_path, monkeypatch)
    own.reward.cache_clear()
    own_code.write(
        tmp_path,
        "round_rules",
        """
        asked = []
        def sure(loss, passage):
            asked.append(passage)
            return -loss
        def short(edit):
            asked.append(edit)
            return -len(edit)
        def first(questions, edit):
            return len(edit) + len(questions[0])
        def share(answers, gold):
            return len(gold) / len(gold)
        def wrong(edit):
            return edit
        """,
    )
    with run_maker.opened(tmp_path) as make:
        yield functools.partial(make, scale__edits=2, scale__seeds=2)


@pytest.fixture
def trained(monkeypatch):
    """Stands in for training: the loss of edit i, seed s is i + s/10; (1, 1) fails."""
    calls = []

    def adapt(run, policy, edits, exams, *, phase, round_index, seeds, among):
        calls.append(tuple(seeds))
        return [
            [
                Trial(i, s, (), (), (), i + s / 10, "nan" if (i, s) == (1, 1) else None)
                for s in seeds
            ]
            if i in among and not edits[i].refused
            else []
            for i in range(len(edits))
        ]

    monkeypatch.setattr(trials, "adapt_and_answer", adapt)
    monkeypatch.setattr(
        scoring, "baselines", lambda run, policy, items, phase: [None] * len(items)
    )
    return calls


def evaluated(run):
    adapt = functools.partial(trials.adapt_and_answer, run, BLANK, EDITS, round_index=1)
    graded, _ = evaluate.evaluate(
        run, BLANK, ITEMS, EDITS, adapt, phase="round_1", round_index=1
    )
    return graded


def asked():
    import round_rules  # pyright: ignore[reportMissingImports]

    found = list(round_rules.asked)
    round_rules.asked.clear()
    return found


def test_each_seed_has_a_reward_and_a_failed_adapter_the_worst(make_run, trained):
    run = make_run(select__reward=SURE, select__compare=(SHORT,))
    graded = evaluated(run)
    assert [g.measured[SURE] for g in graded] == [
        (-0.0, -0.1),
        (-1.0, None),
        (-2.0, -2.1),
        (),
    ]
    assert [g.rewards for g in graded] == [(-0.0, -0.1), (-1.0, -1e6), (-2.0, -2.1), ()]
    assert graded[3].reward is None
    assert [g.measured.get(SHORT) for g in graded] == [(-1.0,), (-2.0,), (-4.0,), None]
    texts = [ITEMS[0].text] * 3 + [ITEMS[1].text] * 2
    assert asked() == [*texts, "x", "xx", "xxxx"]
    # A run that is continued asks nothing again.
    again = make_run(select__reward=SURE, select__compare=(SHORT,))
    assert [g.rewards for g in evaluated(again)] == [g.rewards for g in graded]
    assert asked() == []


def test_a_reward_of_texts_alone_trains_nothing(make_run, trained):
    graded = evaluated(make_run(select__reward=SHORT, select__compare=()))
    assert trained == []
    assert [g.reward for g in graded] == [-1.0, -2.0, -4.0, None]
    asked()


def test_a_race_keeps_the_rewards_of_its_first_rung(make_run, trained):
    run = make_run(
        select__reward=SURE, select__compare=(), select__halving=((1, 2), (2, 1))
    )
    graded = evaluated(run)
    assert trained == [(0,), (1,)]
    assert graded[0].rewards == (-0.0, -0.1)
    assert len(asked()) == 5  # Three first trials, then two; one of them failed.


def test_what_a_passage_without_questions_leaves_out_is_not_asked(make_run, trained):
    names = ("round_rules:first", "round_rules:share")
    run = make_run(select__reward=SURE, select__compare=names)
    passages = [ITEMS[0], Passage.of("Marl", "Bo bakes.", [("Who?", "Bo")])]
    adapt = functools.partial(trials.adapt_and_answer, run, BLANK, EDITS, round_index=1)
    found = adapt([], phase="round_1", seeds=(0,), among=range(4))
    graded = [
        Graded(e, tuple(t), (), (), None) for e, t in zip(EDITS, found, strict=True)
    ]
    graded = own_rewards.of_texts(run, passages, graded, phase="round_1")
    graded = own_rewards.of_trials(run, passages, graded, (), phase="round_1")
    assert [g.measured.get(names[0]) for g in graded] == [(None,), (None,), (8,), None]
    assert [g.measured[names[1]] for g in graded] == [(None,), (None,), (1.0,), ()]
    asked()


def test_an_error_names_the_key_that_names_the_reward(make_run, trained):
    run = make_run(select__reward=SHORT, select__compare=("round_rules:wrong",))
    with pytest.raises(ValueError, match=r"^select\.compare='round_rules:wrong': gave"):
        evaluated(run)
    run = make_run(select__reward="round_rules:wrong", select__compare=(SHORT,))
    with pytest.raises(ValueError, match=r"^select\.reward='round_rules:wrong': gave"):
        evaluated(run)
    asked()
