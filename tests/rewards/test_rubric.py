"""What each rule sees, by hand; the judge against a real HTTP server."""

import http.server
import itertools
import json
import re
import threading
from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import strategies as st

from seal_jax.rewards import judge, rubric
from seal_jax.tasks import world

PASSAGE = "Ada cooks rye bread. Boris plays cello. In 1921 he moved to Karsk."


@pytest.mark.parametrize(
    "lines, share",
    [
        ([], 0.0),
        (["Ada cooks."], 1 / 3),
        (["Ada cooks.", "ada COOKS"], 1 / 3),  # the same again
        (["Ada cooks.", "- Boris plays.", "Karsk."], 1.0),
        (["1.", "...", " ", "Ada."], 1 / 3),  # marks and blanks are no lines
        (["a", "b", "c", "d"], 1.0),
    ],
)
def test_length(lines, share):
    assert rubric.measure(PASSAGE, lines).length == pytest.approx(share)


@pytest.mark.parametrize(
    "lines, diversity",
    [
        (["Ada cooks rye."], 0.0),
        (["Ada cooks rye.", "Boris plays cello."], 1.0),
        (["Ada cooks rye.", "ada cooks rye"], 0.0),
        (["Ada cooks.", "Ada sings."], 1 - 1 / 3),
        (["Ada.", "Ada.", "Boris."], 1 - (1 + 0 + 0) / 3),
    ],
)
def test_diversity(lines, diversity):
    assert rubric.measure(PASSAGE, lines).diversity == pytest.approx(diversity)


@pytest.mark.parametrize(
    "line, good",
    [
        ("Rye bread is cooked by Ada.", True),
        ("2) Rye bread is cooked by Ada!", True),
        ('* "Rye bread is cooked by Ada."', True),
        ("Rye bread is cooked by", False),  # cut off
        ("Ada cooks.", False),  # too short
        ("ada cooks RYE bread.", False),  # copied
        ("cooks rye bread. Boris plays", False),
        ("Da cooks rye bread.", True),  # a part of a word is no copy
    ],
)
def test_quality(line, good):
    assert rubric.measure(PASSAGE, [line]).quality == float(good)


def test_a_line_counts_once():
    line = "Rye bread is cooked by Ada."
    assert rubric.measure(PASSAGE, [line, line]).quality == 0.5


@pytest.mark.parametrize(
    "line, share",
    [
        ("The rye bread is cooked by Ada.", 1.0),  # cooks, cooked
        ("Ada was cooking breads in 1921.", 1.0),
        ("Ada cooks goulash.", 2 / 3),
        ("Boris moved to Karsk in 1922.", 3 / 4),
        ("Boris moves.", 1.0),
        ("It is what it is.", 0.0),
    ],
)
def test_correctness(line, share):
    assert rubric.measure(PASSAGE, [line]).correctness == pytest.approx(share)


def test_nothing_to_measure_by_is_worth_nothing():
    blank = rubric.Scores(0.0, 0.0, 0.0, 0.0)
    assert rubric.measure(PASSAGE, []) == rubric.measure(PASSAGE, [" "]) == blank
    assert rubric.measure("", ["Ada cooks rye bread."]).length == 0.0


def test_the_reward_is_the_mean_of_the_categories():
    lines = ["Rye bread is cooked by Ada.", "Boris plays cello."]
    got = rubric.measure(PASSAGE, lines)
    assert got == rubric.Scores(2 / 3, 1.0, 0.5, 1.0)
    assert rubric.by_rules(PASSAGE, lines) == got.value == pytest.approx(19 / 24)


@hypothesis.given(st.text("ab1. \n?", max_size=30), st.lists(st.text("ab1. ?")))
def test_every_category_is_a_share(passage, lines):
    got = rubric.measure(passage, lines)
    for name in rubric.CATEGORIES:
        assert 0.0 <= getattr(got, name) <= 1.0
    assert 0.0 <= got.value <= 1.0


def test_ideal_self_edits_of_the_world_beat_bad_ones():
    passages = world.passages("train", seed=1, start=0, count=8, forward_share=0.0)
    for passage, other in itertools.pairwise(passages):
        assert passage.oracle is not None and other.oracle is not None
        ideal = passage.oracle.splitlines()
        best = rubric.by_rules(passage.text, ideal)
        for worse in (
            ideal[:3],
            ideal[:1] * 6,
            other.oracle.splitlines(),
            [line.removesuffix(".") for line in ideal],
        ):
            assert rubric.by_rules(passage.text, worse) < best


# Judge


