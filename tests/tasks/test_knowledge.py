"""Passages as a task: what is trained of a self-edit, and what of it is cut."""

import dataclasses

import pytest
import tiny_model

from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules
from seal_jax.tasks import knowledge, knowledge_setup
from seal_jax.tasks.base import Edit, Lines
from seal_jax.tasks.passage import Passage

PASSAGE = Passage("p", "T", "text", ())


@dataclasses.dataclass(frozen=True)
class Letters:
    """Reads a token for each letter."""

    context: int = 4096

    def encode(self, text):
        return [ord(letter) for letter in text]

    sequence = line = encode

    def turn(self, text):
        return text


def make_task(blank=None, **changes):
    exp = config_rules.build(PassageRounds, tiny_model.values("model", **changes))
    grader = lambda rows: []
    return knowledge.Knowledge(exp, blank or Letters(), "", "", grader, grader)


def job(task, text):
    return task.job(PASSAGE, Edit(0, 0, "", text), (0,))


def test_lines_longer_than_a_row_are_cut_counted_and_end_without_an_end():
    task = make_task(inner__row_tokens=96)
    made = job(task, f"{'a' * 94}\n{'b' * 95}\n{'c' * 400}")
    assert [len(line) for line in made.lines] == [96, 96, 96, 6]
    assert made.cut == (1, 2) and made.targets() == [96, 95, 95, 6]
    edit = Edit(0, 0, "", f"{'a' * 94}\n{'b' * 95}\n{'c' * 400}")
    assert task.count_lines(PASSAGE, edit) == Lines(4, 2)
    refused = dataclasses.replace(edit, refused="blank")
    assert task.count_lines(PASSAGE, refused) == Lines(0, 0)


def test_the_models_context_cuts_too():
    made = job(make_task(Letters(context=20)), "a" * 30)
    assert [len(line) for line in made.lines] == [20, 6] and made.cut == (0,)


@pytest.mark.parametrize("samples", [-1, 0, 8])
def test_lines_of_2048_tokens_can_be_reached_as_in_the_reference(samples):
    """There a line is cut at 2048 tokens, and one that fills its row has no end."""
    task = make_task(
        inner__loss__mode="reference",
        inner__loss__pad_to=2048,
        inner__loss__pad_samples=samples,
        inner__row_tokens=2048,
        inner__step_tokens=2048,
    )
    made = job(task, "\n".join("a" * n for n in (3000, 2047, 2046, 2045, 9)))
    assert list(map(len, made.lines)) == [2048, 2048, 2048, 2047, 11, 6]
    assert made.cut == (0, 1)
    # Every other line has its first end-of-text among 2047 targets.
    assert set(made.targets()) == {2047}
    assert max(made.positions()) <= 2048


def test_a_passage_need_only_fit_a_row_where_it_is_trained_on():
    task, long = make_task(inner__row_tokens=96), Passage("p", "T", "a" * 200, ())

    def check(rule, **more):
        own = task.under(rule)
        knowledge_setup.check_fit(
            task.exp, own.blank, own, [long], writes=False, **more
        )

    check("quiz")
    check("edits", told=False)
    for rule, more in (("edits", {}), ("distill_edits", {}), ("quiz", {"told": True})):
        with pytest.raises(ValueError, match="its training line takes 202 tokens"):
            check(rule, **more)
    assert task.fixed("edits", long) is None
    for row in knowledge.FIXED:  # Rows with statements of no policy, by any rule.
        assert task.fixed(row, long)
