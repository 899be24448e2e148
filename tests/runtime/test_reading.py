"""The boundary of readers, and JSON that is refused whatever it holds."""

import errno
import json
import os

import pytest

from seal_jax.runtime import files, reading


class PanicException(BaseException):
    """What a Rust library raises when it panics."""


def within(error, **more):
    with pytest.raises(BaseException) as caught, boundary(**more):
        raise error
    return caught.value


def boundary(**more):
    return reading.boundary("a.json", wrong="must be whole", fix="copy it", **more)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (TypeError("a\nb"), "TypeError: a b"),
        (RecursionError("maximum"), "nested too deep"),
        (MemoryError(), "more than fits into memory"),
        (Exception("from a library"), "Exception: from a library"),
        (AssertionError(), "AssertionError"),
        (PanicException("rust"), "PanicException: rust"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError: "),
        (OverflowError("\x1b[2J"), "OverflowError: \\x1b[2J"),
    ],
)
def test_whatever_is_raised_becomes_one_line_with_its_cause(error, said):
    told = within(error)
    assert type(told) is ValueError and told.__cause__ is error
    assert str(told).startswith(f"a.json: must be whole ({said}")
    assert str(told).endswith("); copy it") and "\n" not in str(told)


def test_a_long_reason_is_cut():
    assert len(str(within(KeyError("x" * 10_000)))) < 300


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_ends_the_program_passes(error):
    assert within(error, foreign=True) is error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("b.json: must be x; do y"),
        FileNotFoundError("b.json: absent; do y"),
        files.DiskFullError(errno.ENOSPC, "b.json"),
    ],
)
def test_an_error_of_ours_passes(error):
    assert within(error) is error


def test_of_a_library_only_a_full_disk_passes():
    told = within(ValueError("its words"), foreign=True)
    assert str(told) == "a.json: must be whole (its words); copy it"
    full = files.DiskFullError(errno.ENOSPC, "b.json")
    assert within(full, foreign=True) is full


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENODEV, OSError),  # which has no path
        (errno.ENOENT, FileNotFoundError),
        (errno.EACCES, PermissionError),
        (errno.EISDIR, IsADirectoryError),
    ],
)
def test_an_error_of_the_system_is_given_a_place_and_a_fix(code, kind):
    told = within(OSError(code, os.strerror(code)))
    assert type(told) is kind and told.errno is None
    assert str(told) == f"a.json: must be whole ({os.strerror(code)}); copy it"


# JSON


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 66 + "]" * 66, "nested deeper than 64"),
        ("[" * 10**5, "nested deeper than 64"),
        ('{"a":' * 10**5, "nested deeper than 64"),
        ("1" + "0" * 400, "a number of 401 digits"),
        ("-" + "9" * 5000, "a number of 5000 digits"),
        (b"\xff", "invalid start byte"),
        ("{", "Expecting"),
        ("", "Expecting"),
    ],
)
def test_json_that_is_refused(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        reading.decode_json(text)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [[[[]]], 2**64 - 1, -(10**19), {"a": {"b": 1.5}}, "é\ud800", None]
)
def test_json_that_is_read(value):
    assert reading.decode_json(json.dumps(value)) == value


@pytest.mark.parametrize("value", ["\ud800", ["a", {"b": "\udfff"}], {"\ud812": 1}])
def test_half_a_character_is_found(value):
    assert reading.surrogate(value) is not None
    assert reading.surrogate(["a", {"b": "é😀"}]) is None
