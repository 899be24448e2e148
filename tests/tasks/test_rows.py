"""Rows of every format, and what is wrong with them in one line."""

import json

import pytest

from seal_jax.runtime import files
from seal_jax.tasks import rows

WANT = [{"id": "1", "text": "Ada, é."}, {"id": "2", "text": "two\nlines"}]
FORMATS = {
    "a.json": json.dumps(WANT, ensure_ascii=False),
    "a.jsonl": "".join(json.dumps(row) + "\n\n" for row in WANT),
    "a.ndjson": "\ufeff" + "\n".join(json.dumps(row) for row in WANT),
    "a.csv": 'id,text\n1,"Ada, é."\n\n2,"two\nlines"\n',
    "A.CSV": '\ufeffid;text\r\n1;Ada, é.\r\n2;"two\r\nlines"\r\n',
    "a.tsv": 'id\ttext\n1\tAda, é.\n2\t"two\nlines"',
}


def read(path, **kw):
    return [dict(row.values) for row in rows.read(path, fix="fix it", **kw).rows]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(name, tmp_path):
    (tmp_path / name).write_text(FORMATS[name], encoding="utf-8", newline="")
    assert read(tmp_path / name) == WANT
    # A folder of tables of one kind is all of them.
    again = tmp_path / "folder"
    again.mkdir()
    for part in ("b", "c"):
        target = again / f"{part}{name[1:].lower()}"
        target.write_text(FORMATS[name], encoding="utf-8", newline="")
    assert read(again) == WANT * 2


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ('\n"text, the";q\nhi;1\n', {"text, the": "hi", "q": "1"}),
        ('"a, b, c";q\n"x, y";1\n', {"a, b, c": "x, y", "q": "1"}),
        ('"a;b;c",q\nx;y,1\n', {"a;b;c": "x;y", "q": "1"}),
        ("text;a,q\nx;y,1\n", {"text;a": "x;y", "q": "1"}),
        ("text\nhi; you, there\n", None),
    ],
)
def test_the_separator_is_what_parts_the_first_line(text, want, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    if want is None:
        with pytest.raises(ValueError, match="line 2: has 2 cells"):
            read(tmp_path / "a.csv")
    else:
        assert read(tmp_path / "a.csv") == [want]


def test_parquet_and_what_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    nested = [row | {"answers": {"text": ["a"]}, "n": 3} for row in WANT]
    made = datasets.Dataset.from_list(nested)
    made.to_parquet(str(tmp_path / "a.parquet"))
    assert read(tmp_path / "a.parquet") == nested
    made.save_to_disk(str(tmp_path / "plain"))
    assert read(tmp_path / "plain") == nested
    split = datasets.DatasetDict({"train": made, "test": made.select([1])})
    split.save_to_disk(str(tmp_path / "split"))
    assert read(tmp_path / "split", split="test") == nested[1:]
    with pytest.raises(ValueError, match="no split ''; give one of train, test"):
        read(tmp_path / "split")


def test_a_name_of_the_hub_is_loaded_by_datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, *, split):
        asked.append((name, split))
        return datasets.Dataset.from_list(WANT)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    assert read("me/my_notes", split="train") == WANT
    assert asked == [("me/my_notes", "train")]
    with pytest.raises(FileNotFoundError, match="needs a split, such as 'train'"):
        read("me/my_notes")


