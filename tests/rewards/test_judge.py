"""The judge against a real HTTP server on this machine that misbehaves on demand."""

import dataclasses
import http.server
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from seal_jax.rewards import judge

KEY_VARIABLE = "JUDGE_TEST_KEY"


def says(text, status=200, **headers):
    """A chat completion with this text."""
    body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    return status, headers, body


def refuses(status, body=b"{}", **headers):
    return status, {k.replace("_", "-"): v for k, v in headers.items()}, body


@dataclasses.dataclass
class Server:
    """What the server is to do, and what it saw."""

    url: str
    reply: Callable
    requests: list
    at_once: int = 0
    most_at_once: int = 0


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][0]["content"]
            with lock:
                state.requests.append((self.path, dict(self.headers), body))
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
                number = sum(
                    r[2]["messages"][0]["content"] == prompt for r in state.requests
                )
            status, headers, data = state.reply(prompt, number)
            with lock:
                state.at_once -= 1
            if status is None:
                return  # hangs up without a word
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except OSError:
                return  # the client ran out of patience

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(
        f"http://127.0.0.1:{httpd.server_port}/v1", lambda p, n: says("yes"), []
    )
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def config(server):
    return judge.JudgeConfig(
        base_url=server.url,
        model="m",
        concurrency=4,
        retries=2,
        timeout_s=5.0,
        api_key_env=KEY_VARIABLE,
        backoff_s=0.001,
    )


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "judge.jsonl"


def item(number, answer="it is {gold}"):
    return f"Topic: T\nQ{number}?", f"gold {number}", answer


ITEMS = [item(i) for i in range(6)]


def asked_about(prompt):
    return int(re.findall(r"Q(\d+)\?", prompt)[0])


def test_verdicts_come_in_order(server, config, cache):
    server.reply = lambda p, n: says("Yes." if asked_about(p) % 2 else "no")
    verdicts = judge.grade(ITEMS, config, cache)
    assert verdicts == [False, True, False, True, False, True]


def test_the_request_is_a_chat_completion_with_everything_in_it(server, config, cache):
    tricky = ("Who {gold}?", "A {answer} \\1", "B {question}")
    judge.grade([tricky], config, cache)
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"]) == ("m", 0.0)
    (message,) = body["messages"]
    assert message["role"] == "user"
    for text in tricky:
        assert f": {text}\n" in message["content"]
    assert "Authorization" not in headers
    judge.grade([item(0)], dataclasses.replace(config, temperature=None), cache)
    assert "temperature" not in server.requests[-1][2]


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_key_is_sent_and_never_logged(
    server, config, cache, slash, monkeypatch, caplog
):
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret\n")
    # Servers have been seen to repeat the key in their refusals.
    server.reply = lambda p, n: refuses(401, b'{"error": "bad key sk-secret"}')
    config = dataclasses.replace(config, base_url=server.url + slash)
    with caplog.at_level(logging.DEBUG):
        assert judge.grade([item(0)], config, cache) == [None]
        with pytest.raises(judge.JudgeError, match="HTTP 401") as caught:
            judge.check(config)
    assert server.requests[0][1]["Authorization"] == "Bearer sk-secret"
    written = caplog.text + str(caught.value) + repr(config) + cache.read_text()
    assert "sk-secret" not in written and KEY_VARIABLE in caplog.text


