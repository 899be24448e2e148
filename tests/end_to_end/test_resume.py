"""A run killed anywhere and started again ends as if nothing had happened.

The thorough test stops a run in this process at every single entry of its journal; the
others kill real processes with SIGKILL, inside the phases as well.
"""

import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
import tiny_model

from seal_jax import train
from seal_jax.rewards import judge
from seal_jax.rounds import grading, scoring
from seal_jax.runtime import files
from seal_jax.runtime.journal import Journal
from seal_jax.training import imitate, packed


class Killed(BaseException):
    """Stands in for a kill: nothing in the program may catch it."""


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny", layers=1)


@pytest.fixture(scope="module")
def values(model_path):
    return tiny_model.values(model_path)


def toss_scorer(cfg, workdir):
    return tiny_model.toss


@pytest.fixture(scope="module")
def undisturbed(values, tmp_path_factory):
    """The workdir of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "scorer", toss_scorer)
        train.run(values, workdir, say=lambda line: None)
    return workdir


def untimed(workdir: pathlib.Path) -> str:
    """summary.json without its clock readings; everything else, bit for bit."""
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["seconds"].keys()
    phases = sorted(summary["seconds"])
    return json.dumps(summary | {"seconds": phases, "compile": None})


def assert_same_run(workdir, other):
    assert untimed(workdir) == untimed(other)
    for name in ("edits.jsonl", "heldout.jsonl", "policy/model.safetensors"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes()
    points = [
        [
            (row["step"], name)
            for row in files.read_jsonl(at / "metrics.jsonl")
            for name in row
            if name not in ("step", "time")
        ]
        for at in (workdir, other)
    ]
    assert len(points[0]) == len(set(points[0]))
    ladder = [{p for p in names if p[1].startswith("ladder/")} for names in points]
    assert ladder[0] == ladder[1]


def journal_keys(workdir) -> list[str]:
    lines = (workdir / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["key"] for line in lines]


class Counter:
    """How often the expensive functions ran, through all starts."""

    def __init__(self, patch):
        self.calls = {"adapt": 0, "imitate": 0}
        for name, module in (("adapt", packed), ("imitate", imitate)):
            self._wrap(patch, name, module, module.train)

    def _wrap(self, patch, name, module, real):
        def counted(*args, **kwargs):
            self.calls[name] += 1
            return real(*args, **kwargs)

        patch.setattr(module, "train", counted)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_stopped_at_every_entry_of_the_journal(
    values, undisturbed, tmp_path, monkeypatch, moment
):
    """Each start is stopped at the first journal entry that no start was stopped at.

    `after` loses nothing; `before` loses the unit that was just done, each time.
    """
    monkeypatch.setattr(grading, "scorer", toss_scorer)
    counter, stopped = Counter(monkeypatch), set()
    put = Journal.put

    def stopping(self, key, value):
        if moment == "after":
            put(self, key, value)
        if key not in stopped:
            stopped.add(key)
            raise Killed(key)
        if moment == "before":
            put(self, key, value)

    monkeypatch.setattr(Journal, "put", stopping)
    starts = 0
    while True:
        starts += 1
        assert starts < 100
        try:
            train.run(values, tmp_path, say=lambda line: None)
        except Killed:
            continue
        break
    keys = journal_keys(undisturbed)
    assert stopped == set(keys) and starts == len(keys) + 1
    assert sorted(journal_keys(tmp_path)) == sorted(keys)
    assert_same_run(tmp_path, undisturbed)
    chunks = sum("/adapt/" in key for key in keys)
    assert chunks == 11
    # What was finished is never done again; `before` loses each chunk once. A delta
    # is finished when its checkpoint is there, which is before its journal entry.
    lost = 2 if moment == "before" else 1
    assert counter.calls == {"adapt": lost * chunks, "imitate": 4}


def test_stopped_between_a_checkpoint_and_everything_after_it(
    values, undisturbed, tmp_path, monkeypatch
):
    from seal_jax.runtime import checkpoint

    monkeypatch.setattr(grading, "scorer", toss_scorer)
    real = checkpoint.save
    fresh = {"before": set(), "after": set()}

    def stopping(directory, step, tree, meta):
        for moment, seen in fresh.items():
            if (directory, step) not in seen:
                seen.add((directory, step))
                if moment == "after":
                    real(directory, step, tree, meta)
                raise Killed(moment)
        real(directory, step, tree, meta)

    monkeypatch.setattr(checkpoint, "save", stopping)
    starts = 0
    while starts < 20:
        starts += 1
        try:
            train.run(values, tmp_path, say=lambda line: None)
        except Killed:
            continue
        break
    # Four checkpoints, and the one by which a start tries its workdir.
    assert starts == 2 * 5 + 1
    assert_same_run(tmp_path, undisturbed)


# Real kills

DRIVER = """\
import json, os, pathlib, signal, sys
from seal_jax.models import hf_weights
from seal_jax.rounds import (grading, ladder)
from seal_jax.runtime import (checkpoint, files)
from seal_jax.runtime import records
from seal_jax.training import packed
from seal_jax import train
from seal_jax.generation import generate
from seal_jax.report import html_page
import tiny_model