def test_a_folder_of_texts_with_folders_in_it(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfAda.\r\nBoris.\r\n")
    (tmp_path / "sub" / "deep" / "a.md").write_text("# Mill\n")
    for left_out in ("notes.pdf", ".hidden.txt", ".git/x.txt", "b.csv"):
        (tmp_path / left_out).write_text("no")
    table = rows.read(tmp_path, fix="")
    assert table.texts and [dict(row.values) for row in table.rows] == [
        {"title": "b", "text": "Ada.\nBoris."},
        {"title": "sub/deep/a", "text": "# Mill"},
    ]


def test_a_cell_may_be_huge(tmp_path):
    text = "x" * 400_000
    (tmp_path / "a.csv").write_text(f"text\n{text}\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    for name in ("a.csv", "a.jsonl"):
        assert read(tmp_path / name) == [{"text": text}]


BAD = {
    "empty.csv": (b"", "has no rows; fill it in"),
    "head.csv": (b"id,text\n", "has no rows; fill it in"),
    "empty.jsonl": (b"\n \n", "has no rows"),
    "empty.json": (b"[]", "has no rows"),
    "none.json": (b"", "must be one JSON value"),
    "object.json": (b'{"data": []}', "must be a list of objects, not a dict"),
    "text.json": (b'["a"]', "row 0: 'a' must be an object with the columns"),
    "torn.jsonl": (b'{"text": "a"}\n{"text": ', "torn.jsonl line 2: must be one JSON"),
    "half.jsonl": (b'{"text": "\\ud800"}', "without lone surrogates"),
    "wide.csv": (b"id,text\n1,Ada, and more\n", "line 2: has 3 cells, and the first"),
    "twice.csv": (b"text,text\n1,2\n", "two columns are called 'text'; rename one"),
    "quote.csv": (b'text\n"Ada\n', "must be rows of cells"),
    "latin.csv": ("text\nAda é\n".encode("latin-1"), "must be UTF-8 text"),
    "utf16.txt": ("Ada".encode("utf-16"), "must be UTF-8 text"),
    "nul.txt": (b"Ada\0", "has a NUL at character 3"),
    "bad.parquet": (b"PAR1 no", "must be a parquet file ("),
    "cut.parquet": (b"PAR1" + b"\0" * 40 + b"PAR1", "must be a parquet file ("),
    "notes.pdf": (b"%PDF", "must end in one of .json, .jsonl"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_in_its_format_is_refused_in_one_line(name, tmp_path):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises((ValueError, OSError)) as caught:
        rows.read(tmp_path / name, fix="fix it")
    said = str(caught.value)
    assert name in said and message in said and "\n" not in said


def test_folders_that_hold_nothing_to_read_say_what_they_hold(tmp_path):
    with pytest.raises(ValueError, match=r"must hold texts .* and holds no files"):
        rows.read(tmp_path, fix="")
    for name in ("a.csv", "b.jsonl"):
        (tmp_path / name).write_text(FORMATS["a" + name[1:]])
    with pytest.raises(ValueError, match=r"files of the kinds \.csv, \.jsonl"):
        rows.read(tmp_path, fix="")


@pytest.mark.parametrize("source", ["none.csv", "", "a/b/c", "notes"])
def test_a_source_that_is_not_there_is_named(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file; fix it"):
        rows.read(source, fix="fix it")


ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt", ".md")


@pytest.mark.parametrize("ending", [*ENDINGS, ".CSV", ".Json"])
def test_a_misspelt_file_is_not_asked_for_on_the_hub(ending, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.chdir(tmp_path)
    name, right = f"data/trian{ending}", f"data/train{ending}"
    with pytest.raises(FileNotFoundError, match=rf"'{name}': no such file; fix it"):
        rows.read(name, split="train", fix="fix it")
    (tmp_path / "data").mkdir()
    (tmp_path / right).touch()
    with pytest.raises(FileNotFoundError) as caught:
        rows.read(name, split="train", fix="fix it")
    hint = f"no such file; did you mean {right!r}? Or fix it"
    assert str(caught.value) == f"data={name!r}: {hint}"


@pytest.mark.parametrize(
    "name, asked",
    [("a/b", ("a/b",)), ("openai/gsm8k:main", ("openai/gsm8k", "main"))],
)
def test_a_data_set_may_be_named_with_its_configuration(name, asked, monkeypatch):
    datasets = pytest.importorskip("datasets")
    seen = []

    def load_dataset(*names, split):
        seen.append((names, split))
        return [{"question": "1?"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = rows.read(name, split="train", fix="")
    assert seen == [(asked, "train")] and found.rows[0].values == {"question": "1?"}


@pytest.mark.parametrize("name", ["a/b:", "a/b:../c", "a/b:c:d", ":main", "a:main"])
def test_a_configuration_is_a_word_after_an_owned_name(name, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(FileNotFoundError, match="no such file; fix it"):
        rows.read(name, split="train", fix="fix it")


def test_a_damaged_parquet_file_never_does_more_than_be_refused(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["Ada", "Boris"] * 20}), path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            found = rows.read(path, fix="fix it")
        except (ValueError, OSError) as error:
            assert "\n" not in str(error) and "a.parquet" in str(error)
        else:
            assert isinstance(found.rows, list)
    assert files.is_file(path)
