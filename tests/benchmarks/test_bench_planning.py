"""Planning on the host: what is counted, and the committed figures."""

import importlib
import json

import pytest

from seal_jax.training import plan


@pytest.fixture(scope="module")
def planning(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("planning")


def test_counts_are_those_of_the_plans_of_all_pools(planning):
    row = planning.measure(8, pool=5)
    jobs = list(planning.jobs(8))
    assert len({job.seed for job in jobs}) == 8
    steps = []
    for pool in (jobs[:5], jobs[5:]):
        needs = [plan.needs(job, planning.PLAN) for job in pool]
        steps.append(len(list(plan.schedule(needs, planning.PLAN))))
    assert (row["pools"], row["adapters"], row["passages"]) == (2, 8, 2)
    assert row["global_steps"] == sum(steps)
    assert row["adapter_steps"] == sum(job.total for job in jobs)
    assert row["blocks"] == sum(-(-n // 64) for n in steps)
    assert set(row["cpu_seconds"]) == set(planning.PARTS)
    assert min(row["cpu_seconds"].values()) >= 0
    assert row["cpu_seconds"]["first"] <= row["cpu_seconds"]["blocks"]


def test_jobs_start_again_with_the_published_ones(planning):
    first, *_, again = planning.jobs(751)
    assert first.lines == again.lines and first.seed != again.seed


def test_the_command_writes_what_it_prints(planning, tmp_path, capsys):
    out = tmp_path / "planning.json"
    args = ["--adapters", "3", "4", "--pool", "4", "--out", str(out)]
    assert planning.main(args) == 0
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert json.loads(last) == json.loads(out.read_text())
    assert [row["adapters"] for row in json.loads(last)["rows"]] == [3, 4]


@pytest.mark.parametrize("args", [["--adapters", "0"], ["--pool", "0"]])
def test_nothing_to_plan_is_refused(planning, args, capsys):
    with pytest.raises(SystemExit):
        planning.main(args)
    assert "must be at least 1" in capsys.readouterr().err


def test_the_committed_figures_are_linear(root):
    file = root / "benchmarks/results/cpu-2/planning.json"
    few, many = json.loads(file.read_text())["rows"]
    assert (few["adapters"], many["adapters"]) == (10_000, 100_000)
    for name in ("needs", "schedule", "blocks", "choose"):
        ratio = many["cpu_seconds"][name] / few["cpu_seconds"][name]
        assert 5 < ratio < 20
