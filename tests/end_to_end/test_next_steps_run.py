"""The commands that a run ends with work as they are printed."""

import json
import os
import subprocess
import sys

import pytest

# Starts jax four times.
pytestmark = pytest.mark.slow


def shell(command, folder):
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def printed(out):
    lines = out.splitlines()
    return [x.strip() for x in lines[lines.index("then try") + 1 :] if "  # " not in x]


def test_what_rounds_print_works_from_the_same_folder(tmp_path, pytestconfig):
    config = pytestconfig.rootpath / "configs/tiny.py"
    run = f"{sys.executable} -m seal_jax.train --config={config}:debug --workdir=run"
    export, generate, more = printed(shell(run, tmp_path))
    shell(export, tmp_path)
    assert (tmp_path / "run-adapter/adapter_config.json").is_file()
    assert shell(generate, tmp_path).strip()
    before = json.loads((tmp_path / "run/summary.json").read_text())
    out = shell(more, tmp_path)
    after = json.loads((tmp_path / "run/summary.json").read_text())
    assert len(after["rounds"]) == len(before["rounds"]) + 1
    assert printed(out)[-1].endswith("--more_rounds=2")
