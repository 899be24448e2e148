"""How the processes of a run end together: each hears within moments how another ended.

Every process holds a connection to the first one. The kernel closes it when a process
is killed, wherever its threads hang, so nobody waits for the dead in a collective,
where no exception reaches; and jax, which would notice later and end in many lines,
does not come to it. What one process has to say, that it failed or was stopped, goes
through the first one to all.
"""

import contextlib
import json
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from seal_jax.runtime import interrupts

# Seconds: for all to connect; for the others to have heard of an end.
_CONNECT_S, _HEARD_S = 60.0, 5.0
# Seconds of silence after which a connection is tried, and between tries.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
# The reason of a process that said none.
GONE = (
    "it was killed, or its host is gone; start all processes again with the same "
    "command to continue"
)
_LONGEST_REASON = 2000
_BYE = b"bye\n"


class End(NamedTuple):
    """How a process ended: which one, in what words, with which exit status."""

    process: int
    reason: str
    status: int

    @property
    def line(self) -> str:
        """For the other processes to end in."""
        if self.status > 128:
            return f"{interrupts.CONTINUES} (process {self.process} was told to stop)"
        return f"error: process {self.process}: {self.reason}"


class Peers:
    """The connections of one process, and the thread that listens to them."""

    def __init__(self, index: int, connections: dict[int, socket.socket]):
        self.index = index
        self._connections = connections
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._told = False
        for sock in connections.values():
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    option = getattr(socket, name)
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def tell(self, end: End) -> None:
        """Tells the others how it ends; waits until they have heard, or a moment."""
        with self._lock:
            if self._told or self._over.is_set():
                return
            self._told = True
        data = json.dumps(end).encode() + b"\n"
        for sock in self._connections.values():
            with contextlib.suppress(OSError):
                sock.sendall(data)
        until = time.monotonic() + _HEARD_S
        for sock in self._connections.values():
            # Who has heard ends, and so closes the connection.
            with contextlib.suppress(OSError):
                while (left := until - time.monotonic()) > 0:
                    sock.settimeout(left)
                    if not sock.recv(4096):
                        break

    def close(self) -> None:
        """The run is over in all processes: they may go."""
        self._over.set()
        for sock in self._connections.values():
            with contextlib.suppress(OSError):
                sock.sendall(_BYE)

    def _listen(self) -> None:
        heard = dict.fromkeys(self._connections, b"")
        with selectors.DefaultSelector() as selector:
            for process, sock in self._connections.items():
                selector.register(sock, selectors.EVENT_READ, process)
            while selector.get_map() and not self._over.is_set():
                for key, _ in selector.select(timeout=0.5):
                    try:
                        data = self._connections[key.data].recv(4096)
                    except OSError:
                        data = b""
                    if self._told or self._over.is_set():
                        return
                    heard[key.data] += data
                    if heard[key.data] == _BYE:
                        selector.unregister(key.fileobj)
                    elif not data or b"\n" in data:
                        self._end(_end_of(key.data, heard[key.data]))

    def _end(self, end: End) -> None:
        """Ends this process, since another has; the first one tells the rest."""
        if self.index == 0:
            self.tell(end)
        interrupts.end(end.status, end.line)


def _end_of(process: int, heard: bytes) -> End:
    line, found, _ = heard.partition(b"\n")
    if found:
        match json.loads(line):
            case [int(who), str(reason), int(status)]:
                return End(who, reason, status)
    return End(process, GONE, 1)


def end_of_error(process: int, reason: str) -> End:
    """The end of a process by an error."""
    return End(process, reason[:_LONGEST_REASON], 1)


def end_of_signal(process: int, status: int) -> End:
    """The end of a process by a signal."""
    return End(process, "stopped", status)


@contextlib.contextmanager
def connected(
    index: int,
    count: int,
    host: str,
    *,
    publish: Callable[[str], None],
    published: Callable[[], str],
) -> Iterator[Peers]:
    """The peers of process `index` of `count`, until the block ends in order.

    Args:
      index: this process; the first one, 0, listens.
      count: how many there are.
      host: of the first one.
      publish: hands a word from the first one to all.
      published: that word; waits for it.

    Raises:
      ValueError: they do not reach each other.
    """
    if index == 0:
        peers = Peers(0, _accept(count, publish))
    else:
        port, token = published().split()
        peers = Peers(index, {0: _connect(host, int(port), token, index)})
    words = lambda status: peers.tell(end_of_signal(index, status))
    with interrupts.told(words):
        yield peers


def _accept(count: int, publish: Callable[[str], None]) -> dict[int, socket.socket]:
    """A connection from each of the others."""
    token = secrets.token_hex(16)
    several = socket.has_dualstack_ipv6()
    address = ("::" if several else "", 0)
    family = socket.AF_INET6 if several else socket.AF_INET
    accepted: dict[int, socket.socket] = {}
    until = time.monotonic() + _CONNECT_S
    with socket.create_server(address, family=family, dualstack_ipv6=several) as server:
        publish(f"{server.getsockname()[1]} {token}")
        while len(accepted) < count - 1:
            try:
                server.settimeout(max(until - time.monotonic(), 0.001))
                sock, _ = server.accept()
            except TimeoutError:
                if time.monotonic() < until:
                    continue
                missing = sorted(set(range(1, count)) - set(accepted))
                raise ValueError(
                    f"process {missing[0]} did not connect to process 0 within "
                    f"{_CONNECT_S:.0f} s; let the hosts reach each other on all ports"
                ) from None
            said, _, who = _greeting(sock).partition(b" ")
            if secrets.compare_digest(said, token.encode()) and who.isdigit():
                accepted[int(who)] = sock
            else:
                sock.close()  # A stranger.
    return accepted


def _greeting(sock: socket.socket) -> bytes:
    """The first line, which a stranger may not send, or break off."""
    sock.settimeout(_HEARD_S)
    with contextlib.suppress(OSError), sock.makefile("rb") as lines:
        return lines.readline(100).strip()
    return b""


def _connect(host: str, port: int, token: str, index: int) -> socket.socket:
    try:
        sock = socket.create_connection((host, port), timeout=_CONNECT_S)
        sock.sendall(f"{token} {index}\n".encode())
    except OSError as error:
        raise ValueError(
            f"process {index} cannot reach process 0 at {host}:{port} ({error}); let "
            "the hosts reach each other on all ports"
        ) from None
    return sock
