import json

import pytest

from seal_jax.report import reference

RESULTS = "knowledge-incorporation/results/query_server"


def question(rep, right, *, base=False, answer="x"):
    return {
        "rep": rep,
        "question": "q",
        "answer": "g",
        "baseline_answer": "b",
        "adapter_answer": answer,
        "baseline_correct": base,
        "adapter_correct": right,
    }


def article(title, *completions):
    return {
        "title": title,
        "context": f"text of {title}",
        "completions": [{"questions": q, "stats": {}} for q in completions],
    }


def results(name, *articles):
    return reference.parse(name, {"articles": list(articles)})


def test_means_are_over_repetitions_then_completions_then_articles():
    first = [  # repetition 0: 1 of 2, repetition 1: 2 of 2
        question(0, True, base=True),
        question(1, True),
        question(0, False, answer=" \n"),
        question(1, True),
    ]
    second = [question(0, False, answer="")]
    got = results("r", article("a", first, second), article("b", [question(0, True)]))
    assert [a.adapter for a in got.articles] == [(0.75 + 0.0) / 2, 1.0]
    assert [a.baseline for a in got.articles] == [(0.25 + 0.0) / 2, 0.0]
    assert got.completions == 3
    assert got.pooled() == 4 / 6
    assert got.empty_rate() == 2 / 6
    assert got.nonempty_accuracy() == 4 / 4


def test_stated_statistics_stand_in_for_missing_answers():
    bare = {
        "title": "a",
        "context": "t",
        "completions": [
            {"questions": [], "stats": {"baseline_mean": 0.25, "adapter_mean": m}}
            for m in (0.5, 1.0)
        ],
    }
    got = results("r", bare)
    assert got.articles[0].adapter == 0.75
    assert got.articles[0].baseline == 0.25
    assert (got.pooled(), got.empty_rate(), got.nonempty_accuracy()) == (None,) * 3


def test_paired_matches_passages_not_positions():
    yes, no = [question(0, True)], [question(0, False)]
    a = results("a", article("p", yes), article("q", yes), article("only", no))
    b = results("b", article("q", no), article("p", yes))
    # Differences 0 and 1 over two passages: s = sqrt(1/2), se = 1/2.
    n, diff, se, z = reference.paired(a, b)
    assert (n, diff, z) == (2, 0.5, pytest.approx(1.0))
    assert se == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"articles": []}, "r: articles must not be empty"),
        ({"articles": [{"title": "a"}]}, "r: article 0 lacks"),
        ({"articles": [article("a")]}, "r: article 0 lacks"),
        ({"articles": [article("a", [{"rep": 0}])]}, "r: article 0 lacks"),
        ({"articles": [3]}, "r: article 0 lacks"),
    ],
)
def test_malformed_files_are_named_in_one_line(value, message):
    with pytest.raises(ValueError, match=message) as caught:
        reference.parse("r", value)
    assert "\n" not in str(caught.value)


def test_runs_without_a_shared_passage_are_refused():
    a = results("a", article("p", [question(0, True)]))
    b = results("b", article("q", [question(0, True)]))
    with pytest.raises(ValueError, match="a and b share no passage"):
        reference.paired(a, b)


def test_read_refuses_another_json_file(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match="a SEAL result file has a list of articles"):
        reference.read(tmp_path / "x.json")


# Pooled accuracy, empty-answer rate and accuracy on answers that are not empty, as an
# earlier count over the released files found them.
RELEASED = {
    "eval/naive": (0.3357, 0.005, 0.337),
    "eval/base": (0.4066, 0.166, 0.488),
    "train/rank_iter0": (None, None, None),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_files_recompute(seal_data, name):
    path = seal_data / RESULTS / f"{name}.json"
    overall = json.loads(path.read_text())["overall"]
    got = reference.read(path)
    n = len(got.articles)
    base = sum(a.baseline for a in got.articles) / n
    mean = sum(a.adapter for a in got.articles) / n
    assert base == pytest.approx(overall["baseline_mean_accuracy"], abs=5.1e-5)
    assert mean == pytest.approx(overall["adapter_mean_accuracy"], abs=5.1e-5)
    spread = sum((a.adapter - mean) ** 2 for a in got.articles) / (n - 1)
    assert spread**0.5 == pytest.approx(
        overall["adapter_std_of_article_means"], abs=5.1e-5
    )
    pooled, empty, nonempty = RELEASED[name]
    if pooled is not None:
        assert got.pooled() == pytest.approx(pooled, abs=5.1e-5)
        assert got.empty_rate() == pytest.approx(empty, abs=5.1e-4)
        assert got.nonempty_accuracy() == pytest.approx(nonempty, abs=5.1e-4)


def test_released_files_pair_over_all_200_passages(seal_data):
    naive, base = (
        reference.read(seal_data / RESULTS / "eval" / f"{name}.json")
        for name in ("naive", "base")
    )
    n, diff, se, z = reference.paired(base, naive)
    means = [sum(a.adapter for a in r.articles) / 200 for r in (base, naive)]
    assert n == 200
    assert diff == pytest.approx(means[0] - means[1])
    # The files list the passages in the same order.
    diffs = [
        x.adapter - y.adapter
        for x, y in zip(base.articles, naive.articles, strict=True)
    ]
    variance = sum((d - diff) ** 2 for d in diffs) / 199
    assert se == pytest.approx((variance / 200) ** 0.5)
    assert z == pytest.approx(diff / (variance / 200) ** 0.5)
