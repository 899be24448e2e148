"""Runs that are killed, stopped, failed or out of space, again and again.

`make test` has a sample; `make test-slow` the 200. Each goes on by the same command and
ends as the unbroken run does, byte for byte.
"""

import json
import signal
import time

import faults
import pytest
import tiny_model


@pytest.fixture(scope="module")
def kinds(tmp_path_factory, child_env):
    """`kinds(name)` gives its runs, the unbroken workdir and its moments."""
    model = tiny_model.write(tmp_path_factory.mktemp("model") / "tiny", layers=1)
    made = {}

    def make(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            runs = faults.runs(kind, folder, model, child_env)
            assert runs.go(folder / "unbroken")
            made[kind] = runs, folder / "unbroken", runs.counts()[-1]
        return made[kind]

    return make


def disturbed(kinds, kind, count, tmp_path, seed):
    """A run that meets `count` faults; compares it, and what it trained in all."""
    runs, unbroken, once = kinds(kind)
    before, finished = len(runs.counts()), False
    plan = faults.moments(count, once["moments"], f"{kind} {seed}")
    for fault, moment in plan:
        finished = runs.go(tmp_path / "run", fault, moment) or finished
    if not finished:
        assert runs.go(tmp_path / "run")
    faults.assert_same(tmp_path / "run", unbroken)
    told = runs.counts()[before:]
    # Of each start that did not come to its end one unit may be lost, and no more.
    config = json.loads((runs.folder / "config.json").read_text())
    # Without labels no adapter is trained on an item.
    pool = config["inner"]["pool"] if "inner" in config else 0
    most = once["adapters"] + count * pool
    assert sum(row["adapters"] for row in told) <= most
    assert sum(row["imitated"] for row in told) <= once["imitated"] + count


def test_a_sample_of_faults(kinds, tmp_path):
    disturbed(kinds, "rounds", 2, tmp_path, seed="sample")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
@pytest.mark.parametrize("kind", ["rounds", "few_shot"])
def test_many_faults_of_rounds(kinds, kind, part, tmp_path):
    disturbed(kinds, kind, 3, tmp_path, seed=part)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
@pytest.mark.parametrize("kind", ["continual", "deploy"])
def test_many_faults_of_sequences(kinds, kind, part, tmp_path):
    disturbed(kinds, kind, 3, tmp_path, seed=part)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(12))
def test_many_faults_without_labels(kinds, part, tmp_path):
    """Of the rule, its control and the oracle, two rounds each."""
    disturbed(kinds, "lmsi", 3, tmp_path, seed=part)


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("fault", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("units", [1, 2, 3, 4, 5])
def test_one_of_two_processes(kinds, fault, who, units, tmp_path):
    """Killed or stopped when so many units are finished: the other says who it was."""
    runs, _, _ = kinds("rounds")
    workdir, unbroken = tmp_path / "run", runs.folder / "pair"
    if not unbroken.exists():
        with faults.pair(runs, unbroken) as started:
            ends = [p.communicate(timeout=300) for p in started]
            assert [p.returncode for p in started] == [0, 0], ends
    journal = workdir / "journal.jsonl"
    with faults.pair(runs, workdir) as started:
        until = time.monotonic() + 300
        while not journal.exists() or journal.read_bytes().count(b"\n") < units:
            assert all(p.poll() is None for p in started)
            assert time.monotonic() < until
            time.sleep(0.02)
        started[who].send_signal(getattr(signal, fault))
        ends = [p.communicate(timeout=300) for p in started]
        other = started[1 - who].returncode, faults.spoken(ends[1 - who][1])
    if fault == "SIGKILL":
        assert started[who].returncode == -signal.SIGKILL
        assert other[0] == 1 and len(other[1]) == 1
        assert other[1][0].startswith(f"error: process {who}: it was killed")
    else:
        assert started[who].returncode == other[0] == 143
        (line,) = other[1]
        assert line.startswith("stopped; the same command continues")
    with faults.pair(runs, workdir) as started:
        ends = [p.communicate(timeout=300) for p in started]
        assert [p.returncode for p in started] == [0, 0], ends
    faults.assert_same(workdir, unbroken)
