"""A judge's key is found in nothing that is written, logged or said."""

import contextlib
import http.server
import io
import json
import logging
import threading
import traceback

import pytest

from seal_jax.rewards import judge

KEY = "sk-planted-7f3a9c51e2d84b60"
VARIABLE = "PLANTED_KEY"


def completion(text):
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


# What a server answers to the key it was sent: it repeats it wherever it can.
REPLIES = {
    "yes": (200, {}, completion(f"yes {KEY}")),
    "no verdict": (200, {}, completion(f"{'x' * 50} {KEY}")),
    "refusal": (
        200,
        {},
        json.dumps(
            {"choices": [{"message": {"content": None, "refusal": KEY}}]}
        ).encode(),
    ),
    "cut": (
        200,
        {},
        json.dumps(
            {"choices": [{"message": {"content": KEY}, "finish_reason": "length"}]}
        ).encode(),
    ),
    "no JSON": (200, {}, f"{'y' * 45}{KEY}".encode()),
    "odd content": (200, {}, completion({"key": KEY})),
    "401": (401, {"WWW-Authenticate": KEY}, KEY.encode()),
    "429": (429, {"Retry-After": KEY}, KEY.encode()),
    "500": (500, {"X-Key": KEY}, KEY.encode()),
    "reason": (599, {}, KEY.encode()),
    "bad status line": (None, {}, f"HTTP/9 {KEY}\r\n\r\n".encode()),
    "bad header": (None, {}, f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\nx".encode()),
    "length": (None, {}, f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode()),
    "chunks": (
        None,
        {},
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(),
    ),
    **{
        f"redirect {status}": (status, {"Location": "{other}"}, KEY.encode())
        for status in (301, 302, 303, 307, 308)
    },
}


@contextlib.contextmanager
def serving(handle):
    """The URL of a server that answers each request as `handle(request)` does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            handle(self)

        do_GET = do_POST

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def seen_elsewhere():
    """Requests at the server that redirects lead to."""
    return []


@pytest.fixture
def elsewhere(seen_elsewhere):
    def handle(request):
        seen_elsewhere.append(dict(request.headers))
        request.send_response(200)
        request.end_headers()

    with serving(handle) as url:
        yield url


@pytest.mark.parametrize("name", REPLIES)
def test_the_key_is_in_no_output(
    name, elsewhere, seen_elsewhere, tmp_path, caplog, monkeypatch, capfd
):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("SEAL_TRACEBACK", "1")
    caplog.set_level(logging.DEBUG)
    status, headers, body = REPLIES[name]
    sent = []

    def handle(request):
        sent.append(request.headers["Authorization"])
        request.rfile.read(int(request.headers["Content-Length"]))
        if status is None:
            request.wfile.write(body)
            request.close_connection = True
            return
        request.send_response(status, KEY if name == "reason" else None)
        for key, value in headers.items():
            request.send_header(key, value.replace("{other}", elsewhere))
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    said = io.StringIO()
    with serving(handle) as url:
        config = judge.JudgeConfig(
            f"{url}/v1", "m", 2, 1, 5.0, api_key_env=VARIABLE, backoff_s=0.001
        )
        said.write(repr(config))
        try:
            judge.check(config)
        except judge.JudgeError as error:
            said.write("".join(traceback.format_exception(error)))
        items = [(f"q{i}", "gold", f"answer {i}") for i in range(3)]
        said.write(repr(judge.grade(items, config, tmp_path / "cache.jsonl")))
    captured = capfd.readouterr()
    files = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    everything = said.getvalue() + caplog.text + captured.out + captured.err + files
    assert set(sent) == {f"Bearer {KEY}"}
    assert KEY not in everything and KEY[:12] not in everything
    assert seen_elsewhere == []
    assert (name == "yes") or "3 of 3 judgements could not be had" in everything


def test_a_key_that_cannot_be_sent_is_not_quoted(monkeypatch, tmp_path):
    for key in (f"{KEY}\n{KEY}", f"{KEY}\x7f", f"{KEY}\xe9"):
        monkeypatch.setenv(VARIABLE, key)
        config = judge.JudgeConfig(
            "http://127.0.0.1:9/v1", "m", 1, 0, 1.0, api_key_env=VARIABLE
        )
        with pytest.raises(judge.JudgeError, match=VARIABLE) as caught:
            judge.check(config)
        assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("place", ["{0}@", "user:{0}@"])
def test_a_key_in_the_url_is_refused_without_being_quoted(place):
    with pytest.raises(ValueError, match="must hold no credentials") as caught:
        judge.JudgeConfig(f"https://{place.format(KEY)}host/v1", "m", 1, 0, 1.0)
    assert KEY not in str(caught.value)
    for url in (f"https://host/v1?key={KEY}", f"https://host/v1#{KEY}"):
        with pytest.raises(ValueError, match="must hold no credentials") as caught:
            judge.JudgeConfig(url, "m", 1, 0, 1.0)
        assert KEY not in str(caught.value)
