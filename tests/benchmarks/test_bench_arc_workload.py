"""The committed lengths of the few-shot round: what they are, and how they are made."""

import json

import arc_bench
import pytest


@pytest.fixture(scope="module")
def bench(root):
    with arc_bench.modules(root) as found:
        yield found


@pytest.fixture(scope="module")
def committed(bench):
    return bench.arc_workload.load()


# By the reference's own functions, its tokens counted in the same way: demonstrations;
# prompt for a self-edit; queries of all tests; longest query; longest answer with its
# end; lines kept with all switches, and with none.
REFERENCE = """
44f52bb0 6  388 46  228   4 250 69
4be741c5 3 1048 10 1177  10 250 10
5582e5ca 3  364 10  186  22 250 10
5614dbcf 2  612  7  442  22 192  4
5bd6f4ac 4  980 16  830  22 250 23
6150a2bd 2  324  7  142  22 192  4
67e8384a 4  620 16  401  79 250 23
6d0aefbc 4  476 16  293  40 250 23
6e02f1e3 5  444 20  274  22 250 47
8be77c9e 3  418 10  228  43 250 10
8d5021e8 3  508 10  288  82 250 10
59341089 4  620 16  419  76 250 23
66e6c45b 2  380  7  187  37 192  4
68b67ca3 3  526 10  357  22 250 10
903d1b4a 4 4356 16 3779 529 250 23
b1fc8b8e 5  874 40  695  56 250 47
bc4146bd 4 1028 16  767 165 250 23
c7d4e6ad 2 1052  7  709 211 192  4
ce8d95cc 4 1444 16 1396 134 250 23
"""
# Our words are others, and a # is counted with the brackets before it.
PROPOSE_WORDS, QUERY_WORDS = 10, -14


def test_lengths_are_those_of_the_reference(bench, committed):
    tasks = {task.id: task for task in (*committed.train, *committed.heldout)}
    rows = [line.split() for line in REFERENCE.split("\n") if line]
    assert [name for name, *_ in rows] == list(tasks)
    for name, *numbers in rows:
        demos, propose, views, query, answer, full, plain = map(int, numbers)
        task = tasks[name]
        assert task.propose_prompt == propose + PROPOSE_WORDS, name
        assert len(task.views) == views, name
        longest = max(prompt for prompt, _ in task.views)
        assert longest == query + QUERY_WORDS - (demos - 1), name
        # Turned answers may be longer: a row costs one token more than a column.
        assert max(tokens for _, tokens in task.views) >= answer - 1, name
        assert min(tokens for _, tokens in task.views) <= answer - 1, name
        # One recoloured copy may be what it is a copy of.
        assert len(task.datasets["1111"]) in (full, full - 1), name
        assert len(task.datasets["0000"]) == plain, name


def test_the_file_holds_lengths_and_ids_only(bench):
    text = bench.arc_workload.FILE.read_text(encoding="utf-8")
    assert len(text) < 300_000
    found = json.loads(text)
    for task in (*found["train"], *found["heldout"]):
        assert set(task) == {"id", "propose_prompt", "views", "datasets"}
        assert tuple(task["datasets"]) == bench.arc_workload.KEYS
        for rows in (task["views"], *task["datasets"].values()):
            assert all(len(row) == 3 and min(row) >= 1 for row in rows)
            assert {type(n) for row in rows for n in row} == {int}


@pytest.mark.slow
def test_it_is_what_the_generator_makes(bench, seal_data):
    made = bench.arc_workload.to_text(bench.arc_workload.measure(seal_data))
    assert bench.arc_workload.FILE.read_text(encoding="utf-8") == made


def test_a_task_is_measured_as_the_file_has_it(bench, seal_data, monkeypatch):
    from seal_jax.tasks import few_shot

    whole = few_shot.load

    def smallest(exp):
        (train,), heldout = whole(exp)
        return [[one for one in train if one.id == "6150a2bd"]], heldout[1:2]

    monkeypatch.setattr(few_shot, "load", smallest)
    made = bench.arc_workload.measure(seal_data)
    found = json.loads(bench.arc_workload.FILE.read_text(encoding="utf-8"))
    for name, (row,) in made.items():
        assert row in found[name]


def test_the_sums_of_the_file(bench, committed):
    what = bench.arc_workload.describe(committed)
    train, heldout = what["train"], what["heldout"]
    assert (train["tasks"], heldout["tasks"]) == (11, 8)
    assert (train["views"], heldout["views"]) == (168, 128)
    assert (train["lines"], train["line_tokens_max"]) == (2634, 3042)
    assert (heldout["lines"], heldout["line_tokens_max"]) == (1883, 4938)
    # Filled up to each dataset's longest, as the reference trains them.
    assert 1.7 < train["padded_line_tokens"] / train["line_tokens"] < 2.0


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("", 0),
        ("[[0 3]\n [7 6]]#", 10),
        ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n", 5),
        ('{"learning_rate": 0.0001}', 10),
        ("train_using_all_tokens", 4),
    ],
)
def test_the_estimate(bench, text, tokens):
    assert bench.arc_workload.count(text) == tokens


def test_the_command_says_what_there_is_or_what_is_missing(bench, tmp_path, capsys):
    assert bench.arc_workload.main([]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["train"]["tasks"], err) == (11, "")
    before = bench.arc_workload.FILE.read_bytes()
    assert bench.arc_workload.main([f"--write={tmp_path}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and "few-shot/data" in err
    assert bench.arc_workload.FILE.read_bytes() == before
