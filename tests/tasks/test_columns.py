"""Passages of a table by its columns, with questions and without."""

import json

import pytest

from seal_jax.tasks import columns, sources
from seal_jax.tasks.passage import Passage, Question
from seal_jax.tasks.settings import ColumnsConfig, TaskConfig


def named(**changes):
    fields = ("text", "title", "id", "question", "answer", "questions")
    return ColumnsConfig(**{"text": "text"} | dict.fromkeys(fields[1:], "") | changes)


@pytest.fixture
def load(tmp_path):
    def load(rows, seed=None, **names):
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return columns.load(str(path), columns=named(**names), split="", seed=seed)

    return load


def test_rows_without_questions_are_passages(load):
    found = load([{"text": "Ada bakes."}, {"text": "Boris sings.", "more": [1]}])
    assert [(p.title, p.text, p.questions) for p in found] == [
        ("mine", "Ada bakes.", ()),
        ("mine", "Boris sings.", ()),
    ]
    assert found[0] == Passage.of("mine", "Ada bakes.")


def test_rows_of_one_passage_bring_its_questions(load):
    row = {"body": "Ada bakes.", "name": "Ada", "q": "What?", "a": ["", "bread"]}
    rows = [row, row | {"q": "Who?", "a": 7}, {"body": "Other.", "name": None}]
    first, second = load(rows, text="body", title="name", question="q", answer="a")
    assert first.questions == (Question("What?", "bread"), Question("Who?", "7"))
    assert (second.title, second.questions) == ("mine", ())


def test_a_list_of_questions_and_a_way_into_objects(load):
    rows = [
        {"text": "T.", "qs": [{"ask": "Q?", "gold": {"text": ["A"]}}]},
        {"text": "U.", "qs": None},
    ]
    found = load(rows, questions="qs", question="ask", answer="gold.text")
    assert [p.questions for p in found] == [(Question("Q?", "A"),), ()]
    rows = [{"text": "T.", "questions": [{"question": "Q?", "answer": "A"}]}]
    assert load(rows, questions="questions")[0].questions == (Question("Q?", "A"),)


def test_an_id_names_a_passage_and_holds_its_rows_together(load):
    rows = [{"text": "T.", "key": 12}, {"text": "U.", "key": "b"}]
    assert [p.id for p in load(rows, id="key")] == ["12", "b"]
    rows.append({"text": "V.", "key": "b"})
    rule = r"row 2: has the id 'b' of .*row 1, and another title or text; give each"
    with pytest.raises(ValueError, match=rule):
        load(rows, id="key")