config, workdir, point = sys.argv[1:]
grading.scorer = lambda cfg, at: tiny_model.toss


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(module, name, number=1, after=False):
    real, calls = getattr(module, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) < number:
            return real(*args, **kwargs)
        if after:
            real(*args, **kwargs)
        die()

    setattr(module, name, counted)


def torn_journal_line():
    real = os.write

    def half(fd, data):
        if b'/adapt/' in data[:60]:
            real(fd, data[: len(data) // 2])
            die()
        return real(fd, data)

    files.os.write = half


def at_file(name):
    real = os.replace

    def replace(source, target):
        if pathlib.Path(target).name == name:
            die()
        real(source, target)

    files.os.replace = replace


POINTS = {
    "propose": lambda: at_call(generate, "run"),
    "adapt": lambda: at_call(packed, "_empty_state", 2),
    "journal": torn_journal_line,
    "checkpoint": lambda: at_call(checkpoint, "save", after=True),
    "chunk": lambda: at_call(packed, "train", 3),
    "policy": lambda: at_call(hf_weights, "save_params", after=True),
    "edits": lambda: at_file("edits.jsonl"),
    "ladder": lambda: at_call(ladder, "row", 4),
    "summary": lambda: at_file("summary.json"),
    "report": lambda: at_call(html_page, "write_html"),
    "none": lambda: None,
}
POINTS[point]()
values = json.loads(pathlib.Path(config).read_text())
train.run(values, workdir, say=lambda line: None)
"""


@pytest.fixture(scope="module")
def drive(values, tmp_path_factory, child_env):
    """Runs the experiment in a process that kills itself at the given point."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "config.json").write_text(json.dumps(values))
    path = os.pathsep.join([str(tiny_model.ROOT / "tests"), child_env["PYTHONPATH"]])
    env = child_env | {
        "PYTHONPATH": path,
        # Spares the later starts the compilation; the programs are the same.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def run(workdir, point):
        args = [str(folder / "config.json"), str(workdir), point]
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, *args],
            capture_output=True,
            text=True,
            env=env,
            timeout=300,
        )
        expected = 0 if point == "none" else -signal.SIGKILL
        assert done.returncode == expected, done.stderr
        if point != "none":
            assert not (workdir / "report.html").exists()

    return run


@pytest.mark.slow  # tests/faults/test_kills.py has a sample for every day.
def test_killed_again_and_again(drive, undisturbed, tmp_path):
    """One run, killed while it trains, in mid-write of its journal, and at its end."""
    for point in ("adapt", "journal", "summary"):
        drive(tmp_path, point)
    assert not (tmp_path / "summary.json").exists()
    drive(tmp_path, "none")
    keys = journal_keys(tmp_path)
    assert len(keys) == len(set(keys))
    assert sorted(keys) == sorted(journal_keys(undisturbed))
    assert_same_run(tmp_path, undisturbed)
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    ["propose", "chunk", "checkpoint", "policy", "edits", "ladder", "report"],
)
def test_killed_once_anywhere_else(drive, undisturbed, tmp_path, point):
    drive(tmp_path, point)
    drive(tmp_path, "none")
    assert sorted(journal_keys(tmp_path)) == sorted(journal_keys(undisturbed))
    assert_same_run(tmp_path, undisturbed)
    assert (tmp_path / "report.html").exists()


# A judge that fails now and then


