"""Selection by table and against brute force; the command and its refusals."""

import json
import math
import random
import re
import subprocess
import sys

import pytest
import tiny_model
from hypothesis import given
from hypothesis import strategies as st

from seal_jax.report.commands import select as rankings
from seal_jax.rounds import select
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules


def best(rewards, *, baseline=None, rng=None, lengths=None, novelty=None, **options):
    """`select.best` of edits given by their rewards and measures."""
    edits = [
        select.Candidate(
            reward,
            length=lengths[e] if lengths else 0,
            novelty=novelty[e] if novelty else None,
        )
        for e, reward in enumerate(rewards)
    ]
    return select.best(edits, select.Rule(**options), baseline=baseline, rng=rng)


CASES = {
    "highest": ([0.2, 0.9, 0.5], {}, [1]),
    "first of equals": ([0.5, 0.9, 0.9], {}, [1]),
    "all equal": ([0.0, 0.0], {}, [0]),
    "negative": ([-2.0, -1.0], {}, [1]),
    "not scored": ([None, 0.1, None], {}, [1]),
    "none scored": ([None, None], {}, []),
    "no edits": ([], {}, []),
    "k best, best first": ([0.2, 0.9, 0.5, 0.9], {"k_best": 3}, [1, 3, 2]),
    "fewer than k": ([0.2, None], {"k_best": 5}, [0]),
    "shortest": ([1, 1, 1], {"ties": "shortest", "lengths": [3, 2, 2]}, [1]),
    "shortest only decides ties": (
        [0.5, 1, 1],
        {"ties": "shortest", "lengths": [0, 9, 8], "k_best": 3},
        [2, 1, 0],
    ),
    "threshold reached": ([0.2, 0.5], {"threshold": 0.5}, [1]),
    "threshold missed": ([0.2, 0.49], {"threshold": 0.5}, []),
    "threshold 0": ([0.0], {"threshold": 0.0}, [0]),
    "threshold and k": ([0.2, 0.6, 0.5], {"threshold": 0.5, "k_best": 9}, [1, 2]),
    "above baseline": ([0.2, 0.5], {"threshold": "baseline", "baseline": 0.4}, [1]),
    "at baseline": ([0.2, 0.5], {"threshold": "baseline", "baseline": 0.5}, []),
    "baseline unused": ([0.2], {"baseline": 0.5}, [0]),
    "a bonus decides": ([0.5, 0.4], {"novelty": [0.0, 0.5], "bonus": 0.3}, [1]),
    "too small a bonus": ([0.5, 0.4], {"novelty": [0.0, 0.5], "bonus": 0.1}, [0]),
    "a bonus decides ties": ([0.5, 0.5], {"novelty": [0.1, 0.2], "bonus": 0.01}, [1]),
    "novelty without a bonus": ([0.5, 0.5], {"novelty": [0.1, 0.2]}, [0]),
    "not known is no bonus": ([0.5, 0.4], {"novelty": [None, 0.5], "bonus": 0.3}, [1]),
    "a bonus reaches no threshold": (
        [0.5, 0.4],
        {"novelty": [0.0, 1.0], "bonus": 1.0, "threshold": 0.5},
        [0],
    ),
    "a bonus beats no baseline": (
        [0.5, 0.4],
        {"novelty": [0.0, 1.0], "bonus": 1.0, "threshold": "baseline", "baseline": 0.4},
        [0],
    ),
    "copied too much": ([0.9, 0.4], {"novelty": [0.2, 0.3], "max_copied": 0.75}, [1]),
    "copied as much as may be": ([0.9], {"novelty": [0.25], "max_copied": 0.75}, [0]),
    "all copied": ([0.9, 0.4], {"novelty": [0.2, 0.3], "max_copied": 0.1}, []),
    "copied unknown": ([0.9], {"novelty": [None], "max_copied": 0.0}, [0]),
    "copied without a limit": ([0.9], {"novelty": [0.0]}, [0]),
}


