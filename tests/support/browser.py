"""A headless Chromium, where there is one: what a page does when it is opened."""

import contextlib
import http.server
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator

import pytest

# Each tries to reach {url}, or to mark the page.
PAYLOADS = (
    '<script>document.documentElement.dataset.pwned = "1"</script>',
    "<script src={url}/script></script>",
    "<img src={url}/image onerror='document.documentElement.dataset.pwned=2'>",
    '"><svg onload="document.documentElement.dataset.pwned=3">',
    "'><iframe src={url}/frame></iframe>",
    "</style><style>@import '{url}/style';</style>",
    "</pre></title></textarea><link rel=stylesheet href={url}/link>",
    "<a href='javascript:document.documentElement.dataset.pwned=4' autofocus>x</a>",
    "]]><b style='background:url({url}/css)'>&lt;script&gt;",
    "<meta http-equiv=refresh content='0;url={url}/refresh'>",
    "[x](javascript:alert(1)) ![x]({url}/markdown)",
)


def found() -> str:
    """The browser's path; skips the test without one."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no chromium here; apt-get install chromium")


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """The URL of a server, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def opened(browser: str, url: str, *, wait_ms: int = 2000) -> str:
    """The page's DOM, as HTML, after its scripts had time to run."""
    with tempfile.TemporaryDirectory() as home:
        command = [
            browser,
            "--headless",
            "--no-sandbox",  # As root, as in a container.
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={home}",
            f"--virtual-time-budget={wait_ms}",
            "--dump-dom",
            url,
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "HOME": home},
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
