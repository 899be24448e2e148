"""Rewards of seeds, read from both kinds of runs."""

from reward_runs import ranking, row, workdir, write

from seal_jax.report import read_seeds


def test_ranking_results_give_the_share_right_at_each_seed(tmp_path):
    value = ranking([[[True, False], [True, True]], [[False], [True]]])
    (got,) = read_seeds.read(write(tmp_path / "run.json", value))
    assert got.name == "run"
    assert got.rewards == [[[0.5, 1.0], [0.0, 1.0]]] == got.judge


def test_workdirs_give_each_round(tmp_path):
    rows = [
        row("a", [0.5, None]),
        row("b", [1.0, 1.0]),
        row("a", [0.0, 0.25]),
        row("a", [0.1, 0.2], number=2),
    ]
    first, second = read_seeds.read(workdir(tmp_path, *rows))
    assert first.name == f"{tmp_path.name} round 1"
    assert first.rewards == [[[0.5, None], [0.0, 0.25]], [[1.0, 1.0]]] == first.judge
    assert second.rewards == [[[0.1, 0.2]]]


def test_tasks_may_be_passages_and_answers_may_be_absent(tmp_path):
    bare = {"task_id": "t", "rewards": [0.0, 1.0], "round": 1, "answers": [["?"], []]}
    (got,) = read_seeds.read(workdir(tmp_path, bare))
    assert got.rewards == [[[0.0, 1.0]]] == got.judge


def test_a_dense_reward_is_graded_by_right_answers(tmp_path):
    rows = [
        row("a", [-0.5, -1e6], scores=[[1.0, 0.0, None], []]),
        row("a", [-0.7, -0.6], scores=[[None], [1.0]]),
    ]
    dense, right = read_seeds.read(workdir(tmp_path, *rows))
    assert dense.rewards == [[[-0.5, None], [-0.7, -0.6]]]  # failed: not a value
    assert dense.judge == right.rewards == [[[0.5, 0.0], [None, 1.0]]]
    assert right.name == f"{dense.name}, right answers"


def test_other_rewards_are_read_where_every_seed_has_them(tmp_path):
    more = {"grade": [1.0, 0.0], "log_likelihood": [-1.0, -1e6], "rubric": [0.4]}
    same = {"grade": [0.5, 0.5], "log_likelihood": [-2.0, -3.0], "rubric": [0.6]}
    rows = [
        row("a", [1.0, 0.0]) | {"measured": more},
        row("a", [0.5, 0.5]) | {"measured": same},
    ]
    grade, dense = read_seeds.read(workdir(tmp_path, *rows))
    assert grade.rewards == grade.judge == dense.judge == [[[1.0, 0.0], [0.5, 0.5]]]
    assert dense.name == f"{grade.name}, log_likelihood"
    assert dense.rewards == [[[-1.0, None], [-2.0, -3.0]]]


def test_of_a_race_only_the_seeds_of_all_count(tmp_path):
    rows = [
        row("a", [1.0, 0.5, 0.0]) | {"out": False},
        row("a", [0.5]) | {"out": True},
        row("a", []) | {"out": True},  # refused: it did not run
        row("b", [0.0, 0.5, 1.0]) | {"out": False},
        row("b", [0.25, 0.5], number=2) | {"out": False},
    ]
    first, second = read_seeds.read(workdir(tmp_path, *rows))
    assert first.rewards == first.judge == [[[1.0], [0.5], []], [[0.0]]]
    assert second.rewards == [[[0.25, 0.5]]]
    assert (first.raced, second.raced) == (1, None)