@pytest.mark.parametrize("case", CASES)
def test_best(case):
    rewards, options, want = CASES[case]
    assert best(rewards, **options) == want


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k_best": 0}, "k_best=0 must be at least 1"),
        ({"ties": "last"}, "ties='last' must be one of first, shortest, random"),
        ({"ties": "random"}, "ties='random' needs rng"),
        (
            {"threshold": "base"},
            "threshold='base' must be a number, 'baseline' or None",
        ),
        ({"threshold": "baseline"}, "needs the accuracy without an adapter"),
        ({"threshold": math.nan}, "threshold=nan must be finite"),
        ({"digits": 16}, "digits=16 must be between 0 and 15"),
        ({"bonus": -0.1}, "bonus=-0.1 must be at least 0"),
        ({"bonus": math.nan}, "bonus=nan must be at least 0"),
        ({"max_copied": 1.5}, "max_copied=1.5 must be between 0"),
        ({"max_overlap": math.nan}, "max_overlap=nan must be between 0 and 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        best([0.1, 0.2], **options)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused(reward):
    with pytest.raises(ValueError, match=f"reward={reward} must be finite; give None"):
        best([0.5, reward])


def test_random_ties_depend_on_the_seed_alone_and_reach_every_tie():
    def draw(seed):
        rng = random.Random(seed)
        return best([0.3, 0.7, 0.7, None, 0.7], ties="random", rng=rng)[0]

    assert [draw(s) for s in range(30)] == [draw(s) for s in range(30)]
    assert {draw(s) for s in range(30)} == {1, 2, 4}


@given(
    st.lists(st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=8),
    st.integers(1, 9),
    st.none() | st.sampled_from([0.25, 0.6]),
    st.sampled_from(select.TIES),
    st.randoms(use_true_random=False),
)
def test_nothing_better_is_left_behind(rewards, k_best, threshold, ties, rng):
    lengths = [rng.randrange(3) for _ in rewards]
    chosen = best(
        rewards, k_best=k_best, ties=ties, threshold=threshold, lengths=lengths, rng=rng
    )
    fit = [
        e
        for e, r in enumerate(rewards)
        if r is not None and (threshold is None or r >= threshold)
    ]
    assert len(chosen) == len(set(chosen)) == min(k_best, len(fit))
    assert set(chosen) <= set(fit)
    left = [rewards[e] for e in fit if e not in chosen]
    values = [rewards[e] for e in chosen]
    assert values == sorted(values, reverse=True)
    assert not left or min(values) >= max(left)


# Novelty

SHARED = [
    [1, 0.9, 0.2, 0.3],
    [0.9, 1, 0.1, 0.4],
    [0.2, 0.1, 1, 0.6],
    [0.3, 0.4, 0.6, 1],
]


def overlapping(rewards, shared):
    """Edits whose overlaps are those of the table `shared`."""

    class Edit(select.Candidate):
        def overlap(self, other):
            return shared[self.length][other.length]

    return [Edit(reward, length=e) for e, reward in enumerate(rewards)]


@pytest.mark.parametrize(
    "k_best, limit, want",
    [
        (4, None, [0, 1, 2, 3]),
        (4, 0.9, [0, 1, 2, 3]),
        (4, 0.6, [0, 2, 3]),
        # 3 is too close to 2, which is chosen; 1, passed over, is in nobody's way.
        (4, 0.5, [0, 2]),
        (4, 0.1, [0]),
        (2, 0.8, [0, 2]),
        (1, 0.0, [0]),
    ],
)
def test_overlap_with_a_better_one(k_best, limit, want):
    edits = overlapping([0.9, 0.8, 0.7, 0.6], SHARED)
    got = select.best(edits, select.Rule(k_best=k_best, max_overlap=limit))
    assert got == want


def test_an_overlap_that_is_not_known_passes():
    edits = overlapping([0.9, 0.8], [[None] * 2] * 2)
    got = select.best(edits, select.Rule(k_best=2, max_overlap=0.0))
    assert got == [0, 1]


def test_novelties_of_texts():
    texts = ["a b c x", "x y z", "A, b c.", "yes", "Yes!", "no", ""]
    got = select.candidates([0.5] * 7, texts, "a b c d e")
    # abc bcx: one of two is new.
    assert [e.novelty for e in got] == [1 / 2, 1.0, 0.0, None, None, None, None]
    assert [e.length for e in got] == list(map(len, texts))

    def overlap(a, b):
        return got[a].overlap(got[b])

    assert (overlap(0, 2), overlap(2, 0), overlap(0, 1)) == (0.5, 0.5, 0.0)
    assert (overlap(3, 4), overlap(3, 5), overlap(0, 6)) == (1, None, None)
    alike = select.best(got, select.Rule(k_best=7, max_overlap=0.4))
    assert alike == [0, 1, 3, 5, 6]
    # Without a passage nothing is copied from it.
    assert [e.novelty for e in select.candidates([0.5], texts[:1], None)] == [None]


# Result files


def completion(text, *accuracies, baseline=0.5):
    """A completion with two questions and one repetition per accuracy (0, .5 or 1)."""
    questions = [
        {
            "rep": rep,
            "baseline_correct": i < 2 * baseline,
            "adapter_correct": i < 2 * accuracy,
        }
        for rep, accuracy in enumerate(accuracies)
        for i in range(2)
    ]
    mean = sum(accuracies) / len(accuracies)
    stats = {"adapter_mean": mean, "baseline_mean": baseline}
    return {"text": text, "stats": stats, "questions": questions}


@pytest.fixture
def result():
    return {
        "articles": [
            {
                "prompt": "P0",
                "completions": [
                    completion(" long text \n", 1, 0.5, 0),
                    completion("best\n", 1, 1, 0),
                    completion("b", 1, 0.5, 0.5),
                ],
            },
            {"prompt": "P1", "completions": [completion("é – c", 0.5, 0, 0.5)]},
        ]
    }


def rows(*pairs):
    return [{"prompt": p, "completion": c} for p, c in pairs]


@pytest.mark.parametrize(
    "options, want",
    [
        ({}, rows(("P0", "best"), ("P1", "é – c"))),
        ({"ties": "shortest"}, rows(("P0", "b"), ("P1", "é – c"))),
        ({"k_best": 2}, rows(("P0", "best"), ("P0", "b"), ("P1", "é – c"))),
        ({"threshold": "baseline"}, rows(("P0", "best"))),
        ({"threshold": 0.7}, []),
    ],
)
def test_sft_rows(result, options, want):
    assert rankings.sft_rows(result, select.Rule(**options)) == want


@pytest.fixture
def with_passages(result):
    result["articles"][0]["context"] = "Long text, best of all."
    result["articles"][1]["context"] = "Nothing of it."
    for completion, text in zip(
        result["articles"][0]["completions"],
        ("best of all it", "best of all", "best of every one"),
        strict=True,
    ):
        completion["text"] = text
    return result


@pytest.mark.parametrize(
    "options, want",
    [
        ({}, ["best of all"]),
        # Rewards 1/2, 2/3, 2/3; new trigrams 1/2, 0, 1.
        ({"bonus": 0.1}, ["best of every one"]),
        ({"max_copied": 0.9}, ["best of every one"]),
        ({"max_copied": 0.9, "threshold": 0.67}, []),
        ({"k_best": 3, "max_overlap": 0.0}, ["best of all", "best of every one"]),
    ],
)
def test_sft_rows_by_novelty(with_passages, options, want):
    got = rankings.sft_rows(with_passages, select.Rule(**options))
    assert [row["completion"] for row in got if row["prompt"] == "P0"] == want


# Two quotients of one share, 11/15, next to each other among the doubles; and less.
LAST_BIT = (0.7333333333333333, 0.7333333333333334, 0.7)


@pytest.mark.parametrize(
    "first, second, exact, rounded",
    [
        (0, 0, 0, 0),
        (0, 1, 1, 0),
        (0, 2, 0, 0),
        (1, 0, 0, 0),
        (1, 1, 0, 0),
        (1, 2, 0, 0),
        (2, 0, 1, 1),
        (2, 1, 1, 1),
        (2, 2, 0, 0),
    ],
)
def test_a_last_bit_decides_on_released_files_and_not_in_our_rounds(
    first, second, exact, rounded, tmp_path
):
    means = LAST_BIT[first], LAST_BIT[second]
    texts = ("first", "second")
    completions = [
        {"text": text, "stats": {"adapter_mean": mean, "baseline_mean": 0.5}}
        for text, mean in zip(texts, means, strict=True)
    ]
    path, out = tmp_path / "rank.json", tmp_path / "sft.jsonl"
    path.write_text(
        json.dumps({"articles": [{"prompt": "P", "completions": completions}]})
    )
    for options, want in (([], exact), (["--digits", "12"], rounded)):
        assert rankings.main([str(path), "--out", str(out), *options]) == 0
        assert json.loads(out.read_text())["completion"] == texts[want]
    values = tiny_model.load_config("tiny", None).to_dict()
    ours = config_rules.build(PassageRounds, values).select.rule
    assert best(means, digits=ours.digits) == [rounded]
    assert best(means) == [exact]


# Command


def test_the_command_writes_the_rows(result, tmp_path, capsys):
    path, out = tmp_path / "r.json", tmp_path / "sft.jsonl"
    path.write_text(json.dumps(result))
    assert rankings.main([str(path), "--out", str(out), "--k-best", "2"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 edits for 2 of 2 passages\n"
    assert out.read_text(encoding="utf-8") == (
        '{"prompt": "P0", "completion": "best"}\n'
        '{"prompt": "P0", "completion": "b"}\n'
        '{"prompt": "P1", "completion": "é – c"}\n'
    )


@pytest.mark.parametrize(
    "options, count",
    [
        (["--threshold", "baseline"], 1),
        (["--threshold", "0.1", "--ties", "random", "--seed", "3"], 2),
        (["--bonus", "0.2", "--max-copied", "0.9", "--max-overlap", "1"], 2),
        (["--threshold", "baseline", "--max-copied", "0.9"], 1),
    ],
)
def test_the_commands_options(with_passages, tmp_path, capsys, options, count):
    path, out = tmp_path / "r.json", tmp_path / "sft.jsonl"
    path.write_text(json.dumps(with_passages))
    assert rankings.main([str(path), "--out", str(out), *options]) == 0
    assert len(out.read_text().splitlines()) == count
    assert f"{count} edits for {count} of 2 passages" in capsys.readouterr().out


@pytest.mark.parametrize("blank", ["", " \n", "---", "1.\n- "])
def test_the_command_never_takes_a_blank_completion(tmp_path, capsys, blank):
    completions = [
        {"text": text, "stats": {"adapter_mean": mean, "baseline_mean": 0.5}}
        for text, mean in ((blank, 1.0), ("some", 0.2), (blank, 0.9))
    ]
    path, out = tmp_path / "r.json", tmp_path / "sft.jsonl"
    path.write_text(
        json.dumps({"articles": [{"prompt": "P", "completions": completions}]})
    )
    assert rankings.main([str(path), "--out", str(out), "--k-best", "3"]) == 0
    assert out.read_text() == '{"prompt": "P", "completion": "some"}\n'
    assert "2 completions are blank and were not among" in capsys.readouterr().out
    path.write_text(
        json.dumps({"articles": [{"prompt": "P", "completions": completions[:1]}]})
    )
    assert rankings.main([str(path), "--out", str(out)]) == 2
    assert "no edit was chosen (1 are blank); lower" in capsys.readouterr().err


BROKEN = {
    "missing": (None, [], "no such file; give a SEAL result file"),
    "not JSON": ("[", [], "must be one JSON value ("),
    "a list": ("[]", [], "must be a JSON object with a list of articles"),
    "no articles": ('{"articles": []}', [], "no edit was chosen"),
    "no prompt": ('{"articles": [{}]}', [], "article 0: must have a prompt"),
    "no text": (
        '{"articles": [{"prompt": "p", "completions": [{}]}]}',
        [],
        "(KeyError('text')); give a file from results/query_server",
    ),
    "high threshold": ("good", ["--threshold", "1"], "no edit was chosen; lower --thr"),
    "copied": ("good", ["--max-copied", "1"], "article 0: novelty needs the passage"),
    "k": ("good", ["--k-best", "99"], "--k-best=99 must be at most "),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_command_refuses_in_one_line(case, result, tmp_path, capsys):
    content, options, message = BROKEN[case]
    path, out = tmp_path / "r.json", tmp_path / "sft.jsonl"
    if content:
        path.write_text(json.dumps(result) if content == "good" else content)
    assert rankings.main([str(path), "--out", str(out), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(f"error: {path}: ")
    assert message in printed.err and printed.err.count("\n") == 1
    assert not out.exists()


def test_the_command_names_a_missing_folder(result, tmp_path, capsys):
    path, out = tmp_path / "r.json", tmp_path / "none" / "sft.jsonl"
    path.write_text(json.dumps(result))
    assert rankings.main([str(path), "--out", str(out)]) == 2
    assert f"--out {out}: its folder must exist" in capsys.readouterr().err


def test_the_module_runs_and_leaves_the_standard_librarys_select_alone(child_env):
    code = "import select, selectors, seal_jax.rounds.select; print(select.__name__)"
    for command, want in (
        (["-c", code], "select\n"),
        (["-m", "seal_jax", "select", "-h"], "usage: seal-jax select"),
    ):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=child_env
        )
        assert done.stdout.startswith(want) and done.stderr == ""


def test_equal_shares_tie_however_they_were_summed():
    # Both are 5/12, and differ in the last bit: seeds of (1, 4) and (0, 5) sixths.
    first, second = (1 / 6 + 4 / 6) / 2, (0 / 6 + 5 / 6) / 2
    assert first != second
    for rewards in ([first, second], [second, first]):
        assert best(rewards, digits=select.SHARE_DIGITS) == [0]
