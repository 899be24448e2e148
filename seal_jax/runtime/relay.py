"""A relay in front of jax's coordinator, which hides from jax that it has died.

jax's client aborts its process, in twenty lines of C++, the moment it loses the
coordinator, which is the first process of a run. Behind a relay of its own process it
goes on waiting, and `peers` has the time to end the process in one line.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_RETRY_S = 0.2
_LOCAL, _BARE = "127.0.0.1", "no_grpc_proxy"


@contextlib.contextmanager
def clients_behind_relays(
    module: Any, name: str, *, lost: Callable[[], None]
) -> Iterator[None]:
    """Inside, what `module.name(address, index, ...)` makes connects through a relay.

    That of the first process is in the coordinator's own, and needs none. `lost` is
    called, in a thread, each time the coordinator closes a connection.
    """
    make: Callable[..., Any] = getattr(module, name)

    def relayed(address: str, index: int, **kwargs: Any) -> Any:
        return make(start(address, lost) if index else address, index, **kwargs)

    setattr(module, name, relayed)
    try:
        yield
    finally:
        setattr(module, name, make)


def start(address: str, lost: Callable[[], None]) -> str:
    """The address of a new relay to `address`, which need not be there yet."""
    # gRPC would send even this through a proxy that the environment names.
    bare = os.environ.get(_BARE) or os.environ.get("no_proxy") or ""
    os.environ[_BARE] = f"{bare},{_LOCAL}".removeprefix(",")
    server = socket.create_server((_LOCAL, 0))
    host, _, port = address.rpartition(":")
    there = (host.strip("[]"), int(port))
    threading.Thread(target=_accept, args=(server, there, lost), daemon=True).start()
    return f"{_LOCAL}:{server.getsockname()[1]}"


def _accept(
    server: socket.socket, there: tuple[str, int], lost: Callable[[], None]
) -> None:
    while True:
        near, _ = server.accept()
        threading.Thread(target=_join, args=(near, there, lost), daemon=True).start()


def _join(
    near: socket.socket, there: tuple[str, int], lost: Callable[[], None]
) -> None:
    while True:
        try:
            far = socket.create_connection(there)
            break
        except OSError:
            time.sleep(_RETRY_S)  # The client's own patience has the limit.
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_copy, args=(near, far), daemon=True).start()
    _copy(far, near)
    lost()
    # The coordinator is gone, and `near` stays open: see the module.
    threading.Event().wait()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
