"""The committed lengths: what they amount to, how they are made and picked."""

import importlib
import json
import statistics

import pytest


@pytest.fixture(scope="module")
def workload(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("workload")


@pytest.fixture(scope="module")
def committed(workload):
    return workload.load()


# The committed file


def test_it_is_the_work_of_the_published_round(workload, committed):
    what = workload.describe(committed)
    assert (what["articles"], what["edits"], what["adapters"]) == (50, 250, 750)
    assert what["steps_per_seed"] == 21_830
    assert what["steps"] == 65_490
    assert (what["questions"], what["adapter_answers"]) == (225, 3375)
    assert what["training_tokens"] == 3_392_730


def test_lines_have_the_published_lengths(committed):
    # Characters of the published lines, quoted in the end-to-end tests' faithfulness:
    # mean 223, median 142, 90 % 559, 99 % 1241, longest 1664.
    lengths = sorted(n for job in committed.jobs(1) for n in job)
    n = len(lengths)
    assert statistics.fmean(lengths) == pytest.approx(223 / 4.3, abs=0.3)
    assert [lengths[int(share * n)] for share in (0.5, 0.9, 0.99)] == [33, 130, 289]
    assert lengths[-1] == 387
    counts = sorted(map(len, committed.jobs(1)))
    assert (counts[0], counts[125], counts[-1]) == (4, 7, 67)


def test_every_article_is_whole(workload, committed):
    for article in committed.articles:
        questions = len(article.question_prompts)
        assert len(article.gold_answers) == len(article.base_answers) == questions > 0
        assert article.proposal_prompt > 0
        assert len(article.edits) == workload.EDITS
        # The passage is every edit's last line.
        assert len({edit.lines[-1] for edit in article.edits}) == 1
        for edit in article.edits:
            assert min(edit.tokens, *edit.lines) >= 1
            assert [len(by_seed) for by_seed in edit.answers] == [questions] * 3
            assert max(map(max, edit.answers)) <= workload.ANSWER_LIMIT


def test_the_file_holds_no_text_of_the_published_data(workload):
    """Apart from its head, nothing but numbers."""
    articles = json.loads(workload.FILE.read_text(encoding="utf-8"))["articles"]

    def leaves(value):
        if isinstance(value, (list, dict)):
            inner = value.values() if isinstance(value, dict) else value
            return {kind for item in inner for kind in leaves(item)}
        return {type(value)}

    assert leaves(articles) == {int}


def test_it_is_what_the_generator_makes(workload, seal_data):
    made = workload.to_text(workload.measure(seal_data))
    assert workload.FILE.read_text(encoding="utf-8") == made


def test_steps_are_those_of_the_lines_as_the_package_cuts_them(
    workload, committed, seal_data
):
    from seal_jax.tasks import self_edit
    from seal_jax.tasks.passage import Passage

    records = json.loads((seal_data / workload.EDITS_FILE).read_bytes())[:50]
    counts = [
        len(
            self_edit.train_lines(
                completion,
                Passage("", record["title"], record["context"], ()),
                rule="lines",
                quirks="fixed",
            )
        )
        for record in records
        for completion in record["completions"][:5]
    ]
    assert [len(edit.lines) for edit in committed.edits()] == counts


# Jobs


@pytest.fixture(scope="module")
def made_up(workload):
    """Two articles with an edit or two, written by hand."""

    def edit(*lines):
        return {"tokens": 9, "lines": lines, "answers": [[0, 3]] * 3}

    def article(*edits):
        return {
            "proposal_prompt": 40,
            "question_prompts": [7, 8],
            "gold_answers": [1, 2],
            "base_answers": [5, 6],
            "edits": edits,
        }

    return workload.parse([article(edit(10, 4, 100), edit(3, 100)), article(edit(1))])


def test_jobs_repeat_each_edit_by_seed(made_up):
    one, two, three = [10, 4, 100], [3, 100], [1]
    assert made_up.jobs() == [one, one, one, two, two, two, three, three, three]
    assert made_up.jobs(1) == [one, two, three]


def test_jobs_are_scaled_and_cut_but_never_empty(made_up):
    assert made_up.jobs(1, scale=0.1) == [[1, 1, 10], [1, 10], [1]]
    assert made_up.jobs(1, longest=8) == [[8, 4, 8], [3, 8], [1]]
    assert made_up.jobs(1, scale=2.0, longest=150) == [[20, 8, 150], [6, 150], [2]]


@pytest.mark.parametrize("bad", [{"scale": 0.0}, {"longest": 0}])
def test_lengths_must_stay_positive(made_up, bad):
    with pytest.raises(ValueError, match="must be positive"):
        made_up.jobs(1, **bad)


def test_a_spread_takes_the_middle_of_equal_parts(workload):
    jobs = [[30], [10], [20, 0], [60], [50], [40]]
    assert workload.spread(jobs, 6) == [1, 2, 0, 5, 4, 3]
    assert workload.spread(jobs, 3) == [2, 5, 3]
    assert workload.spread(jobs, 2) == [2, 4]
    assert workload.spread(jobs, 1) == [5]


@pytest.mark.parametrize("count", [0, 7])
def test_a_spread_needs_that_many_jobs(workload, count):
    with pytest.raises(ValueError, match=f"adapters={count} must lie in 1..6"):
        workload.spread([[1]] * 6, count)


def test_a_spread_stands_for_all(workload, committed):
    jobs = committed.jobs(1)
    picked = [sum(jobs[i]) for i in workload.spread(jobs, 25)]
    assert picked == sorted(picked)
    mean = statistics.fmean(map(sum, jobs))
    assert statistics.fmean(picked) == pytest.approx(mean, rel=0.05)


def test_token_ids_have_the_lengths_and_spare_the_end_of_text(workload):
    ids = workload.token_ids([300, 1], vocab=4, seed=1)
    assert list(map(len, ids)) == [300, 1]
    assert set(ids[0]) == {1, 2, 3}
    assert workload.token_ids([300, 1], vocab=4, seed=1) == ids
    assert workload.token_ids([300, 1], vocab=4, seed=2) != ids


# Making the file


@pytest.mark.parametrize(
    "characters, tokens", [(0, 0), (1, 1), (4, 1), (43, 10), (45, 10), (46, 11)]
)
def test_the_estimate(workload, characters, tokens):
    assert workload.tokens("x" * characters) == tokens


@pytest.fixture
def published(workload, tmp_path):
    """A made-up copy of the authors' two files."""
    question = {"question": "When?", "answer": "y" * 9}
    record = {
        "title": "T" * 9,
        "context": "c" * 86,
        "questions": [question],
        "prompt": "p" * 430,
        "completions": ["1. one\n2. two"] * 5 + ["unused"],
    }
    answers = ["", "a" * 43, "b" * 999]
    rows = [
        {"question": "When?", "adapter_answer": a, "baseline_answer": " z" * 10}
        for a in answers
    ]
    ranked = {"completions": [{"text": "1. one\n2. two ", "questions": rows}] * 5}

    def write(records, articles):
        for name, value in (
            (workload.EDITS_FILE, records),
            (workload.RANKED_FILE, {"articles": articles}),
        ):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
        return tmp_path

    return write, record, ranked


def test_lengths_are_measured_from_the_published_files(workload, published):
    write, record, ranked = published
    articles = workload.measure(write([record] * 60, [ranked] * 50))
    assert len(articles) == 50
    edit = articles[0].pop("edits")[4]
    # "TTTTTTTTT\n1. one" has 16 characters; the passage line 9 + 1 + 86.
    assert edit["lines"] == [4, 4, 22]
    assert edit["tokens"] == 3
    assert edit["answers"] == [[0], [10], [64]]
    prompt = articles[0].pop("question_prompts")
    assert prompt == [round(len(question_prompt()) / 4.3)]
    assert articles[0] == {
        "proposal_prompt": 100,
        "gold_answers": [2],
        "base_answers": [4],
    }
    head, *rows = workload.to_text(articles * 1).splitlines()
    assert json.loads(head + "]}")["articles"] == []
    assert len(rows) == 51


def question_prompt():
    from seal_jax.tasks import self_edit

    template = self_edit.ANSWER_PROMPTS["concise"]
    return template.replace("{title}", "T" * 9).replace("{question}", "When?")


def test_files_that_do_not_belong_together_are_refused(workload, published):
    write, record, ranked = published
    with pytest.raises(ValueError, match="must rank 50 articles, not 49"):
        workload.measure(write([record] * 50, [ranked] * 49))
    other = {**record, "completions": ["3. three"] * 5}
    with pytest.raises(ValueError, match="article 1: must hold the self-edits"):
        workload.measure(write([record, other] + [record] * 48, [ranked] * 50))


def test_the_command_says_what_there_is_or_what_is_missing(workload, tmp_path, capsys):
    assert workload.main([]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["steps"], err) == (65_490, "")
    before = workload.FILE.read_bytes()
    assert workload.main([f"--write={tmp_path}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and "iter0_train.json" in err
    assert workload.FILE.read_bytes() == before
