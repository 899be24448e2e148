"""The packed engine of this tree against that of another revision, in turns.

Used by `inner_loop.py --against REV`. Both run their own `inner_loop.py` on the same
flags, each in a process of its own, one after the other and again: a machine that slows
down slows both. What they compile is kept between the turns.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

# Flags of the command that the other revision need not know, or that both get anew.
OWN_FLAGS = ("--against", "--repeats", "--engines", "--out", "--torch-python", "--peft")


def shared_flags(argv: Sequence[str]) -> list[str]:
    """`argv` without `OWN_FLAGS` and their values."""
    kept, skips = [], False
    for word in argv:
        name, equals, _ = word.partition("=")
        if name.startswith("--"):
            skips = name in OWN_FLAGS and not equals
            if name in OWN_FLAGS:
                continue
        elif skips:
            skips = False
            continue
        kept.append(word)
    return kept


def check(revision: str) -> None:
    """Refuses what git does not know.

    Raises:
      ValueError: see above.
    """
    verify = ["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    if subprocess.run(verify, cwd=common.ROOT, capture_output=True).returncode:
        raise ValueError(f"--against={revision} must be a revision that git knows")


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[tuple[Path, str]]:
    """A folder with that revision's files, and its full name; removed at the end.

    Raises:
      ValueError: git cannot do that.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        add = ["git", "worktree", "add", "--quiet", "--detach", str(tree), revision]
        done = subprocess.run(add, cwd=common.ROOT, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["(no message)"])[-1]
            raise ValueError(f"--against={revision}: git cannot check it out: {last}")
        try:
            head = ["git", "rev-parse", "HEAD"]
            name = subprocess.run(head, cwd=tree, capture_output=True, text=True)
            yield tree, name.stdout.strip()
        finally:
            remove = ["git", "worktree", "remove", "--force", str(tree)]
            subprocess.run(remove, cwd=common.ROOT, capture_output=True)


def once(tree: Path, flags: Sequence[str], cache: str) -> dict[str, Any]:
    """The result of the packed engine alone, one repeat, by the files of `tree`.

    Raises:
      ValueError: it failed.
    """
    script = str(tree / "benchmarks" / "inner_loop.py")
    command = [sys.executable, script, *flags, "--engines=", "--repeats=1", "--peft="]
    kept = {
        "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "kernels")]),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, env=os.environ | kept
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["(no message)"])[-1]
        raise ValueError(
            f"{shlex.join(command)}: exit status {done.returncode} must be 0: {last}"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(argv: Sequence[str], revision: str, *, repeats: int) -> dict[str, Any]:
    """How many times as fast this tree is as the other revision.

    Args:
      argv: the command's flags.
      revision: what git can check out.
      repeats: turns of each, after one that is not counted.

    Returns:
      `revision`; tokens of lines per second of each turn, `ours` and `theirs`; the
      median `ratio` of a turn's pair, with the `least` and the `most`.

    Raises:
      ValueError: see `checked_out` and `once`.
    """
    flags = shared_flags(argv)
    with checked_out(revision) as (tree, name), tempfile.TemporaryDirectory() as cache:
        ours, theirs = [], []
        for turn in range(repeats + 1):
            for where, rates in ((common.ROOT, ours), (tree, theirs)):
                rate = once(where, flags, cache)["tokens_per_s"]
                if turn:  # The first one compiled.
                    rates.append(rate)
    ratios = np.divide(ours, theirs)
    return {
        "revision": name,
        "ours": ours,
        "theirs": theirs,
        "ratio": float(np.median(ratios)),
        "least": float(ratios.min()),
        "most": float(ratios.max()),
    }
