import errno
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from seal_jax.runtime import files


@pytest.fixture
def full_disk(monkeypatch):
    """Every fsync fails with the given errno, as a full disk makes it fail."""

    def arm(code):
        def fsync(fd):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fsync)

    return arm


def test_json_is_plain_sorted_and_ends_in_a_newline(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"b": (1, math.nan), "a": {"z": 0.1, 2: "é\ud800"}})
    text = path.read_text()
    assert text.endswith("}\n")
    assert "é" in text
    assert list(json.loads(text)) == ["a", "b"]
    assert files.read_json(path) == {"b": [1, None], "a": {"2": "é\ud800", "z": 0.1}}


def test_equal_values_give_equal_bytes(tmp_path):
    files.write_json(tmp_path / "a", {"x": 1, "y": {"p": [1.5], "q": None}})
    files.write_json(tmp_path / "b", {"y": {"q": None, "p": (1.5,)}, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_floats_round_trip_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    # Random bit patterns: every exponent, subnormals included.
    values = rng.integers(0, 2**64, 500, dtype=np.uint64).view(np.float64)
    values = [*values[np.isfinite(values)].tolist(), -0.0, 5e-324, 0.1 + 0.2]
    files.write_jsonl(tmp_path / "x", [{"v": v} for v in values])
    back = [row["v"] for row in files.read_jsonl(tmp_path / "x")]
    assert np.array(back).tobytes() == np.array(values).tobytes()


def test_arrays_are_stored_and_other_objects_are_refused(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": np.float32(0.1), "b": np.arange(4).reshape(2, 2)})
    assert files.read_json(path) == {"a": float(np.float32(0.1)), "b": [[0, 1], [2, 3]]}
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"set \{1\} cannot be stored as JSON; convert"):
        files.write_json(path, {"a": {1}})
    assert path.read_bytes() == before


def test_line_separators_inside_strings_do_not_split_rows(tmp_path):
    rows = [{"t": "a\u2028b\nc\x85"}, {"t": "d"}]
    files.write_jsonl(tmp_path / "x", rows)
    assert files.read_jsonl(tmp_path / "x") == rows


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_leaves_the_old_file(tmp_path, full_disk, code):
    path = tmp_path / "summary.json"
    files.write_json(path, {"old": 1})
    full_disk(code)
    with pytest.raises(files.DiskFullError, match="free some space") as caught:
        files.write_json(path, {"new": 2})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.errno == code
    assert files.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["summary.json"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO])
def test_a_barred_file_is_named(tmp_path, full_disk, code):
    full_disk(code)
    with pytest.raises(files.CannotWriteError, match="make it writable") as caught:
        files.write_json(tmp_path / "x", 1)
    assert not isinstance(caught.value, files.DiskFullError)
    assert str(caught.value).startswith(f"{tmp_path / 'x'}: cannot be written (")
    assert os.strerror(code) in str(caught.value) and "\n" not in str(caught.value)


def test_other_errors_of_the_system_keep_their_name(tmp_path, full_disk):
    full_disk(errno.EMFILE)
    with pytest.raises(OSError, match="Too many open") as caught:
        files.write_json(tmp_path / "x", 1)
    assert not isinstance(caught.value, files.CannotWriteError)


@pytest.mark.parametrize("name", [b"w\xff", b"\xc3/run", b"\xed\xa0\x80"])
def test_a_path_that_is_no_utf8_is_refused(tmp_path, name, monkeypatch):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    with pytest.raises(ValueError, match="must be a path of valid UTF-8") as caught:
        files.check_name(path)
    assert str(caught.value).isascii()
    os.makedirs(path)
    monkeypatch.chdir(path)
    with pytest.raises(ValueError, match="valid UTF-8"):
        files.check_name("run")
    files.check_name(tmp_path / "é 漢")


_LIMITED = """
import resource, sys
from seal_jax.runtime import files
directory = sys.argv[1]
lines = files.Lines(directory + "/log")
lines.append_row({"n": 0})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for act in (
    lambda: files.write_json(directory + "/big.json", "x" * 10_000),
    lambda: lines.append_row({"n": "x" * 10_000}),
):
    try:
        act()
    except files.DiskFullError as error:
        print(error)
lines.append_row({"n": 1})
"""


def test_a_real_limit_on_file_size_leaves_no_half_written_file(tmp_path, child_env):
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        env=child_env,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 2
    assert os.listdir(tmp_path) == ["log"]
    assert files.read_jsonl(tmp_path / "log") == [{"n": 0}, {"n": 1}]


def test_lines_drop_a_torn_tail_wherever_it_was_cut(tmp_path):
    path = tmp_path / "log"
    with files.Lines(path) as lines:
        lines.append_row({"n": 1})
        lines.append_row({"text": "zwölf"})
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = 2 if cut == len(whole) else 1 if cut >= first else 0
        assert len(files.read_jsonl(path)) == kept
        with files.Lines(path) as lines:
            assert len(lines.rows) == kept
            lines.append_row({"n": 3})
        assert files.read_jsonl(path)[kept:] == [{"n": 3}]


def test_a_short_write_is_completed(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with files.Lines(tmp_path / "log") as lines:
        lines.append_row({"text": "longer than three"})
    assert files.read_jsonl(tmp_path / "log") == [{"text": "longer than three"}]


@pytest.mark.parametrize(
    ("content", "call", "message"),
    [
        ('{"a": 1}\n{oops\n{"b": 2}\n', files.read_jsonl, "line 2: must be one JSON"),
        ('{"a": 1}\n\n', files.Lines, "line 2: must be one JSON"),
        ("{", files.read_json, "must be one JSON value"),
        ("", files.read_json, "must be one JSON value"),
    ],
)
def test_malformed_files_are_named_in_one_line(tmp_path, content, call, message):
    path = tmp_path / "bad"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        call(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == content


# What a user gives


@pytest.mark.parametrize(
    "data", [b"a {b}\nc\n", b"\xef\xbb\xbfa {b}\nc\n", b"a {b}\r\nc\r\n"]
)
def test_a_prompt_is_its_text_without_order_mark(data, tmp_path):
    (tmp_path / "p.txt").write_bytes(data)
    assert files.read_prompt(tmp_path / "p.txt") == "a {b}\nc\n"


@pytest.mark.parametrize("data", ["a".encode("utf-16"), b"a\0b", b"\xff"])
def test_a_prompt_that_is_no_text_is_refused(data, tmp_path):
    (tmp_path / "p.txt").write_bytes(data)
    with pytest.raises(ValueError, match="save it as UTF-8") as caught:
        files.read_prompt(tmp_path / "p.txt")
    assert str(tmp_path / "p.txt") in str(caught.value)


@pytest.mark.parametrize("call", [files.read_json, files.read_jsonl, files.Lines])
def test_a_pipe_is_not_waited_for(call, tmp_path):
    os.mkfifo(tmp_path / "f")
    with pytest.raises(ValueError, match="must be"):
        call(tmp_path / "f")


def test_data_has_no_half_characters(tmp_path):
    (tmp_path / "d.json").write_text('[{"a": "x\\ud800"}]')
    with pytest.raises(ValueError, match="without lone surrogates") as caught:
        files.read_data(tmp_path / "d.json")
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("name", "owned", "any_"),
    [
        ("a/b", True, True),
        ("gpt2", False, True),
        ("Qwen/Qwen2.5-7B", True, True),
        ("a/..", False, False),
        ("../a", False, False),
        ("/a/b", False, False),
        ("a/b/c", False, False),
        ("a/b\n", False, False),
        ("a..b/c", False, False),
        ("", False, False),
        ("é/b", False, False),
    ],
)
def test_names_of_hubs(name, owned, any_):
    assert files.is_hub_name(name, owner=True) is owned
    assert files.is_hub_name(name, owner=False) is any_


def test_a_folder_in_the_way_of_a_file_is_one_line(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(files.InTheWayError) as caught:
        files.write_text(tmp_path / "report.html", "text")
    assert str(caught.value).startswith(
        f"{tmp_path}/report.html: cannot be written (Is a directory); move it away or "
    )
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_file_in_the_way_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "f").write_text("")
    for path in (tmp_path / "f", tmp_path / "f" / "below"):
        said = pytest.raises(files.InTheWayError, match=f"{path}: .*; move it away or")
        with said, files.disk_errors(tmp_path):
            path.mkdir()
