"""Texts and prompts of a command line."""

import json

import pytest
from golden_models import assert_one_line

from seal_jax.commands import given_texts
from seal_jax.tasks import rows


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b.txt").write_text("Ada bakes.\n\nShe is old.\n")
    (tmp_path / "a.md").write_text("# Mill\r\nIt grinds.")
    rows = [
        "one",
        {"text": "two", "more": 1},
        {"prompt": "Who?", "completion": " Ada"},
        {"lines": ["three", {"prompt": "Q", "completion": "A"}]},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "notes.pdf").write_text("left out")
    return tmp_path


def test_each_file_and_each_row_is_a_text_by_its_name(folder):
    assert given_texts.named([str(folder)]) == {
        "a": "# Mill\nIt grinds.",
        "b": "Ada bakes.\n\nShe is old.",
        "c-000": "one",
        "c-001": "two",
        "c-002": ("Who?", " Ada"),
        "c-003": ["three", ("Q", "A")],
    }
    one = given_texts.named([str(folder / "b.txt")], by_line=True)
    assert one == {"b": ["Ada bakes.", "She is old."]}


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("x.txt", " \n", ["x.txt: has no text", "leave it out"]),
        ("x.jsonl", "", ["x.jsonl: has no rows"]),
        ("x.jsonl", '"a"\n{"txt": "b"}\n', ["row 1", "txt", '{"text": TEXT}']),
        ("x.jsonl", '{"lines": []}\n', ["row 0"]),
        ("x.jsonl", '{"lines": ["a", 3]}\n', ["row 0, line 1", "3"]),
        ("x.jsonl", '"\\ud800"\n', ["lone surrogates"]),
        ("x.jsonl", '"a"\n\n{"text": ', ["x.jsonl line 3", "correct the line"]),
        ("x.pdf", "a", ["x.pdf: must end in one of .txt, .md, .json"]),
        ("y/x.pdf", "a", ["y: holds no file that ends in"]),
        ("gone", None, ["gone: no such file or folder"]),
        ("x.csv", "body\na\n", ["no column 'text'; there: body; name it by --column"]),
        ("x.csv", 'text\n""\n', ["line 2: {} must be a JSON text"]),
        ("x.json", '[{"prompt": "a"}]', ["row 0: {'prompt': 'a'} must be"]),
        ("b.txt", "again", ["'b' is the name of an adapter already"]),
    ],
)
def test_what_holds_no_texts_is_refused(folder, tmp_path, name, text, parts):
    place = tmp_path / "other" / name
    place.parent.mkdir(parents=True)
    if text is not None:
        place.write_text(text)
    given = place.parent if "/" in name else place
    with pytest.raises((ValueError, OSError)) as caught:
        given_texts.named([str(folder), str(given)])
    assert_one_line(caught, *parts)


def test_the_last_row_needs_no_end_and_blank_lines_are_none(tmp_path):
    """A run's file drops a torn last line; one that a person wrote has none."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf"a"\r\n\n  \n{"prompt": "b", "completion": "c"}')
    assert given_texts.named([str(path)]) == {"x-000": "a", "x-001": ("b", "c")}
    path.write_text('"a"\n{"prompt": "b"}')
    assert given_texts.prompts(str(path)) == ["a", "b"]


def test_prompts_are_lines_or_rows(tmp_path):
    (tmp_path / "p.txt").write_text("Ada\n\nQ: who?\\nA:\n")
    assert given_texts.prompts(str(tmp_path / "p.txt")) == ["Ada", "Q: who?\nA:"]
    (tmp_path / "p.jsonl").write_text('"Ada"\n{"prompt": "a\\\\nb"}\n')
    assert given_texts.prompts(str(tmp_path / "p.jsonl")) == ["Ada", "a\\nb"]


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("p.txt", "\n", ["holds no prompts"]),
        ("p.jsonl", "3\n", ["row 0: 3", '{"prompt": TEXT}']),
        ("p.txt", None, ["no such file"]),
    ],
)
def test_what_holds_no_prompts_is_refused(tmp_path, name, text, parts):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, OSError)) as caught:
        given_texts.prompts(str(tmp_path / name))
    assert_one_line(caught, *parts)


def test_a_folder_is_read_as_train_reads_it(tmp_path):
    for name in ("deep", ".git", "folder.txt"):
        (tmp_path / name).mkdir()
    for name in ("A.TXT", "deep/B.c.Md", ".git/x.txt", ".hidden.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    trained = rows.read(tmp_path, fix="").rows
    titles = {str(row.values["title"]): row.values["text"] for row in trained}
    assert list(titles) == ["A", "deep/B.c"]
    # A name is a folder's, so it has no folders in it.
    named = {title.replace("/", "-"): text for title, text in titles.items()}
    assert given_texts.named([str(tmp_path)]) == named
    assert given_texts.named([str(tmp_path / "A.TXT")]) == {"A": "text of A.TXT"}
    for name in ("R.JSONL", "r.ndjson"):
        (tmp_path / name).write_text('"one"\n')
        assert list(given_texts.named([str(tmp_path / name)]).values()) == ["one"]
        assert given_texts.prompts(str(tmp_path / name)) == ["one"]
        (tmp_path / name).write_text('"\\ud800"\n')
        with pytest.raises(ValueError, match="must be text without lone surrogates"):
            given_texts.prompts(str(tmp_path / name))


def test_what_datasets_saved_is_a_table(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([{"text": "one"}, {"text": "two"}])
    made.save_to_disk(str(tmp_path / "mine"))
    named = given_texts.named([str(tmp_path / "mine")])
    assert named == {"mine-000": "one", "mine-001": "two"}


def test_rows_of_tables_by_their_columns(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.txt").write_text("deep")
    (tmp_path / "t.csv").write_text(
        "key,text,prompt,completion\na,one,,\nb,,Who?,Ada\n"
    )
    assert given_texts.named([str(tmp_path)]) == {
        "deep-x": "deep",
        "t-000": "one",
        "t-001": ("Who?", "Ada"),
    }
    one, table = {"text": "key", "name": "key"}, str(tmp_path / "t.csv")
    assert given_texts.named([table], columns=one) == {"a": "a", "b": "b"}
    assert given_texts.prompts(table, {"prompt": "key"}) == ["a", "b"]
    with pytest.raises(ValueError) as caught:
        given_texts.named([table], columns={"text": "txt"})
    assert_one_line(caught, "no column 'txt' (--column text); did you mean 'text'?")
    (tmp_path / "n.csv").write_text("text,name\na,../x\n")
    with pytest.raises(ValueError) as caught:
        given_texts.named(
            [str(tmp_path / "n.csv")], columns={"text": "text", "name": "name"}
        )
    assert_one_line(caught, "line 2: '../x' must be a folder's name")
