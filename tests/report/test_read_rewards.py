"""All rewards of edits, read from both kinds of runs, and the released numbers."""

import pytest
from reward_runs import graded_row, text_ranking, workdir

from seal_jax.report import read_rewards
from seal_jax.report.tables import agreement as agreement_table
from seal_jax.rewards import rubric

TRAIN = "knowledge-incorporation/results/query_server/train"


def test_workdirs_give_each_round_and_every_reward(tmp_path):
    rows = [
        graded_row("a", [0.5, 1.0], rubric=0.4, log_likelihood=[-1.0, -1e6]),
        graded_row("b", [0.0, None], rubric=None),
        graded_row("a", [0.0, 0.0], rubric=[0.9], text="Ada. Boris plays cello."),
        graded_row("a", [1.0], number=2),
    ]
    first, second = read_rewards.read(workdir(tmp_path, *rows))
    assert first.name == f"{tmp_path.name} round 1"
    assert first.rewards["grade"] == [[[0.5, 1.0], [0.0, 0.0]], [[0.0, None]]]
    assert first.rewards["rubric"] == [[[0.4], [0.9]], [[None]]]
    # A failed adapter's mark is no measurement.
    assert first.rewards["log_likelihood"] == [[[-1.0, None], []], [[]]]
    assert first.rewards["words"] == [[[3.0], [4.0]], [[3.0]]]
    assert first.rewards["novel trigrams"][0] == [[1.0], [0.5]]
    lines = ["Ada. Boris plays cello."]
    expected = rubric.by_rules("Ada cooks rye bread. Boris plays cello.", lines)
    assert first.rewards["rubric by rules"][0][1] == [expected]
    assert second.rewards["grade"] == [[[1.0]]]


def test_of_a_race_only_the_seeds_of_all_edits_count(tmp_path):
    rows = [
        graded_row("a", [0.0, 1.0, 1.0], cheap=[0.1, 0.2, 0.3], rubric=0.5)
        | {"out": False},
        graded_row("a", [1.0], cheap=[0.4], rubric=0.6) | {"out": True},
        graded_row("a", [], cheap=[], rubric=None) | {"out": True},  # refused
        graded_row("a", [0.5, 1.0], number=2) | {"out": False},
        graded_row("a", [0.0, 1.0], number=2) | {"out": False},
    ]
    first, second = read_rewards.read(workdir(tmp_path, *rows))
    assert (first.raced, second.raced) == (1, None)
    assert first.rewards["grade"] == [[[0.0], [1.0], []]]
    assert first.rewards["cheap"] == [[[0.1], [0.4], []]]
    assert first.rewards["rubric"] == [[[0.5], [0.6], [None]]]
    assert "grade, other seeds" not in first.agreements
    assert "grade, other seeds" in second.agreements
    assert agreement_table.title(first).endswith("round 1 (a race: only seed 1)")
    assert agreement_table.title(second).endswith("round 2")


def test_runs_that_measured_nothing_else_are_graded_by_their_answers(tmp_path):
    old = {"task_id": "t", "answers": [[{"score": 1.0}, {"score": None}], []]}
    (got,) = read_rewards.read(workdir(tmp_path, old))
    assert got.rewards == {"grade": [[[1.0, 0.0]]]}


def test_ranking_results_give_seeds_or_what_they_state(tmp_path):
    path = text_ranking(
        tmp_path / "run.json",
        [("Ada cooks rye bread.", [[True, False], [True, True]])],
        [("x", [])],
    )
    (got,) = read_rewards.read(path)
    assert got.name == "run"
    assert got.rewards["grade"] == [[[0.5, 1.0]], [[0.25]]]
    assert got.rewards["novel trigrams"] == [[[0.0]], [[None]]]


def test_the_ceiling_comes_first_and_other_seeds_follow_their_reward(tmp_path):
    rows = [
        graded_row(p, [0.1 * e, 0.1 * e], rubric=1.0 - e, majority=[e / 2, e / 3])
        for p in "ab"
        for e in range(3)
    ]
    (measured,) = read_rewards.read(workdir(tmp_path, *rows))
    got = measured.agreements
    assert list(got)[:4] == [
        "grade, other seeds",
        "rubric",
        "majority",
        "majority, other seeds",
    ]
    ceiling, judged, voted = (got[name] for name in list(got)[:3])
    assert ceiling is not None and judged is not None and voted is not None
    assert ceiling.pooled == pytest.approx(1) == voted.pooled
    assert judged.pooled == pytest.approx(-1) and judged.pick[0] == 0.0


RELEASED = [  # within-passage correlations of the released rewards, to two digits
    ("rank_iter0", 250, -0.11, -0.155),
    ("rank_iter1", 250, -0.05, 0.076),
]


@pytest.mark.parametrize("name, edits, words, novel", RELEASED)
def test_released_rewards_care_for_neither_length_nor_novelty(
    seal_data, name, edits, words, novel
):
    path = seal_data / TRAIN / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"SEAL_DATA has no {name}.json; add it to check its row")
    (measured,) = read_rewards.read(path)
    assert sum(map(len, measured.rewards["grade"])) == edits
    got = measured.agreements
    by_words, by_novelty = got["words"], got["novel trigrams"]
    assert by_words is not None and by_novelty is not None
    assert by_words.pooled == pytest.approx(words, abs=5e-3)
    assert by_novelty.pooled == pytest.approx(novel, abs=5e-4)
    if name == "rank_iter0":
        ceiling = got["grade, other seeds"]
        assert ceiling is not None
        assert ceiling.pooled == pytest.approx(0.206, abs=5e-4)
        assert ceiling.captured == pytest.approx(0.17, abs=5e-3)
