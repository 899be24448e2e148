import few_shot_run
import pytest

from seal_jax.report import few_shot_view
from seal_jax.report.few_shot_view import Counts


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        (few_shot_run.SUMMARY, True),
        ({"ladder": [{"name": "in_context"}]}, True),
        ({"ladder": [{"name": "oracle"}], "items": [{"item": "task 0a1b"}]}, True),
        ({"ladder": [{"name": "base"}, {"name": "self_edits"}]}, False),
        ({"ladder": [{"name": "base"}], "items": [{"item": "passage 3 (Ada)"}]}, False),
        ({"ladder": [{"name": "oracle", "drawn": 4, "refused": {}}]}, False),
        ({"ladder": None, "items": [{}, 3]}, False),
        # Ladders of passages may have that row too.
        ({"ladder": [{"name": "base"}, {"name": "in_context"}]}, False),
        ({"ladder": [{"name": "in_context"}], "kind": "pooled"}, False),
        (
            {"ladder": [{"name": "in_context"}], "items": [{"item": "passage 3 (A)"}]},
            False,
        ),
        ({}, False),
    ],
)
def test_few_shot_runs_are_told_by_their_rows_or_items(summary, expected):
    assert few_shot_view.is_few_shot(summary) is expected


def test_the_row_that_others_are_held_against():
    rows = {"ladder": [{"name": "in_context"}, {"name": "self_edits"}]}
    assert few_shot_view.reference(rows) == "in_context"
    rows["ladder"].append({"name": "base"})
    assert few_shot_view.reference(rows) == "base"


@pytest.mark.parametrize(
    ("row", "valid", "budget", "reasons"),
    [
        # 10 texts, 4 of them invalid; of 6 valid ones 2 are over budget.
        (
            {
                "edits": 7,
                "drawn": 10,
                "trained": 4,
                "refused": {"epochs": 1, "over budget": 2, "not json": 3},
            },
            0.6,
            4 / 6,
            "not json 3, over budget 2, epochs 1",
        ),
        ({"edits": 2, "drawn": 2, "trained": 2, "refused": {}}, 1.0, 1.0, ""),
        ({"edits": 2, "drawn": 2, "refused": {"not json": 2}}, 0.0, None, "not json 2"),
        ({"edits": 2, "drawn": 2, "trained": 2, "refused": None}, 1.0, 1.0, ""),
    ],
)
def test_rates_of_a_ladder_row(row, valid, budget, reasons):
    counts = few_shot_view.row_counts(row)
    assert counts is not None
    assert (counts.valid_rate, counts.budget_rate) == (valid, budget)
    assert counts.reasons() == reasons


@pytest.mark.parametrize("row", [{}, {"edits": 0, "drawn": 0}, {"drawn": None}])
def test_a_row_without_self_edits_has_no_counts(row):
    assert few_shot_view.row_counts(row) is None


def test_counts_of_edits_are_those_of_their_ladder_row():
    for row in few_shot_run.SUMMARY["ladder"][1:]:
        own = [r for r in few_shot_run.HELDOUT if r["arm"] == row["name"]]
        counts = few_shot_view.edit_counts(own)
        assert counts == few_shot_view.row_counts(row), row["name"]
    assert few_shot_view.edit_counts([]) == Counts(0, 0, 0, {})
    assert few_shot_view.edit_counts([]).valid_rate is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"answers": [[{"right": True}]]}, 1.0),
        ({"answers": [[{"right": True}, {"right": False}]]}, 0.0),
        ({"answers": [[{"right": True}], [{"right": False}]]}, 0.5),
        # The second adapter failed.
        ({"answers": [[{"right": True}], []]}, 0.5),
        ({"answers": [[{"right": True}]], "reward": -3.5}, 1.0),
        ({"answers": [], "reward": 0.25}, 0.25),
        ({"reward": 1.0, "refused": "over budget"}, None),
        ({"answers": [[{"right": "yes"}, 3]]}, 0.0),
        ({}, None),
    ],
)
def test_an_adapter_solves_a_task_if_all_tests_are_right(row, expected):
    assert few_shot_view.solved(row) == expected


def test_success_leaves_out_what_was_not_trained():
    rows = [r for r in few_shot_run.HELDOUT if r["arm"] == "round_1"]
    assert few_shot_view.success(rows) == 0.75
    assert few_shot_view.success([]) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (((0,),), ((0,),)),
        ([[9] * 30] * 30, ((9,) * 30,) * 30),
        *(
            (value, None)
            for value in (
                None,
                [],
                [[]],
                [1, 2],
                "12",
                ["12"],
                [[1], [1, 2]],
                [[10]],
                [[-1]],
                [[True]],
                [[1.0]],
                [[None]],
                [[1] * 31],
                [[1]] * 31,
            )
        ),
    ],
)
def test_a_grid_is_rows_of_ten_colours(value, expected):
    assert few_shot_view.grid(value) == expected


def test_a_self_edit_in_a_line():
    row = few_shot_run.edit("one", 0, True, mesh=("basic", "size"), rate=2e-4, epochs=1)
    text = "basic + size, loss on outputs, learning rate 0.0002, 1 epoch, 10 steps"
    assert few_shot_view.brief(row) == text
    other = row | {"switches": {}, "output_only": False, "steps": None, "epochs": 3}
    text = "no augmentation, loss on all tokens, learning rate 0.0002, 3 epochs"
    assert few_shot_view.brief(other) == text
    assert few_shot_view.brief(few_shot_run.refused(row, "not json")) == ""
    assert few_shot_view.brief({}) == ""


def test_tasks_keep_what_can_be_read():
    rows = [
        {"task_id": "a", "train": [{"input": [[1]], "output": "x"}, 7], "test": None},
        {"train": []},
    ]
    (task,) = few_shot_view.tasks(rows).values()
    assert (task.id, task.train, task.tests) == ("a", ((((1,),), None),), ())


def test_answers_count_equal_guesses_once_and_no_grid_as_none():
    tests = [
        {"guesses": [[[1]], [[2]]], "right": True, "parsed": 3},
        {"guesses": [[[1]], [[1]]], "right": False},
        {"guesses": [[[0]], [[0]]], "right": False, "parsed": 0},
        {"guesses": None},
    ]
    found = few_shot_view.answers(tests)
    assert [a.guesses for a in found] == [(((1,),), ((2,),)), (((1,),),), (), ()]
    assert [a.right for a in found] == [True, False, False, False]
    assert few_shot_view.answers(None) == []


def test_the_last_round_and_the_table_of_items():
    summary = few_shot_run.SUMMARY
    assert few_shot_view.last_round(summary) == "round_1"
    assert few_shot_view.last_round({}) is None
    names, rows = few_shot_view.items_table(summary)
    assert names == ["in_context", "self_edits", "round_1", "oracle"]
    assert [row["item"] for row in rows] == ["task one", "task two", "task three"]
    bare = {"ladder": [{"name": "base"}, {}], "items": [{"item": "x"}, {"base": 1.0}]}
    assert few_shot_view.items_table(bare) == (["base"], [{"base": 1.0}])