class Judge(http.server.ThreadingHTTPServer):
    """An endpoint that refuses every third new question once, or everything."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.seen: set[str] = set()
        self.judged: list[str] = []
        self.failed: set[str] = set()
        self.keys: set[str] = set()
        self.down = False


class Handler(http.server.BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        with self.server.lock:
            self.server.keys.add(self.headers["Authorization"])
            new = text not in self.server.seen
            self.server.seen.add(text)
            coin = tiny_model.toss([(text, "", "")])[0]
            fails = (new and len(text) % 3 == 0) or self.server.down
            fails = fails and "clear sky" not in text
            (self.server.failed.add if fails else self.server.judged.append)(text)
        if fails:
            self.send_error(503)
            return
        reply = {"choices": [{"message": {"content": "yes" if coin else "no"}}]}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint():
    server = Judge()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def judged_values(model_path, endpoint, **changes):
    return tiny_model.values(
        model_path,
        grade__name="judge",
        grade__judge__base_url=f"http://127.0.0.1:{endpoint.server_port}/v1",
        grade__judge__concurrency=4,
        grade__judge__retries=0,
        grade__judge__backoff_s=0.0,
        **({"grade__max_missing": 1.0, "scale__rounds": 1} | changes),
    )


def test_judgements_that_could_not_be_had_are_asked_again(
    model_path, endpoint, tmp_path, monkeypatch
):
    # The endpoint shall not count as down, however its failures fall.
    values = judged_values(model_path, endpoint, ladder=("base", "passage_only"))
    monkeypatch.setenv("OPENAI_API_KEY", key := "sk-planted-7f3a9c51e2d84b60")
    monkeypatch.setattr(packed, "train", counted := Counted(packed.train))
    said = []
    first = train.run(values, tmp_path, say=said.append)
    missing = {row["name"]: row["missing"] for row in first["ladder"]}
    assert sum(missing.values()) > 0
    rows = files.read_jsonl(tmp_path / "heldout.jsonl")
    scores = [a["score"] for row in rows for group in row["answers"] for a in group]
    assert None in scores
    # Means are over what was judged.
    means = {row["name"]: row["mean"] for row in first["ladder"]}
    rewards = [
        scoring.mean([a["score"] for answers in row["answers"] for a in answers])
        for row in rows
        if row["arm"] == "round_1"
    ]
    assert means["round_1"] == pytest.approx(scoring.mean(rewards))
    trained = counted.calls
    again = train.run(values, tmp_path, say=lambda line: None)
    assert counted.calls == trained
    assert [row["missing"] for row in again["ladder"]] == [0, 0, 0]
    asked = [text for text in endpoint.judged if "clear sky" not in text]
    assert len(asked) == len(set(asked)), "a verdict was asked for twice"
    # Sent with every request, and found in nothing that was written or said.
    assert endpoint.keys == {f"Bearer {key}"} and key not in "".join(said)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if key.encode() in path.read_bytes()]
    # Now it is complete, and a third start asks nothing.
    requests = len(endpoint.judged)
    assert train.run(values, tmp_path, say=lambda line: None) == files.to_plain(again)
    assert len(endpoint.judged) == requests


class Counted:
    """A function that counts its calls."""

    def __init__(self, real):
        self.real, self.calls = real, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.real(*args, **kwargs)


def test_an_outage_stops_the_run_and_the_same_command_continues_it(
    model_path, endpoint, tmp_path, monkeypatch, caplog
):
    values = judged_values(model_path, endpoint, ladder=(), grade__max_missing=0.02)
    monkeypatch.setattr(packed, "train", counted := Counted(packed.train))
    endpoint.down = True
    with pytest.raises(judge.JudgeError) as caught:
        train.run(values, tmp_path, say=lambda line: None)
    message = str(caught.value)
    assert "judgements could not be had" in message and "\n" not in message
    assert "the same command again" in message
    trained = counted.calls
    assert trained == 2
    endpoint.down = False
    for _ in range(9):
        # Each start asks once more for what failed; all that is new may fail once.
        try:
            summary = train.run(values, tmp_path, say=lambda line: None)
            break
        except scoring.MissingJudgementsError:
            continue
    assert [row["missing"] for row in summary["ladder"]] == [0]
    assert counted.calls == trained + 1
    assert all(
        row["reward"] is not None for row in files.read_jsonl(tmp_path / "edits.jsonl")
    )
