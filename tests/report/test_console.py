import json
import subprocess
import sys

import few_shot_run
import pytest
import report_run

from seal_jax.report import console, reference
from seal_jax.report import inputs as report_inputs
from seal_jax.runtime import formatting, records

SUMMARY = {
    "ladder": [
        {"name": "base", "mean": 0.125, "se": 0.02, "n": 40, "empty_rate": 0.05},
        {"name": "round_1", "mean": 0.5, "se": None, "n": 40},
        {},
    ],
    "paired": [
        {"a": "round_1", "b": "base", "diff": 0.375, "se": 0.125, "z": 3.0},
        {"a": "round_1", "b": "round_1", "diff": 0.0, "se": 0.0, "z": None},
    ],
    "adapters": 1200,
    "seconds": {"adapt": 60.0},
}


@pytest.fixture
def workdir(tmp_path):
    path = records.open_workdir(tmp_path / "run", {"name": "t"})
    records.write_json(path / "summary.json", SUMMARY)
    return path


def result_file(path, *rights):
    """A SEAL result file: one passage for each flag, one question in each."""
    articles = [
        {
            "title": f"t{i}",
            "context": f"c{i}",
            "completions": [
                {
                    "stats": {},
                    "questions": [
                        {
                            "rep": 0,
                            "adapter_answer": "x" if right else "",
                            "adapter_correct": right,
                            "baseline_correct": False,
                        }
                    ],
                }
            ],
        }
        for i, right in enumerate(rights)
    ]
    path.write_text(json.dumps({"articles": articles, "overall": {}}))
    return path


def test_table_aligns_names_left_and_numbers_right():
    text = formatting.ruled(("", "mean"), [("base", "1.5"), ("x", "10.25")])
    assert text == "       mean\n-----------\nbase    1.5\nx     10.25"


def test_summary_table_shows_what_is_there_and_dashes():
    lines = console.summary_table(SUMMARY).splitlines()
    words = [line.split() for line in lines]
    assert ["base", "0.125", "0.020", "40", "5.0", "%"] in words
    assert ["round_1", "0.500", "-", "40", "-"] in words
    assert ["-", "-", "-", "-", "-"] in words
    assert ["round_1", "-", "base", "40", "+0.375", "0.125", "+3.0"] in words
    assert ["round_1", "-", "round_1", "40", "+0.000", "0.000", "-"] in words
    assert "adapters/s: 20" in lines


def test_the_table_of_a_few_shot_run():
    text = console.summary_table(few_shot_run.SUMMARY)
    words = [line.split() for line in text.splitlines()]
    head = "success se 95 % tasks valid in budget if trained"
    assert words[0] == head.split()
    for row in (
        "in_context 0.333 0.250 0.000 to 0.750 3 - - -",
        "self_edits 0.000 0.250 0.000 to 0.750 3 66.7 % 100.0 % 0.000",
        # Eight texts, five valid ones, four of them trained.
        "round_1 0.500 0.250 0.000 to 0.750 3 62.5 % 80.0 % 0.750",
        "oracle 1.000 0.250 - 3 100.0 % 100.0 % 1.000",
        "by task in_context self_edits round_1 oracle",
        "task one 1.00 0.00 0.50 1.00",
        "task three 0.00 0.00 0.50 1.00",
        "round_1 - in_context 3 +0.100 0.200 -",  # three tasks make no z
    ):
        assert row.split() in words
    assert "texts refused, round_1: not json 2, epochs 1, over budget 1" in text
    assert "texts refused, oracle" not in text
    assert text.endswith("tokens/s: 167")


def test_a_few_shot_run_of_which_little_is_known():
    summary = {"ladder": [{"name": "in_context"}, {"name": "round_1", "mean": 0.5}]}
    lines = console.summary_table(summary).splitlines()
    assert lines[3].split() == ["round_1", "0.500", *"------"]
    assert not any("by task" in line or "refused" in line for line in lines)


def test_the_table_of_a_knowledge_run_has_no_few_shot_columns():
    row = few_shot_run.row("base", 0.5, (3, 3, 3, 0.5))
    items = [{"item": "passage 0 (Ada)", "base": 0.5}]
    text = console.summary_table({"ladder": [row], "items": items})
    assert text.splitlines()[0].split() == ["mean", "se", "n", "empty"]
    assert "Ada" not in text


@pytest.mark.parametrize("summary", [{}, {"ladder": None, "seconds": 3, "paired": {}}])
def test_an_empty_summary_is_no_error(summary):
    assert "time: -" in console.summary_table(summary)


