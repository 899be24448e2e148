"""The benchmark's modules of the few-shot round, and a round of two made-up tasks."""

import contextlib
import importlib
import types

import pytest

MODULES = (
    "common",
    "floor",
    "round_phases",
    "arc_workload",
    "arc_task",
    "arc_phases",
    "arc_plan",
    "arc_round",
)
SCALE = {"tasks": 1, "edits": 4, "heldout_tasks": 1, "heldout_edits": 2}


@contextlib.contextmanager
def modules(root):
    """The modules, which find each other as they do when run, as one namespace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield types.SimpleNamespace(**{n: importlib.import_module(n) for n in MODULES})


def made_up(bench):
    """Lengths of one task to learn from and one held out, written by hand."""

    def task(name, most):
        lines = [[20, 5, 2], [60, 9, most]]
        return {
            "id": name,
            "propose_prompt": 40,
            "views": [[30, 5, 2], [50, 7, 1]],
            "datasets": {key: lines for key in bench.arc_workload.KEYS},
        }

    parse = bench.arc_workload.parse
    return bench.arc_workload.Workload(parse([task("a", 1)]), parse([task("b", 6)]))


def settings(bench, **changes):
    """Those of configs/arc.py, for a few edits of these two tasks."""
    few = {f"scale.{name}": value for name, value in SCALE.items()}
    return bench.arc_task.settings(few | changes)


def make(bench, *, configuration="random", seed=0, **changes):
    """A round of these two tasks."""
    exp = settings(bench, **changes)
    tasks = bench.arc_task.lengths(made_up(bench), exp)
    return bench.arc_task.make(
        exp, tasks, configuration=configuration, vocab=50, seed=seed
    )
