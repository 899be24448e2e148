"""Reading both kinds of runs, the tables of the command, and the released numbers."""

import json

import pytest

from seal_jax.report.commands import agreement
from seal_jax.rewards import rubric

TRAIN = "knowledge-incorporation/results/query_server/train"


def row(passage, grades, *, number=1, text="One fact. Another.", **measured):
    return {
        "round": number,
        "passage_id": passage,
        "passage": "Ada cooks rye bread. Boris plays cello.",
        "text": text,
        "measured": {"grade": grades, **measured},
    }


def workdir(path, *rows):
    text = "".join(json.dumps(r) + "\n" for r in rows)
    (path / "edits.jsonl").write_text(text, encoding="utf-8")
    return path


def ranking(path, *articles):
    """articles[p][e] = (text, verdicts by seed)."""
    value = [
        {
            "title": "T",
            "context": "Ada cooks rye bread.",
            "completions": [
                {
                    "text": text,
                    "questions": [
                        {"rep": rep, "adapter_correct": right}
                        for rep, verdicts in enumerate(seeds)
                        for right in verdicts
                    ],
                    "stats": {"adapter_mean": 0.25},
                }
                for text, seeds in edits
            ],
        }
        for edits in articles
    ]
    path.write_text(json.dumps({"articles": value}), encoding="utf-8")
    return path


def test_workdirs_give_each_round_and_every_reward(tmp_path):
    rows = [
        row("a", [0.5, 1.0], rubric=0.4, log_likelihood=[-1.0, -1e6]),
        row("b", [0.0, None], rubric=None),
        row("a", [0.0, 0.0], rubric=[0.9], text="Ada. Boris plays cello."),
        row("a", [1.0], number=2),
    ]
    first, second = agreement.read(workdir(tmp_path, *rows))
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


def test_of_a_race_only_the_seeds_of_all_edits_count(tmp_path, capsys):
    rows = [
        row("a", [0.0, 1.0, 1.0], cheap=[0.1, 0.2, 0.3], rubric=0.5) | {"out": False},
        row("a", [1.0], cheap=[0.4], rubric=0.6) | {"out": True},
        row("a", [], cheap=[], rubric=None) | {"out": True},  # refused
        row("a", [0.5, 1.0], number=2) | {"out": False},
        row("a", [0.0, 1.0], number=2) | {"out": False},
    ]
    first, second = agreement.read(workdir(tmp_path, *rows))
    assert (first.raced, second.raced) == (1, None)
    assert first.rewards["grade"] == [[[0.0], [1.0], []]]
    assert first.rewards["cheap"] == [[[0.1], [0.4], []]]
    assert first.rewards["rubric"] == [[[0.5], [0.6], [None]]]
    assert "grade, other seeds" not in first.agreements
    assert "grade, other seeds" in second.agreements
    assert agreement.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "round 1 (a race: only seed 1)  " in out
    assert "round 2  " in out


def test_one_edit_for_each_passage_is_no_choice(tmp_path, capsys):
    assert agreement.main([str(workdir(tmp_path, row("a", [0.5]), row("b", [1])))]) == 0
    out = capsys.readouterr().out
    assert out == (
        f"{tmp_path.name} round 1: one edit for each passage: nothing to choose from\n"
    )


def test_runs_that_measured_nothing_else_are_graded_by_their_answers(tmp_path):
    old = {"task_id": "t", "answers": [[{"score": 1.0}, {"score": None}], []]}
    (got,) = agreement.read(workdir(tmp_path, old))
    assert got.rewards == {"grade": [[[1.0, 0.0]]]}


def test_ranking_results_give_seeds_or_what_they_state(tmp_path):
    path = ranking(
        tmp_path / "run.json",
        [("Ada cooks rye bread.", [[True, False], [True, True]])],
        [("x", [])],
    )
    (got,) = agreement.read(path)
    assert got.name == "run"
    assert got.rewards["grade"] == [[[0.5, 1.0]], [[0.25]]]
    assert got.rewards["novel trigrams"] == [[[0.0]], [[None]]]


def test_the_ceiling_comes_first_and_other_seeds_follow_their_reward(tmp_path):
    rows = [
        row(p, [0.1 * e, 0.1 * e], rubric=1.0 - e, majority=[e / 2, e / 3])
        for p in "ab"
        for e in range(3)
    ]
    (measured,) = agreement.read(workdir(tmp_path, *rows))
    got = agreement.compare(measured)
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


def test_the_command_prints_a_row_for_each_reward(tmp_path, capsys):
    rows = [
        row(p, [0.1 * e], text="ha " * e + p, quiz=None) for p in "ab" for e in (2, 5)
    ]
    assert agreement.main([str(workdir(tmp_path, *rows))]) == 0
    head, *lines = capsys.readouterr().out.rstrip().splitlines()
    assert head.startswith(f"{tmp_path.name} round 1")
    cells = {line.split("  ")[0]: line.split() for line in lines}
    assert list(cells) == ["quiz", "rubric by rules", "words", "novel trigrams"]
    assert cells["quiz"] == ["quiz", "0", *["-"] * 11]
    assert cells["words"][1:3] == ["2", "+1.000"]
    assert "100 %" in next(line for line in lines if line.startswith("words"))


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "no edits.jsonl with edits"),
        ('{"passage_id": "a"}\n', "row 1 of edits.jsonl lacks"),
        ('{"answers": []}\n', "row 1 of edits.jsonl lacks"),
        ('{"passage_id": "a", "measured": 1}\n', "row 1 of edits.jsonl lacks"),
    ],
)
def test_workdirs_without_grades_are_refused(tmp_path, capsys, text, words):
    if text is not None:
        (tmp_path / "edits.jsonl").write_text(text, encoding="utf-8")
    assert agreement.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and words in said and said.count("\n") == 1


@pytest.mark.parametrize("text", ["[]", '{"articles": [{}]}', '{"articles": [1]}', "{"])
def test_files_that_are_no_ranking_results_are_refused(tmp_path, capsys, text):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    assert agreement.main([str(path)]) == 2
    assert agreement.main([str(tmp_path / "none.json")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "none.json: no such file or directory; give a workdir or" in said[1]
    assert len(said) == 2 and all(line.startswith("error: ") for line in said)


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
    (measured,) = agreement.read(path)
    assert sum(map(len, measured.rewards["grade"])) == edits
    got = agreement.compare(measured)
    by_words, by_novelty = got["words"], got["novel trigrams"]
    assert by_words is not None and by_novelty is not None
    assert by_words.pooled == pytest.approx(words, abs=5e-3)
    assert by_novelty.pooled == pytest.approx(novel, abs=5e-4)
    if name == "rank_iter0":
        ceiling = got["grade, other seeds"]
        assert ceiling is not None
        assert ceiling.pooled == pytest.approx(0.206, abs=5e-4)
        assert ceiling.captured == pytest.approx(0.17, abs=5e-3)
