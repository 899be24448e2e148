import math
import os
import subprocess
import sys

import pytest

from seal_jax import metrics, records, run_view


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (run_view.number(0.12345), "0.123"),
        (run_view.number(1234.5, digits=1), "1,234.5"),
        (run_view.signed(0.5), "+0.500"),
        (run_view.signed(-0.25, digits=2), "-0.25"),
        (run_view.count(1234), "1,234"),
        (run_view.percent(0.1234), "12.3 %"),
        (run_view.percent(0.1234, digits=0), "12 %"),
        (run_view.span(0, 0.1234), "0.000 to 0.123"),
        (run_view.percents(-0.125, 1.5), "-12 to 150 %"),
        (run_view.percents(None, 0.5), "-"),
        (run_view.raced(None), ""),
        (run_view.raced(1), " (a race: only seed 1)"),
        (run_view.raced(3), " (a race: only seeds 1 to 3)"),
        (run_view.span(-1, 1234, digits=0), "-1 to 1,234"),
        (run_view.span(None, 0.5), "-"),
        (run_view.span(0.5, None), "-"),
        *(
            (write(missing), "-")
            for write in (
                run_view.number,
                run_view.signed,
                run_view.count,
                run_view.percent,
            )
            for missing in (None, math.nan, math.inf, "0.5", True, [])
        ),
    ],
)
def test_numbers_and_what_is_missing(text, expected):
    assert text == expected


def test_cost_rates_are_over_the_phases_that_adapt():
    summary = {
        "seconds": {"propose": 10, "adapt": 20.0, "adapt_ladder": 30, "odd": None},
        "adapters": 100,
        "tokens": 5_000_000,
    }
    assert run_view.cost(summary) == [
        ("time", "1:00 min"),
        ("adapters", "100"),
        ("adapters/s", "2"),
        ("tokens", "5,000,000"),
        ("tokens/s", "100,000"),
    ]
    assert list(run_view.seconds(summary)) == ["adapt_ladder", "adapt", "propose"]


def test_cost_without_records():
    assert [text for _, text in run_view.cost({})] == ["-"] * 5
    known = dict(run_view.cost({"seconds": {"all": 4.0}, "adapters": 2}))
    assert (known["adapters/s"], known["tokens/s"]) == ("0.5", "-")


def test_an_empty_directory_has_nothing_to_read(tmp_path):
    assert run_view.read_config(tmp_path) == {}
    assert run_view.read_edits(tmp_path) == []
    assert run_view.read_heldout(tmp_path) == []
    assert run_view.read_items(tmp_path) == []
    assert run_view.read_metrics(tmp_path) == {}
    with pytest.raises(ValueError, match=r"must be a workdir with a summary\.json"):
        run_view.read_summary(tmp_path)


def test_a_run_that_has_not_finished_says_so(tmp_path):
    records.open_workdir(tmp_path, {"a": 1})
    with pytest.raises(ValueError, match="has not finished") as caught:
        run_view.read_summary(tmp_path)
    assert "\n" not in str(caught.value)


def test_files_read_back(tmp_path):
    records.open_workdir(tmp_path, {"a": 1})
    records.write_json(tmp_path / "summary.json", {"ladder": [{"name": "base"}, 3]})
    records.write_jsonl(tmp_path / "edits.jsonl", [{"edit": 0}, 7])
    records.write_jsonl(tmp_path / "heldout.jsonl", [None, {"arm": "oracle"}])
    records.write_jsonl(tmp_path / "items.jsonl", [{"task_id": "a"}])
    with metrics.Metrics(tmp_path) as log:
        log.log(0, {"loss": 1.0})
        log.log(1, {"loss": math.nan, "other": 2.0})
    assert run_view.read_config(tmp_path) == {"a": 1}
    assert run_view.read_edits(tmp_path) == [{"edit": 0}]
    assert run_view.read_heldout(tmp_path) == [{"arm": "oracle"}]
    assert run_view.read_items(tmp_path) == [{"task_id": "a"}]
    assert run_view.read_metrics(tmp_path) == {"loss": [(0, 1.0)], "other": [(1, 2.0)]}
    summary = run_view.read_summary(tmp_path)
    assert run_view.rows(summary, "ladder") == [{"name": "base"}]
    assert run_view.rows(summary, "paired") == []


def test_a_summary_that_is_no_object(tmp_path):
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(ValueError, match="must be a JSON object"):
        run_view.read_summary(tmp_path)


def test_a_workdir_holds_what_its_files_tell(tmp_path):
    path = records.open_workdir(tmp_path / "run", {"name": "n"})
    records.write_json(path / "summary.json", {"kind": "pooled"})
    run = run_view.read_workdir(path)
    assert (run.name, run.kind, run.path) == ("run", "pooled", path)
    assert run.config == {"name": "n"}
    assert run.edits == []
    records.write_jsonl(path / "edits.jsonl", [{"round": 1}, 3])
    assert run_view.read_workdir(path).edits == [{"round": 1}]
    assert run_view.Workdir("lone", {"kind": 3}).kind is None
    with pytest.raises(ValueError, match="must be a workdir"):
        run_view.read_workdir(tmp_path)


def test_counts_that_make_a_z():
    assert [run_view.enough(n) for n in (4, 5, None)] == [False, True, True]


def test_errors_of_a_command_are_one_line_and_other_defects_are_not_hidden(capsys):
    def fail(error):
        raise error

    assert run_view.exit_status(lambda: print("done")) == 0
    assert run_view.exit_status(lambda: fail(ValueError("x is 3"))) == 2
    assert capsys.readouterr() == ("done\n", "error: x is 3\n")
    with pytest.raises(KeyError):
        run_view.exit_status(lambda: fail(KeyError("x")))


@pytest.mark.parametrize("length", [3, 10**6])  # kept in the buffer, and written
def test_a_command_whose_output_is_read_no_further_ends_quietly(length, child_env):
    code = (
        "from seal_jax import run_view\n"
        f"raise SystemExit(run_view.exit_status(lambda: print('x' * {length})))\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=child_env,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