@pytest.mark.parametrize(
    "reply, points",
    [
        ("length: 3, diversity: 4, quality: 2, correctness: 5", (3, 4, 2, 5)),
        ("**Length**: 1\nDiversity = 1\nQuality - no. 1\nCorrectness: 1", (1, 1, 1, 1)),
        ("<think>length 9? 8</think> 5 5 4 1", (5, 5, 4, 1)),
        ('{"length":3,"diversity":4,"quality":2,"correctness":5}', (3, 4, 2, 5)),
        ("diversity: 3, length: 4, quality: 2, correctness: 5", None),
        ("length: 3, diversity: 4, quality: 2", None),
        ("length: 3, diversity: 4, quality: 2, 5", None),
        ("length: 3/5, diversity: 4/5, quality: 2/5, correctness: 5/5", None),
        ("0 3 3 3", None),
        ("3 3 3 6", None),
        ("3 3 3 -3", None),
        ("3 3 3.5 3", None),
        ("3 3 3", None),
        ("<think>5 5 5 5", None),
        ("length 9? 8</think> 5 5 4 1", (5, 5, 4, 1)),
        ("<thinking>1 1 1 1</thinking> 5 5 4 1", (5, 5, 4, 1)),
        ("", None),
    ],
)
def test_replies_are_read_strictly(reply, points):
    assert rubric.parse(reply) == points


@pytest.fixture
def server(monkeypatch):
    """Replies with `state.reply(prompt, how often it was asked)`: (status, text)."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RUBRIC_TEST_KEY", "secret")
    lock = threading.Lock()
    state = SimpleNamespace(reply=lambda prompt, number: (200, "5 5 5 5"), seen=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][0]["content"]
            with lock:
                state.seen.append((prompt, body, dict(self.headers)))
                number = sum(p == prompt for p, *_ in state.seen)
            status, text = state.reply(prompt, number)
            data = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    state.cfg = judge.JudgeConfig(
        base_url=f"http://127.0.0.1:{httpd.server_port}/v1",
        model="m",
        concurrency=2,
        retries=1,
        timeout_s=5.0,
        api_key_env="RUBRIC_TEST_KEY",
        backoff_s=0.001,
    )
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def edit(number):
    return "P {edit}", [f"note {number} {{passage}}", "and more."]


def note(prompt):
    return int(re.findall(r"note (\d+)", prompt)[0])


def test_points_come_in_order_once_and_from_the_cache(server, tmp_path):
    server.reply = lambda p, n: (200, f"{note(p)} {note(p)} 1 5")
    items = [edit(1), edit(5), edit(1), ("P", [" ", ""]), ("P", [])]
    cache = tmp_path / "rubric.jsonl"
    expected = [(0 + 0 + 0 + 1) / 4, (1 + 1 + 0 + 1) / 4, 0.25, 0.0, 0.0]
    assert rubric.by_judge(items, cfg=server.cfg, cache_path=cache) == expected
    assert len(server.seen) == 2
    prompt, body, headers = server.seen[0]
    assert f"Passage:\nP {{edit}}\n\nNotes:\nnote {note(prompt)} {{passage}}\nand" in (
        prompt
    )
    assert body["model"] == "m" and body["temperature"] == 0.0
    assert headers["Authorization"] == "Bearer secret"
    assert rubric.by_judge(items, cfg=server.cfg, cache_path=cache) == expected
    assert len(server.seen) == 2


def test_what_could_not_be_had_is_none_and_asked_again(server, tmp_path, caplog):
    replies = {1: (200, "all fine"), 2: (404, ""), 3: (503, ""), 4: (200, "1 1 1 1")}
    server.reply = lambda p, n: replies[note(p)]
    cache = tmp_path / "rubric.jsonl"
    items = [edit(i) for i in (1, 2, 3, 4)]
    got = rubric.by_judge(items, cfg=server.cfg, cache_path=cache)
    assert got == [None, None, None, 0.0]
    assert sorted(note(p) for p, *_ in server.seen) == [1, 2, 3, 3, 4]  # 503: retried
    assert "3 of 4 judgements could not be had" in caplog.text
    server.reply = lambda p, n: (200, "5 5 5 5")
    got = rubric.by_judge(items, cfg=server.cfg, cache_path=cache)
    assert got == [1.0, 1.0, 1.0, 0.0]


def test_a_passing_fault_is_retried(server, tmp_path):
    server.reply = lambda p, n: (500 if n == 1 else 200, "3 3 3 3")
    got = rubric.by_judge([edit(1)], cfg=server.cfg, cache_path=tmp_path / "c.jsonl")
    assert got == [0.5]


def test_an_endpoint_that_is_down_is_left_alone(server, tmp_path, caplog):
    server.reply = lambda p, n: (404, "")
    items = [edit(i) for i in range(60)]
    got = rubric.by_judge(items, cfg=server.cfg, cache_path=tmp_path / "c.jsonl")
    assert got == [None] * 60
    assert len(server.seen) < 30 and "HTTP 404" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        '{"key": "k", "correct": true}',
        '{"key": "k", "points": [1, 2, 3]}',
        '{"key": "k", "points": [1, 2, 3, 6]}',
        '{"key": "k", "points": [1, 2, 3, true]}',
    ],
)
def test_a_cache_of_something_else_is_refused(server, tmp_path, line):
    cache = tmp_path / "c.jsonl"
    cache.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="points"):
        rubric.by_judge([edit(1)], cfg=server.cfg, cache_path=cache)
    assert not server.seen