def test_gaps_of_a_column_of_numbers_are_nothing(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    nan = float("nan")
    table = {
        "text": ["T.", "U.", "V."],
        "name": [nan, 2.5, 3.0],
        "key": [1.0, 2.0, 3e20],
        "q": ["Q?", "Q?", "Q?"],
        "a": [[nan, 4.0], [nan], [-1.0]],
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "mine.parquet")
    given = named(title="name", id="key", question="q", answer="a")
    source = str(tmp_path / "mine.parquet")
    found = columns.load(source, columns=given, split="", seed=None)
    assert [(p.title, p.id) for p in found] == [
        ("mine", "1"),
        ("2.5", "2"),
        ("3", "3e+20"),
    ]
    assert [[q.answer for q in p.questions] for p in found] == [["4"], [], ["-1"]]


def test_half_questions_are_left_out_and_counted(load, caplog):
    rows = [
        {"text": "T.", "q": q, "a": a} for q, a in [("Q", " "), ("", ""), ("", "A")]
    ]
    (passage,) = load(rows, question="q", answer="a")
    assert passage.questions == ()
    assert "2 questions left out, blank or with blank answers" in caplog.text


GOOD = {"text": "T."}
BAD = {
    "no column": ([{"txt": "T."}], {}, "no column 'text' (task.columns.text); did you"),
    "no key": (
        [{"text": "T.", "meta": None}, {"text": "U.", "meta": {"title": "x", "n": 1}}],
        {"title": "meta.titel"},
        "no column 'meta.titel' (task.columns.title); did you mean 'meta.title'? there:"
        " meta.title, meta.n",
    ),
    "no deep key": (
        [GOOD | {"q": "Q?", "a": {"b": {"text": ["x"]}}}],
        {"question": "q", "answer": "a.b.txt"},
        "no column 'a.b.txt' (task.columns.answer); did you mean 'a.b.text'? there: a.",
    ),
    "no object": (
        [GOOD | {"title": "x"}],
        {"title": "title.text"},
        "no column 'title.text' (task.columns.title); did you mean 'title'? there: te",
    ),
    "no title": ([GOOD], {"title": "name"}, "no column 'name' (task.columns.title); t"),
    "no question": (
        [GOOD | {"a": "x"}],
        {"question": "q", "answer": "a"},
        "no column 'q' (task.columns.question)",
    ),
    "no questions": ([GOOD], {"questions": "qs"}, "no column 'qs'"),
    "blank": (
        [GOOD, {"text": " \n"}],
        {},
        "row 1 must have text in 'text'; fill",
    ),
    "blanks": (
        [GOOD, {"text": ""}, {"more": 1}],
        {},
        "row 1 and 1 more must have",
    ),
    "nan": ([GOOD, {"text": float("nan")}], {}, "row 1 must have text in 'text'"),
    "no number": ([GOOD | {"key": float("nan")}], {"id": "key"}, "key='' must be a na"),
    "a number": ([{"text": 3}], {}, "row 0: text=3 must be text"),
    "a list": ([{"text": ["T."]}], {}, "row 0: text=['T.'] must be text"),
    "no id": ([GOOD | {"key": 1}, GOOD], {"id": "key"}, "row 1: key='' must be a name"),
    "long id": ([GOOD | {"key": "x" * 300}], {"id": "key"}, "at most 200 printable"),
    "title": ([GOOD | {"name": {}}], {"title": "name"}, "row 0: name={} must be text"),
    "texts": (
        [GOOD | {"qs": ["Q?"]}],
        {"questions": "qs"},
        "row 0: qs=['Q?'] must be a list of objects with question and answer",
    ),
    "half": (
        [GOOD | {"qs": [{"question": "Q?"}]}],
        {"questions": "qs"},
        "row 0, question 0: answer is missing; add it (keys there: question)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_named_in_one_line(case, load):
    rows, names, message = BAD[case]
    with pytest.raises(ValueError) as caught:
        load(rows, **names)
    said = str(caught.value)
    assert message in said and "mine.jsonl" in said and "\n" not in said


def test_texts_need_no_columns_and_tables_do(tmp_path):
    (tmp_path / "a.txt").write_text("Ada.")
    for given in (None, named(text="body")):
        (found,) = columns.load(str(tmp_path), columns=given, split="", seed=1)
        assert (found.title, found.text) == ("a", "Ada.")
    (tmp_path / "b.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"b\.txt must have text; fill it in"):
        columns.load(str(tmp_path), columns=None, split="", seed=1)
    (tmp_path / "c.csv").write_text("text\nAda\n")
    with pytest.raises(ValueError, match=r"task\.columns must say which holds the te"):
        columns.load(str(tmp_path / "c.csv"), columns=None, split="", seed=1)


def test_no_data_is_told_by_its_key():
    with pytest.raises(ValueError, match=r"^task\.train and .* must name your data"):
        columns.load("", columns=named(), split="", seed=None)


def test_columns_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match=r"task\.columns\.text='' must name"):
        named(text="")
    with pytest.raises(ValueError, match=r"question='q' and task\.columns\.answer=''"):
        named(question="q")


def test_both_sides_are_slices_of_one_shuffle(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("text\n" + "".join(f"Text {i}.\n" for i in range(9)))
    task = TaskConfig("passages", str(path), "", 0, str(path), "", 5, 3, 0.0, named())
    train = sources.passages(task, sources.TRAIN, count=5, asked=False)
    held = sources.heldout(task, count=4, asked=False)
    assert {p.text for p in (*train, *held)} == {f"Text {i}." for i in range(9)}
    with pytest.raises(ValueError, match="must have a question to be scored by"):
        sources.passages(task, sources.TRAIN, count=1)
    with pytest.raises(ValueError, match="must be at most the 9 of"):
        sources.passages(task, sources.HELDOUT, count=5, asked=False)
