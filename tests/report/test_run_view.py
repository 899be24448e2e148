import math

import pytest

from seal_jax.report import run_view
from seal_jax.runtime import metrics, records


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
