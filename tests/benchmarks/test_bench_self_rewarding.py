"""Self-rewarding runs over seeds: what is read of each, and what is no such set."""

import importlib

import pytest
import reward_runs
import scipy.stats

from seal_jax.runtime import files


@pytest.fixture(scope="module")
def bench(root):
    """benchmarks/self_rewarding.py, which finds its neighbours as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("self_rewarding")


def run(path, *, seed, last, right, rule="dpo"):
    """Two rounds; in the second the own reward is right about a passage, or wrong."""
    path.mkdir()
    names = ("self_edits", "round_1", "round_2")
    means = dict(zip(names, (0.25, 0.5, last), strict=True))
    summary = {
        "ladder": [{"name": n, "mean": m} for n, m in means.items()],
        "items": [{"item": "p", **means}],
        "rounds": [
            {"round": r, "entropy": 1 / r, "diversity": {"distinct3": 0.5}}
            for r in (1, 2)
        ],
        "config_hash": "x",
        "adapters": 8,
    }
    files.write_json(path / "summary.json", summary)
    config = {"select": {"reward": "self_asked"}, "imitate": {"rule": rule}}
    files.write_json(path / "config.json", config | {"seed": seed})
    rows = [
        reward_runs.graded_row(
            "p", [grade] * 2, number=number, self_asked=[grade if ok else 1 - grade] * 2
        )
        for number, ok in ((1, True), (2, right))
        for grade in (0.25, 0.75)
    ]
    reward_runs.workdir(path, *rows)
    return str(path)


def test_figures_are_by_round_over_seeds(bench, tmp_path, capsys):
    paths = [
        run(tmp_path / "a", seed=0, last=0.5, right=True),
        run(tmp_path / "b", seed=1, last=1.0, right=False),
        run(tmp_path / "c", seed=1, last=0.25, right=True, rule="best"),
        run(tmp_path / "d", seed=0, last=0.25, right=True, rule="best"),
    ]
    found = bench.benchmark(bench.parse_args(paths))
    own = found["rows"]["self_asked, dpo"]
    assert [one["mean"] for one in own["score"]] == [0.25, 0.5, 0.75]
    half = scipy.stats.t.ppf(0.975, 1) * 0.25
    assert own["score"][2]["half"] == pytest.approx(half)
    assert [one["mean"] for one in own["entropy"]] == [1.0, 0.5]
    # Of the best edit's lead over the mean all, and in one run of two the opposite.
    for name in ("self_asked", "self_asked, other seeds"):
        captured = own[f"captured by {name}"]
        assert [one["values"] for one in captured] == [(1.0, 1.0), (1.0, -1.0)]
    assert found["drift"]["self_asked, dpo"]["values"] == (0.0, -2.0)
    # In pairs, by seed and not in the order given.
    apart = found["apart"]["self_asked, best - self_asked, dpo"]
    assert apart["values"] == (-0.25, -0.75) and found["seeds"] == [0, 1]
    assert bench.main(paths) == 0
    out = capsys.readouterr().out
    assert "self_asked, dpo: score" in out and "last round - first" in out


def test_what_is_no_such_set_is_said_in_one_line(bench, tmp_path, capsys):
    first = run(tmp_path / "a", seed=0, last=0.5, right=True)
    again = run(tmp_path / "b", seed=0, last=0.5, right=True)
    other = run(tmp_path / "c", seed=1, last=0.5, right=True, rule="best")
    for paths, told in (
        ([first, again], "is of a seed that is there already"),
        ([first, other], "give runs of the same seeds"),
        ([str(tmp_path / "none")], "none"),
    ):
        assert bench.main(paths) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and told in error
        assert error.count("\n") == 1
