"""The walk through the rounds: what each is handed, and when it ends early."""

import dataclasses
import types

import make_run as run_maker
import pytest
from make_run import BLANK

from seal_jax.rounds import ladder, learn, loop, rest_em
from seal_jax.rounds.graded import Graded
from seal_jax.rounds.ladder_rows import LadderRow
from seal_jax.rounds.lessons import Lesson
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question
from seal_jax.training.outer_rules import RULES

HELDOUT = [Passage(f"h{i}", "Karsk", f"t{i}", (Question("a?", "A"),)) for i in range(8)]


@pytest.fixture
def walk(tmp_path, monkeypatch):
    """Walks rounds whose ladder rows have the given values; returns what happened."""
    with run_maker.opened(tmp_path) as make:

        def walked(values, **changes):
            changes = {"ladder": ("self_edits",), "scale__rounds": len(values) - 1} | (
                changes
            )
            said, calls = [], []
            run = make(say=said.append, scale__heldout_passages=len(HELDOUT), **changes)
            names = ["self_edits", *(f"round_{r}" for r in range(1, len(values)))]
            table = dict(zip(names, values, strict=True))

            def row(run, policy, items, *, name):
                counts = {"edits": 1, "drawn": 1, "trained": 1, "refused": {}}
                return LadderRow(name, tuple(table[name]), 0.0, 0, 0, counts, [])

            def one_round(run, policy, items, *, start, past, round_index, workdir):
                calls.append((policy.stop_ids, start and start.stop_ids, list(past)))
                following = dataclasses.replace(BLANK, stop_ids=(round_index,))
                edit = Edit(0, 0, "", f"kept {round_index}")
                graded = [Graded(edit, (), (), (1.0,), 1.0, {"grade": (1.0,)})]
                return rest_em.Outcome(following, graded, [Lesson(edit)], [0.5])

            monkeypatch.setattr(ladder, "row", row)
            monkeypatch.setattr(rest_em, "one_round", one_round)
            monkeypatch.setattr(learn, "save_policy", lambda *a, **k: None)
            train = [HELDOUT[:1] for _ in values[1:]]
            summary = loop.walk(run, BLANK, train, HELDOUT, tmp_path)
            return types.SimpleNamespace(calls=calls, said=said, **summary)

        yield walked


UP = [[0.1 * r + 0.01 * i for i in range(8)] for r in range(5)]
FLAT = [UP[0], UP[1], *[[v + 0.001 * (-1) ** i for i, v in enumerate(UP[1])]] * 3]
DOWN = [UP[0], UP[3], [v - 0.2 + 0.01 * (i % 2) for i, v in enumerate(UP[3])], UP[4]]


def test_every_round_starts_where_the_last_one_ended(walk):
    walked = walk(UP)
    assert [policy for policy, *_ in walked.calls] == [(0,), (1,), (2,), (3,)]
    assert all(base is None for _, base, _ in walked.calls)
    kept = [[one.edit.text for row in past for one in row] for *_, past in walked.calls]
    assert kept == [
        [],
        ["kept 1"],
        ["kept 1", "kept 2"],
        [f"kept {i}" for i in (1, 2, 3)],
    ]
    assert walked.stopped is None
    assert [r["name"] for r in walked.ladder] == ["self_edits"] + [
        f"round_{i}" for i in range(1, 5)
    ]


def test_the_base_is_handed_to_every_round_that_starts_from_it(walk):
    walked = walk(UP, imitate__start="base")
    assert [base for _, base, _ in walked.calls] == [(0,)] * 4


@pytest.mark.parametrize(
    ("values", "rule", "after", "word"),
    [
        (UP, "plateau", None, ""),
        (FLAT, "none", None, ""),
        (FLAT, "regression", None, ""),
        (FLAT, "plateau", 3, "round 1"),
        (DOWN, "regression", 2, "below"),
        (DOWN, "plateau", 2, "below"),
    ],
)
def test_a_rule_ends_the_rounds_and_says_why(walk, values, rule, after, word):
    walked = walk(values, stop__rule=rule, stop__patience=2)
    assert len(walked.rounds) == len(walked.calls) == (after or len(values) - 1)
    if after is None:
        assert walked.stopped is None
    else:
        assert word in walked.stopped and "z =" in walked.stopped
        assert any(walked.stopped in line for line in walked.said)


@pytest.mark.parametrize(
    ("rule", "data"),
    [(rule, "replace") for rule in RULES]
    # Groups teach the policy that wrote them alone.
    + [(rule, "accumulate") for rule, of in RULES.items() if not of.groups],
)
def test_a_plateau_ends_the_rounds_of_every_outer_rule(walk, rule, data):
    changes = {"imitate__rule": rule, "imitate__data": data}
    walked = walk(FLAT, stop__rule="plateau", stop__patience=2, **changes)
    assert len(walked.rounds) == 3 and "round 1" in walked.stopped


def test_a_stop_stays_decided(walk):
    first = walk(FLAT, stop__rule="plateau")
    # Judgements that come in later change the rows, not where the rounds ended.
    assert walk(UP, stop__rule="plateau").stopped == first.stopped


def test_without_answers_held_out_there_are_rounds_and_no_rows(walk, monkeypatch):
    bare = [dataclasses.replace(p, questions=()) for p in HELDOUT]
    monkeypatch.setattr("test_loop.HELDOUT", bare)
    changes = {"ladder": ("base", "self_edits", "random_kept", "oracle")}
    walked = walk(UP, select__reward="rubric", **changes)
    assert walked.ladder == walked.paired == walked.items == walked.control == []
    assert len(walked.rounds) == len(walked.calls) == 4
    (line,) = [said for said in walked.said if "left out" in said]
    assert line == walked.left_out
    assert "base, self_edits, random_kept, oracle, rounds" in line
