import json

import pytest
import report_run

from seal_jax.report import inputs as report_inputs


def kinds(*paths):
    """How many of each kind the paths are, of the kinds that there are."""
    found = report_inputs.read(paths)
    counts = {name: len(getattr(found, name)) for name in vars(found)}
    return {name: count for name, count in counts.items() if count}


def test_every_kind_of_path_is_known(tmp_path):
    run = report_run.rounds_run(tmp_path / "run", rounds=2)
    learned = report_run.continual_run(tmp_path / "learned")
    folder = report_run.continual_folder(tmp_path / "results")
    ranking = report_run.ranking_file(tmp_path / "rank.json")
    edits = report_run.edits_file(tmp_path / "iter0.json")
    lone = tmp_path / "copy.json"
    lone.write_text((run / "summary.json").read_text())
    cases = [
        (run, {"workdirs": 1}),
        (run / "summary.json", {"workdirs": 1}),
        (lone, {"workdirs": 1}),
        (learned, {"workdirs": 1}),
        (learned / "continual/merge", {"continual": 1}),
        (folder, {"continual": 1}),
        (folder / "run0", {"continual": 1}),
        (folder / "run0/summary_0.json", {"continual": 1}),
        (folder / "overall_results.json", {"continual": 1}),
        (ranking, {"results": 1, "rankings": 1, "agreements": 1}),
        (edits, {"edits": 1}),
        (run / "edits.jsonl", {"edits": 2}),  # one for each round
    ]
    for path, expected in cases:
        assert kinds(path) == expected, path
    assert kinds(run, folder, ranking, edits) == {
        "workdirs": 1,
        "results": 1,
        "rankings": 1,
        "agreements": 1,
        "edits": 1,
        "continual": 1,
    }


def test_a_result_file_with_one_seed_is_no_ranking(tmp_path):
    path = report_run.ranking_file(tmp_path / "rank.json")
    value = json.loads(path.read_text())
    for article in value["articles"]:
        for completion in article["completions"]:
            del completion["questions"][2:]
    path.write_text(json.dumps(value))
    # Edits can be compared by one seed, but not told from luck.
    assert kinds(path) == {"results": 1, "agreements": 1}
    for article in value["articles"]:
        del article["completions"][1:]
    path.write_text(json.dumps(value))
    assert kinds(path) == {"results": 1}
    for article in value["articles"]:
        for completion in article["completions"]:
            completion["questions"] = []
            completion["stats"] = {"baseline_mean": 0.25, "adapter_mean": 0.5}
    path.write_text(json.dumps(value))
    assert kinds(path) == {"results": 1}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a"], ["a"]),
        (["x/a", "x/b"], ["a", "b"]),
        (["x/a", "y/a", "y/b"], ["x/a", "y/a", "b"]),
        (["x/a", "x/a"], ["a", "a"]),
        (["x/base.json", "x/naive_v1.json"], ["base", "naive_v1"]),
        (["x/a/summary.json", "x/b/summary.json"], ["a", "b"]),
    ],
)
def test_names_are_as_short_as_they_can_be(paths, names):
    assert report_inputs.names_of(paths) == names


def test_a_workdir_is_named_by_its_path_and_not_by_its_config(tmp_path):
    for name in ("one", "two"):
        report_run.rounds_run(tmp_path / name / "run")
    paths = [tmp_path / name / "run" for name in ("one", "two")]
    found = report_inputs.read(paths).workdirs
    assert [run.name for run in found] == ["one/run", "two/run"]
    assert [run.config["name"] for run in found] == ["run", "run"]
    assert [len(run.edits) for run in found] == [12, 12]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none", None, "no such file or directory; give a workdir"),
        ("a.json", "[]", "must be a workdir with a summary.json, a SEAL result file"),
        ("a.json", "{}", "must be a workdir"),
        ("a.json", "[1, 2]", "must be a workdir"),
        ("a.json", '[{"completions": 3}]', "row 1 must have a passage"),
        ("a.json", '{"articles": []}', "articles must not be empty"),
        ("a.json", '{"mean_over_sequences": 3}', "n_sequences=None must be"),
        ("a.json", "no json", "must be one JSON value"),
        ("a.jsonl", "{}\n", "row 1 must have a passage"),
    ],
)
def test_what_is_none_of_them_is_told_so(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        report_inputs.read([tmp_path / name])
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_and_a_run_that_has_not_finished(tmp_path):
    with pytest.raises(ValueError, match="must be a workdir with a summary"):
        report_inputs.read([tmp_path])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="the run has not finished"):
        report_inputs.read([tmp_path])


def test_folders_of_several_results_are_not_averaged(tmp_path):
    run = report_run.continual_run(tmp_path / "run")
    for path, first in ((run / "continual", "continual"), (tmp_path, tmp_path.name)):
        named = [name for name, _ in report_inputs.read([path]).continual]
        end = "/run" if path == tmp_path else ""
        assert named == [f"{first}{end}/merge", f"{first}{end}/replay"]
    (run / "continual/merge/overall_results.json").unlink()
    assert kinds(run / "continual/merge") == {"continual": 1}
