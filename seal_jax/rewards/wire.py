"""One POST request that ends: by its reply, its deadline, or the end of the run.

urllib's own timeout is for each read, so a server that sends a byte now and then holds
a request for good. Here every read, of headers and body, waits for what is left of one
deadline, and in steps, so that it also sees that the run has ended.
"""

import http.client
import io
import socket
import threading
import time
import urllib.parse
import urllib.request
from typing import Any, cast

# Seconds: how late a request sees that the run has ended.
_STEP_S = 0.2
_LONGEST_REPLY = 1 << 20


class Limits:
    """When a request is over: `seconds` from now, or once `stop` is set."""

    def __init__(self, seconds: float, stop: threading.Event):
        self.seconds, self._stop = seconds, stop
        self._until = time.monotonic() + seconds

    def step(self) -> float:
        """Seconds that a read may take before it asks again.

        Raises:
          TimeoutError: the deadline is over.
          ConnectionAbortedError: `stop` is set.
        """
        if self._stop.is_set():
            raise ConnectionAbortedError("stopped")
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole reply in {self.seconds:g} s")
        return min(left, _STEP_S)


def post(url: str, data: bytes, headers: dict[str, str], limits: Limits) -> bytes:
    """The reply's body, up to a mebibyte; redirects are not followed.

    Raises:
      urllib.error.HTTPError: a status that is no success; its body is not read.
      OSError, http.client.HTTPException: no connection, or no whole reply in time.
    """
    request = urllib.request.Request(url, data=data, headers=headers)
    opener = urllib.request.build_opener(_NoRedirect, _Http(limits), _Https(limits))
    with opener.open(request, timeout=limits.seconds) as response:
        return response.read(_LONGEST_REPLY)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to whatever host it names."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class _Reader(io.RawIOBase):
    """What comes from a socket, within limits."""

    def __init__(self, sock: socket.socket, limits: Limits):
        # A reader of its own would keep the connection open behind the socket's back.
        self._held = sock.makefile("rb", buffering=0)
        self._sock, self._limits = sock, limits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while True:
            self._sock.settimeout(self._limits.step())
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                continue

    def close(self) -> None:
        self._held.close()
        super().close()


class _Limited:
    """A socket as `http.client.HTTPResponse` wants it: only something to read."""

    def __init__(self, sock: socket.socket, limits: Limits):
        self._sock, self._limits = sock, limits

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode
        return io.BufferedReader(_Reader(self._sock, self._limits))


def _limit(connection: http.client.HTTPConnection, limits: Limits) -> None:
    """Lets the connection's replies be read within limits."""

    def response(sock: socket.socket, *args: Any, **kwargs: Any):
        limited = cast(socket.socket, _Limited(sock, limits))
        return http.client.HTTPResponse(limited, *args, **kwargs)

    connection.response_class = cast(type[http.client.HTTPResponse], response)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limits: Limits):
        super().__init__()
        self._limits = limits

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **kwargs: Any) -> http.client.HTTPConnection:
            made = http.client.HTTPConnection(host, **kwargs)
            _limit(made, self._limits)
            return made

        return self.do_open(connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, limits: Limits):
        super().__init__()
        self._limits = limits

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **kwargs: Any) -> http.client.HTTPSConnection:
            made = http.client.HTTPSConnection(host, **kwargs)
            _limit(made, self._limits)
            return made

        return self.do_open(connection, req)


def through(url: str) -> str:
    """What to add to a failure, where the environment sends requests through a proxy.

    A proxy answers for servers that it cannot reach, such as one on this machine, with
    statuses and pages of its own. Its address is named without its credentials.
    """
    parts = urllib.parse.urlsplit(url)
    proxy, host = urllib.request.getproxies().get(parts.scheme), parts.hostname
    if not proxy or not host or urllib.request.proxy_bypass(host):
        return ""
    # With or without a scheme before its host.
    name = proxy.rpartition("@")[2].rpartition("//")[2].rstrip("/")
    return (
        f"; asked through the proxy {name[:60]!r} of {parts.scheme}_proxy: put {host} "
        "into no_proxy to go past it"
    )
