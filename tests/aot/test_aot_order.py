"""Nothing that trains adds floating-point numbers in an order of the device's own.

Needs jax's CUDA plugin and libtpu, no device: pytest -m aot tests/aot/test_aot_order.py
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.aot

PROGRAMS = {
    *("packed", "packed_chunks", "packed_float8", "packed_tiles", "packed_extended"),
    *("packed_taught", "teacher", "influence", "full", "merge"),
    *("log_probs", "step_dpo", "step_grpo"),
}


@pytest.mark.parametrize("target", ["h200", "v5e"])
def test_no_program_has_a_scatter_without_an_order(target, root):
    done = subprocess.run(
        [sys.executable, str(root / "tests" / "aot" / "compile_order.py"), target],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found == {name: [] for name in PROGRAMS}
