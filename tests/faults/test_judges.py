"""Judges that hang, drip, refuse, talk nonsense or vanish in the middle of a run."""

import contextlib
import http.server
import json
import threading
import time

import faults
import pytest
import tiny_model

FAULTS = ["hang", "drip", "429", "garbage", "vanish"]
pytestmark = pytest.mark.slow


class Judge(http.server.ThreadingHTTPServer):
    """A coin by the question; from `bad_after` answers on it does as `mode` says."""

    daemon_threads = True
    mode, bad_after = "good", 0

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.judged: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        trial = "clear sky" in text
        good = self.server.mode == "good" or len(self.server.judged) < (
            self.server.bad_after
        )
        with contextlib.suppress(OSError):
            if not (trial or good):
                self.misbehave()
                return
            coin = tiny_model.toss([(text, "", "")])[0] or trial
            self.say(200, {"choices": [{"message": {"content": yes_no(coin)}}]})
            if not trial:
                self.server.judged.append(text)

    def misbehave(self):
        match self.server.mode:
            case "hang":
                time.sleep(60)
            case "drip":
                self.send_response(200)
                self.end_headers()
                for _ in range(600):
                    self.wfile.write(b" ")
                    time.sleep(0.1)
            case "429":
                self.say(429, {}, retry="0")
            case "garbage":
                self.say(200, {"choices": [{"message": {"content": "\x00 perhaps"}}]})
            case "vanish":
                self.connection.close()

    def say(self, status, value, retry=None):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if retry is not None:
            self.send_header("Retry-After", retry)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def yes_no(coin):
    return "yes" if coin else "no"


@pytest.fixture(scope="module")
def judge():
    server = Judge()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def runs(judge, tmp_path_factory, child_env):
    """Runs that this judge grades, and the unbroken one."""
    model = tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")
    folder = tmp_path_factory.mktemp("judged")
    made = faults.runs("rounds", folder, model, child_env)
    values = tiny_model.values(
        model,
        **faults.ROUNDS,
        grade__name="judge",
        grade__max_missing=0.02,
        grade__judge__base_url=f"http://127.0.0.1:{judge.server_port}/v1",
        grade__judge__concurrency=2,
        grade__judge__retries=1,
        grade__judge__timeout_s=1.0,
        grade__judge__backoff_s=0.0,
    )
    (folder / "config.json").write_text(json.dumps(values))
    assert made.go(folder / "unbroken")
    return made


@pytest.mark.parametrize("mode", FAULTS)
@pytest.mark.parametrize("bad_after", [0, 3])
def test_a_judge_that_fails_ends_the_run_in_one_line(
    judge, runs, mode, bad_after, tmp_path
):
    judge.judged.clear()
    judge.mode, judge.bad_after = mode, bad_after
    once, before = runs.counts()[0], len(runs.counts())
    process = runs.start(tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    *warnings, last = faults.spoken(err)
    assert last.startswith("error: ") and "judgements could not be had" in last
    assert all("could not be had" in line for line in warnings), err
    judge.mode = "good"
    assert runs.go(tmp_path)
    faults.assert_same(tmp_path, runs.folder / "unbroken")
    # No verdict was asked for twice, and no adapter trained twice.
    assert len(judge.judged) == len(set(judge.judged))
    told = runs.counts()[before:]
    for name in ("adapters", "imitated"):
        assert sum(row[name] for row in told) == once[name]
