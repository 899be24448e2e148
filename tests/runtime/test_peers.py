"""Processes that end: the others, which hang, end too, in one line."""

import concurrent.futures
import functools
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from seal_jax.runtime import peers, relay

PROGRAM = """
import pathlib, sys, time
from seal_jax.runtime import interrupts, peers
interrupts.install(interrupts.CONTINUES)
index, folder, act = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
word = folder / "word"

def publish(text):
    (folder / "new").write_text(text)
    (folder / "new").rename(word)

def published():
    while not word.exists():
        time.sleep(0.01)
    return word.read_text()

with peers.connected(
    index, 3, "127.0.0.1", publish=publish, published=published
) as others:
    print("up", flush=True)
    if act == "fail":
        while not (folder / "go").exists():
            time.sleep(0.01)
        others.tell(peers.end_of_error(index, "out of luck"))
        interrupts.end(1, "own words")
    if act != "over":
        time.sleep(600)
    others.close()
"""


@pytest.fixture
def three(tmp_path, child_env):
    """`three(who, act)` starts three processes, that one with an act of its own."""
    started = []

    def start(who, act, rest="hang"):
        for i in range(3):
            own = act if i == who else rest
            command = [sys.executable, "-c", PROGRAM, str(i), str(tmp_path), own]
            started.append(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=child_env,
                )
            )
        for process in started:
            assert process.stdout.readline() == "up\n"
        (tmp_path / "go").touch()
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ends(started):
    errs = [process.communicate(timeout=300)[1] for process in started]
    return [(p.returncode, err) for p, err in zip(started, errs, strict=True)]


@pytest.mark.parametrize("said", [b"\xff\xfe 1\n", b"caf\xc3\xa9 1\n", b"GET /", b""])
def test_a_stranger_at_the_door_is_sent_away(said):
    words = queue.SimpleQueue()
    accept = functools.partial(peers._accept, 2, words.put)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accept)
        port, token = words.get().split()
        address = ("127.0.0.1", int(port))
        stranger = socket.create_connection(address)
        stranger.sendall(said)
        # A reset connection, not one closed in order.
        stranger.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        stranger.close()
        with socket.create_connection(address) as friend:
            friend.sendall(f"{token} 1\n".encode())
            for sock in accepted.result(timeout=30).values():
                sock.close()
        assert list(accepted.result()) == [1]


@pytest.mark.parametrize("who", range(3))
def test_the_others_name_the_one_that_was_killed(three, who):
    started = three(who, "hang")
    started[who].kill()
    found = ends(started)
    assert found.pop(who) == (-signal.SIGKILL, "")
    for status, err in found:
        assert status == 1 and err.count("\n") == 1
        assert err.startswith(f"error: process {who}: it was killed")
        assert "the same command to continue" in err


@pytest.mark.parametrize("who", range(3))
def test_the_others_say_why_one_failed(three, who):
    found = ends(three(who, "fail"))
    assert found.pop(who) == (1, "own words\n")
    assert found == [(1, f"error: process {who}: out of luck\n")] * 2


@pytest.mark.parametrize("who", range(3))
def test_a_signal_to_one_stops_all(three, who):
    started = three(who, "hang")
    started[who].send_signal(signal.SIGTERM)
    found, line = ends(started), "stopped; the same command continues"
    assert found.pop(who) == (143, f"{line}\n")
    assert found == [(143, f"{line} (process {who} was told to stop)\n")] * 2


def test_all_may_end_in_order(three):
    assert ends(three(0, "over", rest="over")) == [(0, "")] * 3


# The relay


def test_a_relay_carries_both_ways_and_hides_the_end():
    lost = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        host, _, port = relay.start(address, lost.set).rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as near:
            near.sendall(b"question")
            far, _ = server.accept()
            assert far.recv(8) == b"question"
            far.sendall(b"answer")
            assert near.recv(6) == b"answer"
            far.close()
            assert lost.wait(30)
            near.settimeout(0.1)
            with pytest.raises(TimeoutError):
                near.recv(1)


def test_a_relay_waits_for_who_is_not_there_yet():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    where = relay.start(f"127.0.0.1:{port}", lambda: None).rpartition(":")[2]
    with socket.create_connection(("127.0.0.1", int(where)), timeout=30) as near:
        near.sendall(b"early")
        time.sleep(0.05)
        with socket.create_server(("127.0.0.1", port)) as late:
            far, _ = late.accept()
            with far:
                assert far.recv(5) == b"early"
