"""On several processes the first grades: who asks for a score gets the first one's."""

import dataclasses
import types

import make_run as run_maker
import pytest

from seal_jax.continual import ask
from seal_jax.rounds import grading, label_free, scoring
from seal_jax.runtime import distributed
from seal_jax.tasks.base import Edit
from seal_jax.tasks.knowledge import Knowledge
from seal_jax.tasks.passage import Passage

ITEM = Passage.of("Karsk", "Ada bakes.", [("Who?", "Ada"), ("What?", "rye")])


class Own(Knowledge):
    """Scores without the grader, as a task of the user's own may."""

    def score(self, answered):
        raise AssertionError(f"asked on a process that does not lead: {answered}")

    def rubric(self, written):
        raise AssertionError(f"asked on a process that does not lead: {written}")


@pytest.fixture
def follower(tmp_path, monkeypatch):
    """A run on a process that does not lead; the first one sends what `sent` has."""
    sent = []
    with run_maker.opened(tmp_path) as make:
        run = make(select__compare=("rubric",))
        fields = dataclasses.fields(run.task)
        own = Own(**{field.name: getattr(run.task, field.name) for field in fields})
        monkeypatch.setattr(distributed, "share", lambda fn: sent.pop(0))
        yield dataclasses.replace(run, task=own), sent


def test_scores_of_a_round_come_from_the_first_process(follower):
    run, sent = follower
    sent.append([0.25, 1.0])
    found = scoring.grade(run, [(ITEM, ["a", "b"])], phase="round_1", final=True)
    assert found == [0.25, 1.0] and not sent


def test_scores_of_a_sequence_come_from_the_first_process(follower):
    run, sent = follower
    sent.append([0.25, 1.0])
    setting = types.SimpleNamespace(task=run.task, arm="merge")
    _, scores = ask.graded(setting, [[ITEM]], [["a", "b"]])
    assert scores == [[[0.25, 1.0]]] and not sent


def test_rubrics_come_from_the_first_process(follower):
    run, sent = follower
    sent.append([0.75])
    edits = [Edit(0, 0, "", "Ada bakes rye.")]
    assert label_free.rubric(run, [ITEM], edits, phase="round_1") == [0.75]
    assert not sent


def test_within_a_task_nothing_is_exchanged(tmp_path, monkeypatch):
    """A task that asks its grader does so on one process: the others would wait."""

    def shared(fn):
        raise AssertionError("the first process would exchange alone")

    with run_maker.opened(tmp_path) as make:
        run = make(select__compare=("rubric",))
        task = grading.connect_rounds(run.exp, run.task, tmp_path)
        monkeypatch.setattr(distributed, "share", shared)
        assert task.score([(ITEM, ["Ada", "no"])]) == [1.0, 0.0]
        assert len(task.rubric([(ITEM, Edit(0, 0, "", "Ada bakes rye."))])) == 1
        monkeypatch.setattr(distributed, "leads", lambda: False)
        other = grading.connect_rounds(run.exp, run.task, tmp_path)
        with pytest.raises(RuntimeError, match="for a process that does not grade"):
            other.score([(ITEM, ["Ada", "no"])])
