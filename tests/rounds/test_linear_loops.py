"""Four times the passages take four times the looks at edits, not sixteen times.

Counted, not timed: edits count how often they are asked for their item, and indices how
often they are compared.
"""

import collections
from collections.abc import Set
from pathlib import Path

import make_run as run_maker
import pytest
from make_run import BLANK

from seal_jax.generation import policies
from seal_jax.pooled import arms
from seal_jax.rounds import (
    control,
    evaluate,
    learn,
    proposals,
    scoring,
    select,
    summary,
)
from seal_jax.rounds.graded import Graded, Trial
from seal_jax.rounds.lessons import Lesson
from seal_jax.rounds.rest_em import Outcome
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question


class Words(policies.Policy):
    """A policy that reads letters, as far as training lines are counted by it."""

    context = 512  # pyright: ignore

    def sequence(self, text):
        return list(text.encode())


READER = Words(None, {}, None, (0,), None)  # pyright: ignore
EDITS, FEW, MANY = 3, 8, 32
LOOKS: collections.Counter[str] = collections.Counter()


class CountedEdit(Edit):
    """An edit that counts how often its item is asked for."""

    def __getattribute__(self, name):
        if name == "item":
            LOOKS["item"] += 1
        return super().__getattribute__(name)


class CountedIndex(int):
    """An index that counts how often it is compared."""

    def __eq__(self, other):
        LOOKS["index"] += 1
        return int(self) == other

    __hash__ = int.__hash__


def passages(count):
    questions = (Question("a?", "yes"), Question("b?", "no"))
    return [Passage(f"p{i}", "Karsk", f"text {i}", questions) for i in range(count)]


def edits(count):
    return [
        CountedEdit(p, e, "", f"edit {e} of passage {p}")
        for p in range(count)
        for e in range(EDITS)
    ]


def outcomes(count, seeds=(0, 1)):
    return [
        [Trial(i, s, ("yes", "yes"), (), (), 1.0, None) for s in seeds]
        for i in range(count * EDITS)
    ]


def graded(count):
    measured = {"grade": (0.5, 0.5), "majority": (0.5, 1.0)}
    scores = ((0.0, 1.0),) * 2
    return [
        Graded(edit, tuple(given), scores, (0.5, 0.5), 0.5, measured)
        for edit, given in zip(edits(count), outcomes(count), strict=True)
    ]


def choose(run, count):
    rule = run.exp.select.rule
    texts = [p.text for p in passages(count)]
    return select.choose(graded(count), texts, [0.0] * count, rule=rule, ties_seed="0")


def race(run, count):
    def adapt(exams, *, phase, seeds, among):
        del exams, phase
        assert isinstance(among, Set)  # It is asked about every edit.
        indices = list(map(CountedIndex, range(count * EDITS)))
        return [
            given if i in among else []
            for i, given in zip(indices, outcomes(count, seeds), strict=True)
        ]

    return evaluate.evaluate(
        run, BLANK, passages(count), edits(count), adapt, phase="r", round_index=1
    )


def write_rows(run, count):
    learned = [Lesson(edit) for edit in edits(count)[::EDITS]]
    done = Outcome(BLANK, graded(count), learned, [0.0] * count)
    lines = scoring.lines_trained(run, passages(count), done.graded)
    return summary.edit_rows(run, passages(count), done, 1, lines)


def tell(run, count):
    learned = [Lesson(edit) for edit in edits(count)[:1]]
    done = Outcome(BLANK, graded(count), learned, [0.0] * count)
    lines = scoring.lines_trained(run, passages(count), done.graded)
    return summary.round_line(run, passages(count), done, 1, lines)


def keep_any(run, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "propose", lambda *_, **__: edits(count))
        patch.setattr(learn, "imitate", lambda *_, **__: BLANK)
        return control.random_kept(run, BLANK, [passages(count)], Path())


def pool(run, count):
    learned = arms.Material(edits(count), [[] for _ in range(count)])
    answers = [["yes", "no"] for _ in range(count)]
    outcome = arms.Outcome(answers, 1.0)
    asked = passages(count)
    return arms.row(run, asked, asked, [outcome], learned, name="self_edits")


LOOPS = {
    function.__name__: function
    for function in (choose, race, write_rows, tell, keep_any, pool)
}


@pytest.mark.parametrize("name", LOOPS)
def test_looks_grow_with_the_passages_and_no_faster(name, tmp_path, monkeypatch):
    monkeypatch.setattr(
        scoring, "baselines", lambda run, policy, items, phase: [0.0] * len(items)
    )
    looks = []
    for count in (FEW, MANY):
        workdir = tmp_path / str(count)
        workdir.mkdir()
        with run_maker.opened(workdir) as make:
            run = make(
                blank=READER,
                scale__edits=EDITS,
                scale__seeds=2,
                select__compare=("majority",),
                select__halving=((1, 2), (2, 1)) if name == "race" else (),
            )
            LOOKS.clear()
            LOOPS[name](run, count)
        looks.append(LOOKS.total())
    assert 0 < looks[1] <= looks[0] * MANY / FEW
