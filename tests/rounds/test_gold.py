"""What a run leaves out where passages have no questions, and what it refuses."""

import dataclasses

import pytest
import tiny_model

from seal_jax.rounds import gold
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules


@pytest.fixture
def load(tmp_path):
    """The passages of a table in which every `step`-th row has no question."""

    def load(*, step, heldout=True, **changes):
        lines = ["text,question,answer"]
        lines += [f"Text {i}.,{'' if i % step else 'Q?'},A" for i in range(6)]
        path = tmp_path / "mine.csv"
        path.write_text("\n".join(lines))
        values = tiny_model.values(
            "model",
            task__name="passages",
            task__forward_share=0.0,
            task__train=str(path),
            task__heldout=str(path) if heldout else "",
            task__heldout_start=4,
            scale__rounds=2,
            ladder=("base", "self_edits"),
            **changes,
        )
        columns = dict(tiny_model.OPTIONAL["task.columns"])
        values["task"]["columns"] = columns | {
            "question": "question",
            "answer": "answer",
        }
        if step > 6:
            values["task"]["columns"] = columns
        exp = config_rules.build(PassageRounds, values)
        return exp, *gold.load(exp)

    return load


def test_a_reward_of_answers_needs_answers(load):
    for reward in ("grade", "log_likelihood"):
        with pytest.raises(ValueError) as caught:
            load(step=7, select__reward=reward)
        said = str(caught.value)
        assert f"select.reward='{reward}' needs questions with gold answers" in said
        assert "4 of 4 training passages have none" in said and "\n" not in said
        assert "use --config.select.reward=self_asked" in said
    with pytest.raises(ValueError, match=r"of 4 training passages have none"):
        load(step=2)
    exp, train, heldout = load(step=1)
    assert [len(items) for items in (*train, heldout)] == [2, 2, 2]
    assert all(p.questions for p in heldout) and exp.select.reward == "grade"


def test_nothing_need_be_held_out(load):
    _, train, heldout = load(step=7, heldout=False, select__reward="rubric")
    assert len(train) == 2 and heldout == []
    with pytest.raises(ValueError, match=r"stop\.rule='plateau' compares rows of the"):
        load(
            step=7,
            heldout=False,
            select__reward="rubric",
            stop__rule="plateau",
            scale__heldout_passages=8,
        )


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ((0, 4, 2, 2), ""),
        ((0, 4, 1, 3), "2 of 3 items of the ladder"),
        ((0, 4, 0, 2), "the ladder (base, self_edits, rounds), as none has a question"),
        (
            (4, 4, 0, 0),
            "the ladder (base, self_edits, rounds), as none is held out; of 4 of 4 "
            "items to learn from: grade, majority",
        ),
    ],
)
def test_what_is_left_out_is_one_line(numbers, line):
    compared = ("majority", "rubric")
    said = gold.said(*numbers, ("base", "self_edits"), compared)
    assert said == (line and f"without gold answers, left out: {line}")


@dataclasses.dataclass
class Counting:
    """A task of which only the number of scores is looked at."""

    def scores_of(self, item):
        return item


def test_items_with_answers_are_those_that_are_scored():
    assert gold.measurable(Counting(), [0, 2, 0, 1]) == [2, 1]  # pyright: ignore
    said = gold.left_out(Counting(), [1, 0], [0, 1], ("base",), ())  # pyright: ignore
    assert "1 of 2 items of the ladder; of 1 of 2 items to learn from: grade" in said
