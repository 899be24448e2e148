"""Requests to servers that take their time: each one ends."""

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.error

import pytest

from seal_jax.rewards import judge, wire

HEAD = b"HTTP/1.1 200 OK\r\n"
PIECE_S = 0.02


def dripping(begin, piece):
    """A reply that goes on with `piece` for good."""

    def reply(send):
        send(begin)
        while True:
            time.sleep(PIECE_S)
            send(piece)

    return reply


def in_pieces(data):
    def reply(send):
        for at in range(len(data)):
            time.sleep(0.001)
            send(data[at : at + 1])

    return reply


def silent(send):
    time.sleep(600)


# None of these is ever whole.
ENDLESS = {
    "nothing": silent,
    "status line": dripping(b"HTTP/1.1 200 O", b"K"),
    "headers": dripping(HEAD + b"X: ", b"x"),
    "continue": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "sized body": dripping(HEAD + b"Content-Length: 100000\r\n\r\n{", b" "),
    "open body": dripping(HEAD + b"\r\n{", b" "),
    "chunks": dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "chunk size": dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "only headers": dripping(HEAD + b"Content-Length: 9\r\n\r\n", b""),
}


@pytest.fixture
def serve(monkeypatch):
    """`serve(reply)` gives the address of a server whose connections do that."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    opened = []

    def answer(connection, reply):
        with contextlib.suppress(OSError):
            connection.recv(1 << 16)
            reply(connection.sendall)
            connection.shutdown(socket.SHUT_RDWR)

    def accept(server, reply):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                opened.append(connection)
                threading.Thread(
                    target=answer, args=(connection, reply), daemon=True
                ).start()

    def start(reply):
        server = socket.create_server(("127.0.0.1", 0))
        opened.append(server)
        threading.Thread(target=accept, args=(server, reply), daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"

    yield start
    for sock in opened:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def post(url, *, seconds=60.0, stop=None):
    limits = wire.Limits(seconds, stop or threading.Event())
    return wire.post(url, b"{}", {}, limits)


@pytest.mark.parametrize(
    "reply",
    [
        HEAD + b"Content-Length: 4\r\n\r\nwell",
        HEAD + b"\r\nwell",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nwe\r\n2\r\nll\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 4\r\n\r\nwell",
    ],
)
def test_a_reply_in_pieces_is_read_whole(serve, reply):
    assert post(serve(in_pieces(reply))) == b"well"


def test_a_refusal_keeps_its_status(serve):
    reply = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\n"
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(serve(dripping(reply, b" ")))
    with caught.value as error:
        assert (error.code, error.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_request_ends_at_its_deadline(serve, kind):
    # `urllib` and its timeout for each read would wait for all of these but two.
    with pytest.raises(TimeoutError, match=r"no whole reply in 0\.3 s"):
        post(serve(ENDLESS[kind]), seconds=0.3)


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_request_ends_with_the_run(serve, kind):
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(ConnectionAbortedError, match="stopped"):
        post(serve(ENDLESS[kind]), seconds=600.0, stop=stop)


def test_an_endless_reply_is_cut(serve):
    def reply(send):
        send(HEAD + b"\r\n")
        while True:
            send(b"x" * 65536)

    assert post(serve(reply)) == b"x" * (1 << 20)


def test_a_server_that_hangs_up_is_an_error(serve):
    with pytest.raises((OSError, http.client.HTTPException)):
        post(serve(lambda send: None))


# Through the judge


def config(url, **changes):
    return judge.JudgeConfig(
        **{
            "base_url": url,
            "model": "m",
            "concurrency": 2,
            "retries": 1,
            "timeout_s": 0.2,
            "api_key_env": "JUDGE_TEST_KEY",
            "backoff_s": 0.0,
        }
        | changes
    )


@pytest.mark.parametrize("kind", ["headers", "open body", "nothing"])
def test_a_dripping_judge_gives_no_verdict_and_ends(serve, kind, tmp_path, caplog):
    cfg = config(serve(ENDLESS[kind]))
    items = [(f"Q{i}?", "gold", "answer") for i in range(40)]
    assert judge.grade(items, cfg, tmp_path / "judge.jsonl") == [None] * 40
    (warning,) = caplog.messages
    assert "no whole reply in 0.2 s" in warning and "raise timeout_s" in warning
    with pytest.raises(judge.JudgeError, match=r"no whole reply in 0\.2 s"):
        judge.check(cfg)


def test_all_requests_end_with_the_run(serve, tmp_path):
    """One verdict comes; the error at storing it leaves no thread behind."""
    said = json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode()
    first = threading.Event()

    def reply(send):
        if first.is_set():
            ENDLESS["open body"](send)
        first.set()
        send(HEAD + b"\r\n" + said)

    class Over(Exception):
        pass

    def over(key, meaning):
        raise Over

    cfg = config(serve(reply), concurrency=8, timeout_s=600.0)
    with pytest.raises(Over):
        judge.ask_all(
            {str(i): str(i) for i in range(20)},
            cfg,
            parse=judge.parse,
            wanted="say yes or no",
            keep=over,
        )
    pool = [t for t in threading.enumerate() if "ThreadPoolExecutor" in t.name]
    for thread in pool:
        thread.join(60)
        assert not thread.is_alive()


def test_pauses_between_tries_are_bounded(monkeypatch):
    class Stop(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            return False

    def refused(*args):
        raise ConnectionRefusedError

    pauses = []
    monkeypatch.setattr(wire, "post", refused)
    cfg = config("http://127.0.0.1:9/v1", retries=20, backoff_s=1.0)
    said, _ = judge._ask("Q", cfg, {}, Stop(), judge.parse, "say yes or no")
    assert said is None and len(pauses) == 20
    assert pauses[0] < 2 and max(pauses) == 120
