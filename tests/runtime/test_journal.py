import errno
import json
import math
import os
import signal
import subprocess
import sys

import pytest

from seal_jax.runtime import files
from seal_jax.runtime.journal import Journal


def test_journal_keeps_values_over_reopening(tmp_path):
    path = tmp_path / "journal.jsonl"
    values = {
        "round_1/chunk_0": {
            "rewards": [0.1 + 0.2, None, -0.0],
            "text": "a\u2028b\ud800",
        },
        "none": None,
        "nested": [[1, 2.0], {"deep": [True]}],
    }
    with Journal(path) as journal:
        for key, value in values.items():
            journal.put(key, value)
        assert {k: journal.get(k) for k in values} == values
    with Journal(path) as journal:
        assert len(journal) == len(values)
        assert {k: journal.get(k) for k in values} == values
        assert "other" not in journal
        with pytest.raises(KeyError):
            journal.get("other")


def test_journal_keeps_what_json_lacks(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.put("k", [math.nan, math.inf, -math.inf])
    with Journal(tmp_path / "j") as journal:
        nan, high, low = journal.get("k")  # pyright: ignore[reportGeneralTypeIssues]
    assert math.isnan(nan)
    assert (high, low) == (math.inf, -math.inf)


def test_cached_gives_first_and_resumed_runs_the_same_value(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"pair": (1, 2), 3: "three", "x": 1 / 3}

    with Journal(tmp_path / "j") as journal:
        first = journal.cached("unit", work)
        again = journal.cached("unit", work)
    with Journal(tmp_path / "j") as journal:
        resumed = journal.cached("unit", work)
    assert calls == [1]
    assert first == again == resumed == {"pair": [1, 2], "3": "three", "x": 1 / 3}
    assert list(first) == list(resumed)


def test_cached_stores_nothing_when_the_work_fails(tmp_path):
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(ZeroDivisionError):
            journal.cached("unit", lambda: 1 // 0)
        assert "unit" not in journal
        assert journal.cached("unit", lambda: 7) == 7


def test_a_value_read_can_be_changed_freely(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.cached("k", lambda: [1]).append(2)  # pyright: ignore
        assert journal.get("k") == [1]


def test_the_last_entry_of_a_key_counts(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.put("k", None)
        journal.put("k", 1)
    with Journal(tmp_path / "j") as journal:
        assert journal.get("k") == 1


@pytest.mark.parametrize(
    "middle",
    ['{"key": "a", "val', '{"key": "a"}', "[1]", '{"key": 1, "value": 2}', "\x00\x00"],
)
def test_a_corrupt_middle_line_is_named(tmp_path, middle):
    path = tmp_path / "j"
    good = '{"key": "a", "value": 1}\n'
    path.write_text(f"{good}{middle}\n{good}")
    with pytest.raises(ValueError, match="line 2: must be one JSON entry") as caught:
        Journal(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "alter",
    [
        lambda row: {**row, "value": {}},
        lambda row: {**row, "key": "other"},
        lambda row: {**row, "sum": row["sum"] + 1},
        lambda row: {**row, "sum": None},
        lambda row: {"key": row["key"], "value": row["value"]},
        lambda row: {**row, "more": 1},
    ],
)
def test_an_altered_line_is_named(tmp_path, alter):
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.put("a", {"x": [1, 0.1, None], "y": float("nan")})
        journal.put("b", {3: (1, 2)})
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(alter(json.loads(second)))}\n")
    with pytest.raises(ValueError, match="line 2: must be one JSON entry") as caught:
        Journal(path)
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_is_found_or_means_nothing(tmp_path):
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.put("a", {"x": [1, 0.5], "t": "é"})
        journal.put("b", 2)
    whole = path.read_bytes()
    for bit in range(8 * whole.index(b"\n")):
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        try:
            with Journal(path) as journal:
                assert journal.keys() == ["a", "b"]
                assert journal.get("a") == {"x": [1, 0.5], "t": "é"}
        except ValueError as error:
            assert "line" in str(error) and "\n" not in str(error)


def test_lines_of_earlier_versions_have_no_sum(tmp_path):
    path = tmp_path / "j"
    path.write_text('{"key": "old", "value": NaN}\n')
    for _ in range(2):
        with Journal(path) as journal:
            journal.put("new", 1)
            assert journal.keys() == ["old", "new"]
    with pytest.raises(ValueError, match="line 1: must be one JSON entry"):
        Journal(path, summed=True)


def test_a_failed_put_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.put("a", 1)
        before = path.read_bytes()
        with monkeypatch.context() as patch:

            def full(fd):
                raise OSError(errno.ENOSPC, "no space")

            patch.setattr(os, "fsync", full)
            with pytest.raises(files.DiskFullError, match="free some space"):
                journal.put("b", 2)
        assert "b" not in journal
        assert path.read_bytes() == before
        journal.put("b", 3)
    with Journal(path) as journal:
        assert (journal.get("a"), journal.get("b")) == (1, 3)


_WRITER = """
import sys
from seal_jax.runtime.journal import Journal
with Journal(sys.argv[1]) as journal:
    n = len(journal)
    while True:
        journal.put(str(n), {"n": n, "pad": "x" * (n % 977)})
        n += 1
        print(n, flush=True)
"""


def test_kill_9_loses_nothing_that_put_returned_for(tmp_path, child_env):
    path = tmp_path / "j"
    for _ in range(3):
        command = [sys.executable, "-c", _WRITER, str(path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=child_env
        ) as writer:
            assert writer.stdout is not None
            for _ in range(20):
                reported = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            reported = max([reported, *map(int, writer.stdout.read().split())])
        with Journal(path) as journal:
            # One more may be on disk than was reported.
            assert len(journal) in (reported, reported + 1)
            assert journal.get(str(reported - 1)) == {
                "n": reported - 1,
                "pad": "x" * ((reported - 1) % 977),
            }


def test_all_processes_hold_what_the_one_that_writes_stores(tmp_path):
    sent = []

    def first(fn):
        sent.append(fn())
        return sent[-1]

    def others(fn):
        fn()
        return sent[-1]

    with Journal(tmp_path / "j") as before:
        before.put("old", [1, math.inf])
    with (
        Journal(tmp_path / "j", share=first) as one,
        Journal(tmp_path / "none", writes=False, share=others) as two,
    ):
        for journal, value in ((one, (1, "one")), (two, (2, "two"))):
            assert journal.cached("new", lambda value=value: value) == [1, "one"]
        assert one.keys() == two.keys() == ["old", "new"]
        assert two.get("old") == [1, math.inf]
    assert not (tmp_path / "none").exists()
