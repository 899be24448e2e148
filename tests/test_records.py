import errno
import json
import math
import os
import signal
import subprocess
import sys

import pytest

from seal_jax import files, records

CONFIG = {"name": "t", "inner": {"lr": 1e-3, "targets": ("q", "v")}, "extra": {}}


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
    with records.Journal(path) as journal:
        for key, value in values.items():
            journal.put(key, value)
        assert {k: journal.get(k) for k in values} == values
    with records.Journal(path) as journal:
        assert len(journal) == len(values)
        assert {k: journal.get(k) for k in values} == values
        assert "other" not in journal
        with pytest.raises(KeyError):
            journal.get("other")


def test_journal_keeps_what_json_lacks(tmp_path):
    with records.Journal(tmp_path / "j") as journal:
        journal.put("k", [math.nan, math.inf, -math.inf])
    with records.Journal(tmp_path / "j") as journal:
        nan, high, low = journal.get("k")  # pyright: ignore[reportGeneralTypeIssues]
    assert math.isnan(nan)
    assert (high, low) == (math.inf, -math.inf)


def test_cached_gives_first_and_resumed_runs_the_same_value(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"pair": (1, 2), 3: "three", "x": 1 / 3}

    with records.Journal(tmp_path / "j") as journal:
        first = journal.cached("unit", work)
        again = journal.cached("unit", work)
    with records.Journal(tmp_path / "j") as journal:
        resumed = journal.cached("unit", work)
    assert calls == [1]
    assert first == again == resumed == {"pair": [1, 2], "3": "three", "x": 1 / 3}
    assert list(first) == list(resumed)


def test_cached_stores_nothing_when_the_work_fails(tmp_path):
    with records.Journal(tmp_path / "j") as journal:
        with pytest.raises(ZeroDivisionError):
            journal.cached("unit", lambda: 1 // 0)
        assert "unit" not in journal
        assert journal.cached("unit", lambda: 7) == 7


def test_a_value_read_can_be_changed_freely(tmp_path):
    with records.Journal(tmp_path / "j") as journal:
        journal.cached("k", lambda: [1]).append(2)  # pyright: ignore
        assert journal.get("k") == [1]


def test_the_last_entry_of_a_key_counts(tmp_path):
    with records.Journal(tmp_path / "j") as journal:
        journal.put("k", None)
        journal.put("k", 1)
    with records.Journal(tmp_path / "j") as journal:
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
        records.Journal(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_put_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "j"
    with records.Journal(path) as journal:
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
    with records.Journal(path) as journal:
        assert (journal.get("a"), journal.get("b")) == (1, 3)


_WRITER = """
import sys
from seal_jax import records
with records.Journal(sys.argv[1]) as journal:
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
        with records.Journal(path) as journal:
            # One more may be on disk than was reported.
            assert len(journal) in (reported, reported + 1)
            assert journal.get(str(reported - 1)) == {
                "n": reported - 1,
                "pad": "x" * ((reported - 1) % 977),
            }


def test_workdir_is_made_and_reopened(tmp_path):
    path = records.open_workdir(tmp_path / "a" / "b", CONFIG)
    assert path == tmp_path / "a" / "b"
    stored = json.loads((path / "config.json").read_text())
    assert stored["inner"] == {"lr": 1e-3, "targets": ["q", "v"]}
    assert records.open_workdir(path, CONFIG) == path


def test_a_workdir_of_another_layout_is_refused_with_the_reason(tmp_path):
    records.open_workdir(tmp_path, CONFIG)
    mark = tmp_path / records.LAYOUT_NAME
    assert json.loads(mark.read_text()) == {"layout": records.LAYOUT}
    for text, layout, age in (
        (None, 1, "an earlier"),
        (f'{{"layout": {records.LAYOUT + 1}}}', records.LAYOUT + 1, "a later"),
    ):
        mark.unlink(missing_ok=True)
        if text:
            mark.write_text(text)
        with pytest.raises(ValueError) as caught:
            records.open_workdir(tmp_path, CONFIG)
        assert str(caught.value) == (
            f"{tmp_path}: begun by {age} version (layout {layout}, this one's is "
            f"{records.LAYOUT}): report reads it, but it cannot be continued; a new "
            "--workdir runs it anew"
        )
    mark.write_text("[]")
    with pytest.raises(ValueError, match=r"layout\.json: must hold"):
        records.open_workdir(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "u"}, r'config: name="t" there, "u" here; give another --workdir'),
        (
            {"inner": {**CONFIG["inner"], "lr": 0.01}},
            r"inner.lr=0.001 there, 0.01 here",
        ),
        ({"inner": {"lr": 1e-3}}, r'inner.targets=\["q", "v"\] there, \(absent\) here'),
        ({"seed": 1}, r"seed=\(absent\) there, 1 here"),
        ({"extra": {"x": 1}}, r"extra=\{\} there, \(absent\) here; extra.x=\(absent\)"),
        ({f"k{i:02}": i for i in range(12)}, r"k07=.* 7 here; and 4 more; give"),
    ],
)
def test_a_workdir_of_another_config_is_refused(tmp_path, change, message):
    records.open_workdir(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=message) as caught:
        records.open_workdir(tmp_path, CONFIG | change)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert records.open_workdir(tmp_path, CONFIG) == tmp_path


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), (1, True), (None, "null")])
def test_config_types_count(tmp_path, a, b):
    assert records.config_hash({"x": a}) != records.config_hash({"x": b})
    records.open_workdir(tmp_path, {"x": a})
    with pytest.raises(ValueError, match="x="):
        records.open_workdir(tmp_path, {"x": b})


def test_config_hash_is_of_the_content():
    same = {"extra": {}, "inner": {"targets": ["q", "v"], "lr": 0.001}, "name": "t"}
    assert records.config_hash(CONFIG) == records.config_hash(same)
    # Worked out with `printf '{"a":1}' | sha256sum`.
    assert records.config_hash({"a": 1}) == "015abd7f5cc5"


def test_an_infinite_setting_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config.a.b=inf must be finite"):
        records.open_workdir(tmp_path, {"a": {"b": math.inf}})


def test_a_file_in_the_way_of_a_workdir(tmp_path):
    (tmp_path / "f").write_text("")
    for path in (tmp_path / "f", tmp_path / "f" / "below"):
        with pytest.raises(ValueError, match="a workdir must be a directory"):
            records.open_workdir(path, CONFIG)


_HOLDER = """
import sys, time
from seal_jax import records
with records.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_held_workdir_is_refused_until_its_holder_is_killed(tmp_path, child_env):
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "w")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=child_env
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        expected = f"in use by process {holder.pid}; one run per workdir"
        with (
            pytest.raises(records.WorkdirInUseError, match=expected) as caught,
            records.lock(tmp_path / "w"),
        ):
            pass
        assert "\n" not in str(caught.value)
        holder.send_signal(signal.SIGKILL)
    for _ in range(2):  # and it is free again after use
        with records.lock(tmp_path / "w"):
            pass