def test_result_files_are_compared_in_pairs(tmp_path, capsys):
    paths = [
        result_file(tmp_path / "one.json", True, False, False, False),
        result_file(tmp_path / "two.json", True, True, True, False),
        result_file(tmp_path / "wide.json", *[True] * 5),
    ]
    assert console.main([str(p) for p in paths]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    row = "one 4 4 0.0000 0.2500 0.2500 0.2500 75.0 % 1.000"
    assert row.split() in words
    # Differences 0 1 1 0: mean 1/2, s = sqrt(1/3), se = s / 2.
    assert "two - one 4 +0.5000 0.2887 -".split() in words
    assert "wide - two 4 +0.2500 0.2500 -".split() in words
    assert "one - its base 4 +0.2500 0.2500 -".split() in words


def test_files_over_other_passages_are_not_compared(tmp_path):
    other = json.loads(result_file(tmp_path / "a.json", True).read_text())
    other["articles"][0]["title"] = "elsewhere"
    text = console.results_table(
        [
            reference.read(tmp_path / "a.json"),
            reference.parse("b", other),
        ]
    )
    assert "a - its base" in text
    assert "b - a" not in text


def test_a_workdir_and_its_summary_print_the_same(workdir, capsys):
    assert console.main([str(workdir)]) == 0
    first = capsys.readouterr().out
    assert console.main([str(workdir / "summary.json")]) == 0
    second = capsys.readouterr().out
    assert first.splitlines()[1:] == second.splitlines()[1:]
    assert "round_1" in first


def test_a_page_in_no_folder_is_refused_before_anything_is_printed(
    workdir, tmp_path, capsys
):
    assert console.main([str(workdir), "--html", str(tmp_path / "no/x.html")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert f"x.html: {tmp_path / 'no'} is no folder; give" in said.err


def test_a_page_that_is_a_folder_is_refused_before_anything_is_printed(
    workdir, tmp_path, capsys
):
    assert console.main([str(workdir), "--html", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"error: --html {tmp_path}: is a folder; give a file in it\n"


def test_html_option_writes_the_page(workdir, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert console.main([str(workdir), "--html", str(out)]) == 0
    assert f"page: {out}" in capsys.readouterr().out
    assert "round_1" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/none"], "no such file or directory; give a workdir with"),
        (["{tmp}"], "must be a workdir with a summary.json"),
        (["{tmp}/text"], "must be one JSON value"),
        (
            ["{tmp}/list.json"],
            "must be a workdir with a summary.json, a SEAL result file, a file of",
        ),
        (["{tmp}/list.json", "--html", "{tmp}/x"], "list.json: must be a workdir"),
        (["{tmp}", "{tmp}", "--html", "{tmp}/x"], "must be a workdir with"),
    ],
)
def test_a_path_that_is_neither_is_a_one_line_error(
    tmp_path, capsys, arguments, message
):
    (tmp_path / "text").write_text("no json")
    (tmp_path / "list.json").write_text("[1, 2]")
    assert console.main([a.format(tmp=tmp_path) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def printed(capsys, *paths):
    assert console.main([str(path) for path in paths]) == 0
    return capsys.readouterr().out


def test_the_text_of_a_continual_run(tmp_path, capsys):
    out = printed(capsys, report_run.continual_run(tmp_path / "run"))
    words = [line.split() for line in out.splitlines()]
    scores = (
        "merge 0.625 ± 0.031 0.375 ± 0.031 0.438 ± 0.031 0.625 ± 0.031 0.500 ± 0.031"
    )
    for row in (
        scores,
        "replay 2 6 12,345 77 1.5 75.0 % 0.812",
        "replay - merge final 2 +0.125 0.050 - +0.030 to +0.220",
        # 0.75 of 0.6; 0.525 of 0.45; 0.375 of 0.45.
        "merge +0.150 +0.075 -0.075",
    ):
        assert row.split() in words
    assert out.count("Learned: right after a passage's own edit.") == 1
    summary = records.read_json(tmp_path / "run/summary.json")
    assert console.summary_table(summary) in out
    assert console.seconds_line(summary) == "seconds: adapt 3.0"


def test_the_text_of_several_runs(tmp_path, capsys):
    paths = [
        report_run.rounds_run(tmp_path / "one"),
        report_run.rounds_run(tmp_path / "two", rounds=2, stopped="no gain"),
    ]
    out = printed(capsys, *paths)
    words = [line.split() for line in out.splitlines()]
    for row in (
        "one 0.125 0.250 0.400 0.500 0.600",
        "two 0.125 0.250 0.400 0.500 -",
        "two 9 +0.350 0.050 +7.0 - 16 100 after 2 rounds: no gain",
        "stopped after 2 rounds: no gain",
        "two 2 0.125",
    ):
        assert row.split() in words
    for title in ("Reliability of rewards", "Novelty", "Change, later − earlier"):
        assert title in out.splitlines()


def test_the_text_of_the_other_kinds(tmp_path, capsys):
    out = printed(
        capsys,
        report_run.continual_folder(tmp_path / "a"),
        report_run.continual_folder(tmp_path / "b"),
        report_run.ranking_file(tmp_path / "rank.json"),
        report_run.edits_file(tmp_path / "iter0.json"),
    )
    for part in (
        "a: files 2, sequences 2, passages in each 3; m on passages <1>",
        "mean so far - un-edited, after edit",
        "rank: 3 passages, 6 edits, 12 trainings, mean reward",
        "rank - its base",
        "halving 1>1, 2>1",
    ):
        assert part in out
    assert any(line.startswith("iter0 ") for line in out.splitlines())


def test_all_paragraphs_come_from_the_modules_they_are_of(tmp_path):
    inputs = report_inputs.read([report_run.ranking_file(tmp_path / "rank.json")])
    table, described, agreed = console.texts(inputs, draws=3)
    assert table == console.results_table(inputs.results)
    assert described.startswith("rank: ")
    assert agreed.startswith("Agreement with the true reward")


def test_the_command_runs_without_jax(workdir, child_env):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['report', {str(workdir)!r}]\n"
        "try:\n"
        "    runpy.run_module('seal_jax.report', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert 'jax' not in sys.modules\n"
        "    sys.exit(end.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=child_env,
        check=True,
    )
    assert "round_1" in done.stdout


def test_released_files_print_the_known_numbers(seal_data, capsys):
    folder = seal_data / "knowledge-incorporation/results/query_server/eval"
    assert console.main([str(folder / f"{n}.json") for n in ("naive", "base")]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert "naive 200 200 0.3231 0.3351 0.0195 0.3357 0.5 % 0.337".split() in words
    assert "base 200 200 0.3267 0.3968 0.0197 0.4066 16.6 % 0.488".split() in words
