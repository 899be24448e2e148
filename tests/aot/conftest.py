"""What tests of programs compiled ahead of time share."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def compiled_by(root, child_env):
    """Runs a script beside this file on targets; what it reported, by target.

    In a process of its own, since LLVM ends it on an instruction that it does not know.
    """

    def run(script, targets):
        done = subprocess.run(
            [sys.executable, root / "tests" / "aot" / script, *targets],
            env=child_env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return {report["target"]: report for report in found}

    return run