@pytest.mark.parametrize("key", ["sk-a\r\nX: y", "sk-ä"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_quoted(
    server, config, cache, key, monkeypatch
):
    monkeypatch.setenv(KEY_VARIABLE, key)
    for call in (
        lambda: judge.check(config),
        lambda: judge.grade(ITEMS, config, cache),
    ):
        with pytest.raises(judge.JudgeError, match=KEY_VARIABLE) as caught:
            call()
        assert "sk-" not in str(caught.value)
    assert server.requests == []


def test_a_redirect_is_not_followed(server, config, cache):
    server.reply = lambda p, n: refuses(307, Location=server.url + "/elsewhere")
    assert judge.grade([item(0)], config, cache) == [None]
    assert len(server.requests) == 1


# What is not asked


def test_blank_answers_are_wrong_without_a_call(server, config, cache):
    items = [item(0, ""), item(1, " \n"), item(2)]
    assert judge.grade(items, config, cache) == [False, False, True]
    assert len(server.requests) == 1
    assert judge.grade(items[:2], config, cache) == [False, False]
    assert judge.grade([], config, cache) == []
    assert len(server.requests) == 1


def test_equal_items_are_asked_once(server, config, cache):
    assert judge.grade(ITEMS * 3, config, cache) == [True] * 18
    assert len(server.requests) == 6


def test_verdicts_are_cached_by_content(server, config, cache):
    judge.grade(ITEMS[:4], config, cache)
    assert judge.grade(ITEMS[::-1], config, cache) == [True] * 6
    assert len(server.requests) == 6
    other = [("Q9?", "gold 0", "x"), (*ITEMS[0][:1], "other gold", ITEMS[0][2])]
    judge.grade(other, config, cache)
    assert len(server.requests) == 8
    for change in ({"model": "m2"}, {"temperature": 0.5}):
        judge.grade(ITEMS[:1], dataclasses.replace(config, **change), cache)
    assert len(server.requests) == 10
    patient = dataclasses.replace(config, timeout_s=9.0, concurrency=1, retries=0)
    judge.grade(ITEMS, patient, cache)
    assert len(server.requests) == 10


def test_a_changed_prompt_is_another_question(server, config, cache, monkeypatch):
    judge.grade(ITEMS[:1], config, cache)
    monkeypatch.setattr(judge, "PROMPT", judge.PROMPT + " ")
    judge.grade(ITEMS[:1], config, cache)
    assert len(server.requests) == 2


def test_a_torn_last_line_of_the_cache_is_asked_again(server, config, cache):
    judge.grade(ITEMS, config, cache)
    whole = cache.read_bytes()
    assert whole.count(b"\n") == 6
    cache.write_bytes(whole[:-5])
    assert judge.grade(ITEMS, config, cache) == [True] * 6
    assert len(server.requests) == 7
    assert sorted(cache.read_bytes().split(b"\n")) == sorted(whole.split(b"\n"))


@pytest.mark.parametrize("line", ["nonsense", "{}", '{"key": "k", "correct": null}'])
def test_a_whole_line_that_is_no_entry_is_refused(server, config, cache, line):
    cache.write_text(f"{line}\n")
    with pytest.raises(ValueError, match="line 1: must be one JSON entry"):
        judge.grade(ITEMS, config, cache)


# Failures


@pytest.mark.parametrize(
    "failure",
    [
        refuses(429),
        refuses(429, Retry_After="0"),
        refuses(500),
        refuses(503, b"<html>upstream</html>"),
        refuses(408),
        (200, {}, b"<html>not JSON</html>"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b"[1]"),
        says(None),
        (None, {}, b""),
        (200, {"Content-Length": "99"}, b"cut off"),
    ],
    ids=lambda f: f"{f[0]} {f[1]} {f[2][:16]}",
)
def test_passing_failures_are_tried_again(server, config, cache, failure):
    server.reply = lambda p, n: failure if n < 3 else says("no")
    assert judge.grade(ITEMS[:2], config, cache) == [False, False]
    assert len(server.requests) == 6


def test_after_the_last_retry_the_verdict_is_none_and_stays_open(
    server, config, cache, caplog
):
    server.reply = lambda p, n: refuses(503) if asked_about(p) == 1 else says("yes")
    with caplog.at_level(logging.WARNING):
        assert judge.grade(ITEMS[:3], config, cache) == [True, None, True]
    (warning,) = caplog.messages
    assert warning.startswith("1 of 3 judgements could not be had (HTTP 503 Service")
    assert len(server.requests) == 5
    server.reply = lambda p, n: says("no")
    assert judge.grade(ITEMS[:3], config, cache) == [True, False, True]
    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_refusals_are_not_tried_again(server, config, cache, status):
    server.reply = lambda p, n: refuses(status)
    assert judge.grade([item(0)], config, cache) == [None]
    assert len(server.requests) == 1


def test_a_reply_that_is_no_verdict_is_none_and_not_cached(server, config, cache):
    server.reply = lambda p, n: says("Perhaps.")
    assert judge.grade([item(0)], config, cache) == [None]
    assert len(server.requests) == 1
    server.reply = lambda p, n: says("yes")
    assert judge.grade([item(0)], config, cache) == [True]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_without_an_answer_is_missing_and_says_so(
    server, config, cache, field, caplog
):
    """As a server replies whose limit of tokens ended the thought."""
    message = {"content": None, field: "The student says no, so yes"}
    body = {"choices": [{"message": message, "finish_reason": "length"}]}
    server.reply = lambda p, n: (200, {}, json.dumps(body).encode())
    assert judge.grade([item(0)], config, cache) == [None]
    assert "reasoning without an answer (finish_reason='length'); raise" in caplog.text
    assert len(server.requests) == 1 and cache.read_text() == ""
    with pytest.raises(judge.JudgeError, match="reasoning without an answer"):
        judge.check(config)


@pytest.mark.parametrize(
    "content",
    [
        "Does it say no? No!</think>\n\nYes.",
        "<thinking>no</thinking>Yes. There is no contradiction.",
        [{"type": "thinking", "thinking": "no"}, {"type": "text", "text": "yes"}],
    ],
)
def test_what_a_judge_thinks_is_no_verdict(server, config, cache, content):
    server.reply = lambda p, n: says(content)
    assert judge.grade([item(0)], config, cache) == [True]


def test_a_slow_server_is_given_up(server, config, cache):
    release = threading.Event()

    def reply(prompt, number):
        release.wait(10)
        return says("yes")

    server.reply = reply
    hasty = dataclasses.replace(config, timeout_s=0.05, retries=1)
    try:
        assert judge.grade([item(0)], hasty, cache) == [None]
        deadline = time.monotonic() + 60  # the server may see them only later
        while len(server.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(server.requests) == 2
    finally:
        release.set()


def test_the_servers_own_pause_is_kept(server, config, cache):
    seen = []

    def reply(prompt, number):
        seen.append(time.monotonic())
        return refuses(429, Retry_After="0.3") if number == 1 else says("yes")

    server.reply = reply
    assert judge.grade([item(0)], config, cache) == [True]
    assert seen[1] - seen[0] >= 0.3


def test_a_pause_too_long_is_left_for_later(server, config, cache):
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for header in ("3600", later):
        server.reply = lambda p, n, h=header: refuses(429, Retry_After=h)
        before = len(server.requests)
        assert judge.grade([item(0)], config, cache) == [None]
        assert len(server.requests) == before + 1


@pytest.mark.parametrize("header", ["soon", "nan", "-5", "Mon, 99 Foo"])
def test_a_malformed_pause_is_ignored(server, config, cache, header):
    server.reply = lambda p, n: (
        refuses(429, Retry_After=header) if n == 1 else says("yes")
    )
    assert judge.grade([item(0)], config, cache) == [True]


def slowly(answer):
    def reply(prompt, number):
        time.sleep(0.01)
        return answer

    return reply


def test_an_endpoint_that_goes_down_is_left_alone(server, config, cache):
    server.reply = slowly(refuses(404))
    items = [item(i) for i in range(200)]
    assert judge.grade(items, config, cache) == [None] * 200
    assert 12 <= len(server.requests) < 100


def test_concurrency_is_bounded_and_used(server, config, cache):
    full = threading.Barrier(4)

    def reply(prompt, number):
        full.wait(10)  # passes only with four requests at once
        return says("yes")

    server.reply = reply
    assert judge.grade([item(i) for i in range(12)], config, cache) == [True] * 12
    assert server.most_at_once == 4


def test_what_was_judged_before_an_interrupt_is_kept(
    server, config, cache, monkeypatch
):
    class Interrupt(BaseException):
        pass

    server.reply = slowly(says("yes"))
    append = judge.files.Lines.append_row

    def append_then_interrupt(self, row):
        append(self, row)
        raise Interrupt

    with monkeypatch.context() as patch:
        patch.setattr(judge.files.Lines, "append_row", append_then_interrupt)
        with pytest.raises(Interrupt):
            judge.grade([item(i) for i in range(50)], config, cache)
    assert len(cache.read_text().splitlines()) == 1
    assert len(server.requests) < 50


# The probe


def test_check_passes_a_judge_that_answers(server, config):
    judge.check(config)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply, message",
    [
        (refuses(401), f"HTTP 401 Unauthorized; put a valid key into .*{KEY_VARIABLE}"),
        (refuses(403), "HTTP 403 Forbidden; put a valid key"),
        (refuses(404), r"HTTP 404 Not Found; correct the model's name or base_url"),
        (refuses(400), "HTTP 400 Bad Request; correct base_url, model or temperature"),
        (refuses(429), "HTTP 429 Too Many Requests; lower concurrency"),
        (refuses(503), "HTTP 503 Service Unavailable; look at the server's log"),
        (refuses(302, Location="/x"), "HTTP 302 Found; correct base_url"),
        ((200, {}, b"<html>\n"), "no chat completion .JSONDecodeError in b'<html>"),
        (says("It\ndepends"), r"must say yes or no, not 'It\\ndepends'"),
    ],
)
def test_check_names_what_is_wrong_at_once(server, config, reply, message):
    server.reply = lambda p, n: reply
    with pytest.raises(judge.JudgeError, match=message) as caught:
        judge.check(config)
    assert str(caught.value).startswith(f"judge 'm' at {server.url}: ")
    assert "\n" not in str(caught.value) and len(server.requests) == 1


def test_check_names_a_refused_connection(config, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        refused = dataclasses.replace(config, base_url=url)
        with pytest.raises(judge.JudgeError, match="ConnectionRefusedError") as caught:
            judge.check(refused)
    assert url in str(caught.value) and "start the server" in str(caught.value)
    assert "\n" not in str(caught.value)


# Pure parts


@pytest.mark.parametrize(
    "change, message",
    [
        ({"base_url": "localhost:8000/v1"}, "must begin with http:// or https://"),
        ({"base_url": ""}, "base_url='' must begin with http://"),
        ({"base_url": "http://"}, "must begin with http:// or https:// and a host"),
        ({"base_url": "http://h:port/v1"}, "must begin with http:// or https:// and a"),
        ({"base_url": "http://me:pw@h/v1"}, "base_url for h must hold no credentials"),
        ({"base_url": "http://h/v1?key=pw"}, "base_url for h must hold no credentials"),
        ({"model": ""}, "model='' must name a model"),
        ({"concurrency": 0}, "concurrency=0 must be at least 1"),
        ({"retries": -1}, "retries=-1 must be at least 0"),
        ({"timeout_s": 0}, "timeout_s=0 must be at least 0.01"),
        ({"backoff_s": float("nan")}, "backoff_s=nan must be 0 or"),
    ],
)
def test_bad_configs_are_refused(config, change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        dataclasses.replace(config, **change)
    assert "pw" not in str(caught.value)
    assert dataclasses.replace(config, base_url="http://[::1]:8000/v1")


def test_a_proxy_that_swallows_a_judge_on_this_machine_is_named(server, monkeypatch):
    """Its answers look like the judge's own."""
    proxy = server.url.removesuffix("/v1").replace("http://", "http://user:secret@")
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "example.org")
    cfg = judge.JudgeConfig("http://localhost:9/v1", "m", 1, 0, 5.0)
    server.reply = lambda prompt, number: refuses(502)
    with pytest.raises(judge.JudgeError, match="through the proxy") as caught:
        judge.check(cfg)
    message = str(caught.value)
    assert "put localhost into no_proxy" in message and "http_proxy" in message
    assert "secret" not in message and "\n" not in message
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(judge.JudgeError, match="no connection") as caught:
        judge.check(cfg)
    assert "proxy" not in str(caught.value)
