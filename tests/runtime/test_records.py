import errno
import json
import math
import os
import signal
import subprocess
import sys

import pytest

from seal_jax.runtime import records

CONFIG = {"name": "t", "inner": {"lr": 1e-3, "targets": ("q", "v")}, "extra": {}}


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
from seal_jax.runtime import records
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


def test_a_file_system_without_locks_is_said_so(tmp_path, monkeypatch):
    def no_locks(fd, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(records.fcntl, "flock", no_locks)
    with (
        pytest.raises(ValueError, match=r"cannot be locked .* --workdir") as caught,
        records.lock(tmp_path),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "layout.json"])
@pytest.mark.parametrize("text", ['{"seed":', "\0", ""])
def test_a_torn_file_of_a_workdir_is_not_to_be_downloaded(tmp_path, name, text):
    records.open_workdir(tmp_path, {"a": 1})
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="must be one JSON value") as caught:
        records.open_workdir(tmp_path, {"a": 1})
    assert str(caught.value).endswith("; restore it, or give another --workdir")


def test_where_a_run_is_watched_is_no_part_of_what_it_is(tmp_path):
    config = {"seed": 1, "watch": {"writers": ["tensorboard"]}}
    other = {"seed": 1, "watch": {"writers": ["wandb"], "project": "seal"}}
    hashes = {records.config_hash(c) for c in (config, other, {"seed": 1})}
    assert hashes == {records.config_hash({"seed": 1})}
    records.open_workdir(tmp_path / "run", config)
    records.open_workdir(tmp_path / "run", other)
    raised = {"seed": 2, "watch": {"writers": []}}
    assert records.risen(tmp_path / "run", raised, "seed")
    with pytest.raises(ValueError, match="seed=1 there, 2 here; give") as caught:
        records.open_workdir(tmp_path / "run", raised)
    assert "watch." not in str(caught.value)


def test_a_run_older_than_a_key_is_continued_by_what_the_key_stands_for(tmp_path):
    now = {"model": {"path": "m", "chat": "none", "base_dtype": "same"}, "seed": 0}
    records.open_workdir(tmp_path, {"model": {"path": "m"}, "seed": 0})
    assert records.open_workdir(tmp_path, now) == tmp_path
    changed = {**now, "model": {**now["model"], "chat": "auto"}}
    with pytest.raises(ValueError, match=r'model.chat="none" there, "auto" here'):
        records.open_workdir(tmp_path, changed)
