"""The sweep of the page on outputs, as printed, on runs of seconds."""

import re
import subprocess
import sys

import pages
import pytest

pytestmark = pytest.mark.slow


def recipe():
    (block,) = [
        block
        for block in pages.read("docs/outputs.md").fenced("sh")
        if block.startswith("for rate in")
    ]
    return block


def test_the_sweep_ends_in_one_page_with_intervals_over_seeds(tmp_path, child_env):
    config = pages.ROOT / "configs" / "tiny.py"
    small = recipe().replace("configs/tiny.py", f"{config}:debug")
    # Two rates and two seeds do.
    small = small.replace("3e-3 1e-2 3e-2", "1e-2 3e-2").replace("0 1 2", "0 1")
    small = small.replace("python -m", f"{sys.executable} -m")
    assert small.count(":debug") == 1 and "0 1;" in small
    subprocess.run(
        ["bash", "-euc", f"mkdir -p runs\n{small}"],
        cwd=tmp_path,
        env=child_env,
        check=True,
        timeout=1800,
    )
    page = (tmp_path / "runs" / "sweep.md").read_text()
    assert "| rate3e-2-seed1 | 0.03 | 1 | 1 |" in page
    ladder = page.partition("## Ladder over seeds")[2].partition("\n## ")[0]
    assert "| seeds | 2 | 2 |" in ladder
    number = r"-?\d\.\d{3}"
    span = rf"{number} \({number} to {number}\)"
    assert re.search(rf"^\| self\\_edits \| {span} \| {span} \|$", ladder, re.M)
    assert "Ladder over seeds" in (tmp_path / "runs" / "sweep.html").read_text()
