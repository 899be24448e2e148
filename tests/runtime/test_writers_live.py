"""The real packages, kept on this machine: W&B offline, and trackio's own files.

They are extras: `uv sync --extra wandb --extra trackio` brings them.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

KEY = "abcdef0123456789abcdef0123456789abcdef01"
RUN = """
import sys
from pathlib import Path
from seal_jax.runtime import metrics, writers

workdir, name, begin, end = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
watch = writers.WatchConfig((name,), "seal-test")
writers.check(watch)
config = {"seed": 1, "ladder": ("base",), "select": {"threshold": None}}
with metrics.Metrics(workdir, watch=watch, config=config) as log:
    for step in range(begin, end):
        log.log(step, {"adapt/rate": step / 2, "adapt/odd": float("nan")})
    log.log(0, {"ladder/base": 0.25})
"""


@pytest.fixture
def run(tmp_path, child_env):
    def start(name, begin, end):
        work = tmp_path / "run"
        work.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-c", RUN, str(work), name, str(begin), str(end)],
            env=child_env
            | {
                "HOME": str(tmp_path / "home"),
                "WANDB_MODE": "offline",
                "WANDB_API_KEY": KEY,
                "TRACKIO_DIR": str(tmp_path / "trackio"),
                "PYTHONWARNINGS": "error",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    (tmp_path / "home").mkdir()
    return start


def said(done, name):
    """The one line that a start prints."""
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"watch: {name}: ")
    return line


def test_wandb_offline_keeps_one_run_and_no_key(run, tmp_path):
    pytest.importorskip("wandb")
    first, second = (said(run("wandb", *steps), "wandb") for steps in ((0, 5), (3, 8)))
    assert "wandb sync " in first and first != second
    state = json.loads((tmp_path / "run" / "writers.json").read_text())["wandb"]
    kept = sorted((tmp_path / "run").glob(f"wandb/offline-*/run-{state['id']}.wandb"))
    assert len(kept) == 2 and state["rows"] == 9
    # The axis of a family stands beside its values, in both parts.
    assert all(b"adapt/step" in file.read_bytes() for file in kept)
    texts = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert not any(KEY.encode() in text for text in texts)


def test_trackio_keeps_one_run_without_double_points(run, tmp_path, child_env):
    pytest.importorskip("trackio")
    assert said(run("trackio", 0, 5), "trackio") == said(
        run("trackio", 3, 8), "trackio"
    )
    code = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage; "
        "(run,) = trackio.Api().runs('seal-test'); "
        "logs = SQLiteStorage.get_logs('seal-test', run.name); "
        "print(json.dumps([run.config['seed'], logs], default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=child_env | {"TRACKIO_DIR": str(tmp_path / "trackio")},
        capture_output=True,
        text=True,
        check=True,
    )
    seed, history = json.loads(done.stdout)
    rates = [row["adapt/rate"] for row in history if "adapt/rate" in row]
    assert seed == 1 and rates == [step / 2 for step in range(8)]
    assert [row["ladder/base"] for row in history if "ladder/base" in row] == [0.25]


def test_without_a_login_the_start_says_so(child_env, tmp_path):
    pytest.importorskip("wandb")
    code = (
        "from seal_jax.runtime import writers; "
        "writers.check(writers.WatchConfig(('wandb',), 'seal'))"
    )
    env = {k: v for k, v in child_env.items() if not k.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env | {"HOME": str(tmp_path), "NETRC": os.devnull},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert "run `wandb login`, set WANDB_API_KEY" in done.stderr.splitlines()[-1]
