"""What a filter would have found, of runs whose every edit was trained."""

import importlib
import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benches(root):
    """Scripts of benchmarks/, which find their neighbours as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        dreams = importlib.import_module("dreams")
        patch.setattr(dreams, "DRAWS", 20)
        yield dreams, importlib.import_module("prompts")


def write_run(folder, *, seed=0, items=6, edits=8, seeds=4):
    """Edits of which the gradient knows the order, and the rubric its reverse."""
    rng = np.random.default_rng(seed)
    rows = []
    for p in range(items):
        for _ in range(edits):
            worth = rng.random()
            grade = [round(worth + 0.01 * rng.random(), 6) for _ in range(seeds)]
            measured = {"grade": grade, "gradient": [worth], "rubric": [-worth]}
            measured["gradient_gold"] = [worth]
            row = {"passage_id": f"p{p}", "round": 1, "measured": measured}
            rows.append(row | {"refused": None, "lines": ["a", "b"]})
    folder.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "edits.jsonl").write_text(text)
    (folder / "summary.json").write_text("{}")
    unit = {"seconds": 2.0, "scored_tokens": 30, "tokens": 300}
    keys = ("round_1/gradient", "round_1/adapt/0", "round_1/adapt/1")
    lines = [json.dumps({"key": key, "value": unit}) + "\n" for key in keys]
    (folder / "journal.jsonl").write_text("".join(lines))
    return str(folder)


def test_what_a_good_filter_finds_is_what_training_all_finds(benches, tmp_path, capsys):
    dreams, _ = benches
    runs = [write_run(tmp_path / f"all_{s}", seed=s) for s in range(3)]
    found = dreams.benchmark(dreams.parse_args(runs))
    shares = {name: own["mean"] for name, own in found["shares"].items()}
    assert shares["best 5 by gradient"] == pytest.approx(1.0)
    assert shares["best 1 by gradient"] == pytest.approx(1.0, abs=0.02)
    assert shares["best 1 by rubric"] < -0.5
    assert 0.5 < shares["5 at random"] < 0.95
    assert found["captured"]["gradient"]["mean"] > 0.97
    cost = found["runs"]["all_0"]["cost"]
    assert cost["scored_tokens"] == 30 and cost["trained_tokens"] == 600
    assert dreams.main(runs) == 0 and "best 5 by gradient" in capsys.readouterr().out


def test_what_was_not_measured_everywhere_is_not_reported(benches, tmp_path):
    dreams, _ = benches
    runs = [write_run(tmp_path / f"all_{s}", seed=s) for s in range(3)]
    whole = dreams.benchmark(dreams.parse_args(runs))
    for folder, change in (
        ("all_0", lambda row: row["measured"].pop("gradient_gold")),
        # One item has no rubric; of another all edits are refused.
        (
            "all_1",
            lambda row: row["passage_id"] != "p0" or row["measured"].pop("rubric"),
        ),
        ("all_2", lambda row: row["passage_id"] != "p5" or row.update(refused="empty")),
    ):
        path = tmp_path / folder / "edits.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            change(row)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = dreams.benchmark(dreams.parse_args(runs))
    gone = {*whole["gains"]} - {*found["gains"]}
    assert len(gone) == 6 and all("gold" in n or "rubric" in n for n in gone)
    assert "gradient_gold" not in found["captured"]
    assert all(np.isfinite(own["mean"]) for own in found["gains"].values())
    assert found["runs"]["all_2"]["items"] == 5


def test_seeds_that_choose_do_not_judge(benches):
    dreams, _ = benches
    # Two of four seeds say that edit 0 is best, which the others deny.
    grades_ES = np.array([[1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    assert dreams.halves(4)[0] == ([0, 1], [2, 3])
    by_hand = []
    for own, other in dreams.halves(4):
        worth = grades_ES[:, other].mean(1)
        pick = int(np.argmax(grades_ES[:, own].mean(1)))
        by_hand.append(worth[pick] - worth.mean())
    assert dreams.chosen(grades_ES, [np.arange(2)]) == pytest.approx(np.mean(by_hand))
    # One lucky seed has the best of two say that edit 0 is better, not their mean.
    grades_ES = np.array([[0.9, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    most = dreams.chosen(grades_ES, [np.arange(2)], choose="max")
    assert most < 0 < dreams.chosen(grades_ES, [np.arange(2)])


def test_what_is_no_such_run_is_said_in_one_line(benches, tmp_path, capsys):
    dreams, prompts = benches
    assert dreams.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "no finished run" in error and error.count("\n") == 1
    assert prompts.main([str(tmp_path)]) == 2
    assert "no finished run with a ladder" in capsys.readouterr().err


def test_ladders_are_compared_run_by_run(benches, tmp_path, capsys):
    _, prompts = benches
    runs = []
    for seed, (before, found) in enumerate([(0.4, 0.5), (0.5, 0.7)]):
        searched = [
            {"prompt": name, "reward": reward}
            for name, reward in (("plain", before), ("other", found))
        ]
        rows = [
            {"name": "self_edits", "mean": before},
            {"name": "prompts", "mean": found, "prompt": "other", "searched": searched},
        ]
        folder = tmp_path / f"search_{seed}"
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"ladder": rows}))
        runs.append(str(folder))
    found = prompts.benchmark(prompts.parse_args([*runs, "--beside", *runs]))
    less = found["runs"]["less_self_edits"]["prompts"]
    assert less["values"] == pytest.approx([0.1, 0.2])
    assert found["beside"]["less_self_edits"]["self_edits"]["mean"] == 0
    assert {own["mean"] for own in found["over_beside"].values()} == {0}
    swapped = prompts.benchmark(prompts.parse_args([*runs, "--beside", *runs[::-1]]))
    values = swapped["over_beside"]["prompts"]["values"]
    assert values == pytest.approx([-0.2, 0.2])
    assert found["searched"]["other"]["chosen"] == 2
    assert prompts.main(runs) == 0 and "chosen 2" in capsys.readouterr().out
    assert prompts.main([*runs, "--beside", runs[0]]) == 2
    assert "in the same order" in capsys.readouterr().err
