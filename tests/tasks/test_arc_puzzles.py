"""Tasks from every layout they come in: contents, order, refusals in one line."""

import json
import re
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies

from seal_jax.runtime import files
from seal_jax.tasks.arc import puzzles as arc
from seal_jax.tasks.arc.puzzles import Pair, Task

FEW_SHOT = "few-shot/data"


def entry(color, *, outputs=True, tests=1):
    """A task as JSON: one row whose cells are swapped."""
    pair = {"input": [[0, color]], "output": [[color, 0]]}
    test = pair if outputs else {"input": pair["input"]}
    return {"train": [pair, pair], "test": [test] * tests}


def task(name, color, tests=1):
    pair = Pair(((0, color),), ((color, 0),))
    return Task(name, (pair, pair), (pair,) * tests)


@pytest.fixture
def write(tmp_path):
    def write(name, value):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    return write


# Layouts


def test_a_challenges_file_finds_its_solutions(write):
    path = write(
        "arc_challenges_x.json",
        {"b": entry(2, outputs=False, tests=2), "a": entry(1, outputs=False)},
    )
    write("arc_solutions_x.json", {"a": [[[1, 0]]], "b": [[[2, 0]]] * 2, "c": []})
    found = arc.load(str(path), split="")
    assert found == {"a": task("a", 1), "b": task("b", 2, 2)}
    assert list(found) == ["a", "b"]


@pytest.mark.parametrize("name", ["tasks.json", "all_challenges.json"])
def test_solutions_may_be_inside(name, write):
    path = write(name, {"a": entry(1), "b": entry(2)})
    assert arc.load(path, split="") == {"a": task("a", 1), "b": task("b", 2)}


def test_a_folder_holds_a_file_for_each_task(write, tmp_path):
    write("training/b.json", entry(2) | {"name": "of another tool"})
    write("training/a.json", entry(1, tests=3))
    write("training/._a.json", "what some archives leave")
    write("training/more/c.json", entry(3))
    (tmp_path / "training/notes.txt").write_text("no task")
    found = arc.load(tmp_path / "training", split="")
    assert found == {"a": task("a", 1, 3), "b": task("b", 2)}
    assert list(found) == ["a", "b"]


def test_one_file_of_one_task(write):
    assert arc.load(write("7e.json", entry(3)), split="") == {"7e": task("7e", 3)}


@pytest.mark.parametrize("column", ["id", "task_id"])
def test_a_hub_name_goes_to_the_hub(column, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = [{column: name, **entry(i)} for i, name in enumerate("ba")]
    asked = []

    def load_dataset(name, *, split):
        asked.append((name, split))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    found = arc.load("dataartist/arc-agi", split="evaluation")
    assert asked == [("dataartist/arc-agi", "evaluation")]
    assert found == {"a": task("a", 1), "b": task("b", 0)} and list(found) == ["a", "b"]


def test_rows_may_hold_columns_of_grids():
    """What the hub's loader made of a list of objects in its older versions."""
    pairs = {"input": [[[0, 4]]] * 2, "output": [[[4, 0]]] * 2}
    test = {"input": [[[0, 4]]], "output": [[[4, 0]]]}
    rows = [{"id": "a", "train": pairs, "test": test}]
    assert arc.parse_rows(rows, "hub") == {"a": task("a", 4)}


def test_files_do_not_import_datasets(child_env, write):
    path = write("a.json", entry(1))
    code = (
        "import sys; from seal_jax.tasks.arc import puzzles;"
        f"puzzles.load({str(path)!r}, split='');"
        "print({'datasets', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=child_env
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_a_folder_of_challenges_files_is_told_apart(tmp_path):
    (tmp_path / "challenges.json").write_text('{"ab12": {}, "cd34": {}}')
    with pytest.raises(ValueError, match=r"challenges\.json: .* give that file"):
        arc.load(tmp_path, split="")


def test_tasks_are_selected_in_the_order_asked_for():
    tasks = {name: task(name, 1) for name in ("ab12", "cd34", "ef56")}
    found = arc.select(tasks, ["ef56", "ab12"])
    assert [one.id for one in found] == ["ef56", "ab12"]
    with pytest.raises(ValueError, match=r"'cd35' must be one of the 3 .* 'cd34'"):
        arc.select(tasks, ["ab12", "cd35"])
    with pytest.raises(ValueError, match="'a' must be one of the 0"):
        arc.select({}, ["a"])


# Refusals

GRID = [[1, 2], [3, 4]]
BAD_GRIDS = {
    "none": (None, "None must be a list of rows"),
    "a number": (3, "3 must be a list of rows"),
    "text": ("[[1]]", "must be a list of rows"),
    "no rows": ([], "[] must be a list of rows"),
    "no cells": ([[]], "row 0=[] must be a list of colours"),
    "flat": ([1, 2], "row 0=1 must be a list of colours"),
    "ragged": ([[1, 2], [3]], "row 1 has 1 cells and must have the 2 of row 0"),
    "later empty": ([[1], []], "row 1=[] must be a list of colours"),
    "ten": ([[10]], "10 in row 0 must be a colour"),
    "negative": ([[0], [-1]], "-1 in row 1 must be a colour"),
    "float": ([[1.0]], "1.0 in row 0 must be a colour"),
    "bool": ([[True]], "True in row 0 must be a colour"),
    "digit": ([["1"]], "'1' in row 0 must be a colour"),
    "deep": ([[[1]]], "[1] in row 0 must be a colour"),
    "high": ([[1]] * 31, "31x1 cells must be at most 30x30"),
    "wide": ([[1] * 31], "1x31 cells must be at most 30x30"),
}


@pytest.mark.parametrize("case", BAD_GRIDS)
@pytest.mark.parametrize("place", [("train", "input"), ("test", "output")])
def test_bad_grids_are_named(case, place, write):
    value, message = BAD_GRIDS[case]
    kind, side = place
    bad = entry(1)
    # The last of a kind, so that the number in the message is told apart from 0.
    bad[kind] = [bad[kind][0], {**bad[kind][0], side: value}]
    if value is None and place == ("test", "output"):
        message = "must have solutions"
    path = write("tasks.json", {"good": entry(1), "bad": bad})
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        arc.load(path, split="")
    text = str(caught.value)
    assert f"{path}: task 'bad'" in text and "\n" not in text
    assert message == "must have solutions" or f"{kind} 1, {side}" in text


BAD_TASKS = {
    "a list": ([], "must be an object with train and test, not []"),
    "none": (None, "must be an object with train and test, not None"),
    "nothing": ({}, "train=None must be a list of at least one pair"),
    "no test": ({"train": entry(1)["train"]}, "test=None must be a list"),
    "no demos": (entry(1) | {"train": []}, "train=[] must be a list of at least one"),
    "no tests": (entry(1) | {"test": []}, "test=[] must be a list of at least one"),
    "train is an object": (entry(1) | {"train": {"a": 1}}, "train={'a': 1} must be"),
    "pair is a list": (entry(1) | {"train": [[1]]}, "train 0: [1] must be an object"),
    "test is a grid": (entry(1) | {"test": [GRID]}, "must have solutions"),
    "no output": (entry(1, outputs=False), "must have solutions, as output of each"),
    "one output": (
        entry(1) | {"test": [{"input": GRID, "output": GRID}, {"input": GRID}]},
        "must have solutions",
    ),
}


@pytest.mark.parametrize("case", BAD_TASKS)
def test_bad_tasks_are_named(case, write):
    value, message = BAD_TASKS[case]
    path = write("x_challenges.json", {"good": entry(1), "bad": value})
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        arc.load(path, split="")
    assert f"{path}: task 'bad'" in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_SOLUTIONS = {
    "not an object": ([], "must be a JSON object of outputs by task id, not a list"),
    "not this task": ({"b": [GRID]}, "task 'a' must have solutions"),
    "not a list": ({"a": {"0": GRID}}, "task 'a' must have solutions"),
    "too few": ({"a": []}, "task 'a': its 0 solutions must be as many as its 1"),
    "too many": ({"a": [GRID, GRID]}, "its 2 solutions must be as many as its 1 tests"),
    "a bare grid": ({"a": GRID}, "its 2 solutions must be as many as its 1 tests"),
    "not a grid": ({"a": [[1]]}, "task 'a', test 0, output: row 0=1 must be a list"),
}


@pytest.mark.parametrize("case", BAD_SOLUTIONS)
def test_bad_solutions_are_named(case, write):
    value, message = BAD_SOLUTIONS[case]
    path = write("x_challenges.json", {"a": entry(1, outputs=False)})
    write("x_solutions.json", value)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        arc.load(path, split="")
    assert str(path.parent) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[{", b"\xff\xfe\xff", b'{"a": 1}\n{"a": 2}\n', b"[" * 100_000],
    ids=["empty", "torn", "bytes", "lines", "deep"],
)
@pytest.mark.parametrize("broken", ["x_challenges.json", "x_solutions.json"])
def test_what_is_not_json_is_refused(content, broken, write):
    path = write("x_challenges.json", {"a": entry(1, outputs=False)})
    write("x_solutions.json", {"a": [GRID]})
    path.with_name(broken).write_bytes(content)
    with pytest.raises(ValueError, match="must be one JSON value") as caught:
        arc.load(path, split="")
    assert broken in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value, message", [([], "not a list"), (3, "not a int"), ({}, "at least one task")]
)
def test_a_file_without_tasks_is_refused(value, message, write):
    path = write("tasks.json", value)
    with pytest.raises(ValueError, match=message) as caught:
        arc.load(path, split="")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_tasks_is_refused(write, tmp_path):
    with pytest.raises(ValueError, match="must hold a JSON file for each task; give"):
        arc.load(tmp_path, split="")
    inner = write("data/training/a.json", entry(1)).parent
    message = f"must hold a JSON file for each task, as {inner} does"
    with pytest.raises(ValueError, match=re.escape(message)):
        arc.load(tmp_path, split="")
    path = write("data/training/b.json", {"a": entry(1)})
    with pytest.raises(ValueError, match=re.escape(f"{path}: task 'b': train=None")):
        arc.load(inner, split="")


@pytest.mark.parametrize("source", ["none.json", "/no/such.json", "arc", "", "a/b/c"])
def test_a_missing_file_is_named(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rule = rf"data='{source}': no such file; give .*--config=arc:tiny"
    with pytest.raises(FileNotFoundError, match=rule) as caught:
        arc.load(source, split="training")
    assert "\n" not in str(caught.value)


def test_without_network_the_hub_name_is_an_error_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        arc.load("nobody/no-such-data", split="training")
    assert "data='nobody/no-such-data', split='training'" in str(caught.value)
    assert "--config=arc:tiny" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_not_taken_for_a_missing_data_set(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name, *, split):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(files.DiskFullError, match="data='a/b'"):
        arc.load("a/b", split="train")


BAD_ROWS = {
    "no id": ([entry(1)], "row 0 must have the task's name in a column id, not only"),
    "a number": ([{"id": 3, **entry(1)}], "row 0 must have the task's name"),
    "twice": ([{"id": "a", **entry(1)}] * 2, "row 1 must not repeat task 'a'"),
    "no rows": ([], "hub: must hold at least one task"),
    "test by columns": (
        [{"task_id": "a", "train": entry(1)["train"], "test_input": GRID}],
        "hub: task 'a': test=None must be a list",
    ),
    "uneven": (
        [{"id": "a", **entry(1), "train": {"input": [GRID], "output": []}}],
        "hub: task 'a': train={'input'",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_of_another_data_set_are_refused(case):
    rows, message = BAD_ROWS[case]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        arc.parse_rows(rows, "hub")
    assert "\n" not in str(caught.value)


def mutated(value, draw):
    """`value` with one part of it, however deep, replaced by something else."""
    if isinstance(value, dict | list) and value and draw(strategies.integers(0, 4)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(strategies.sampled_from(keys))
        copy = value.copy()
        copy[key] = mutated(value[key], draw)
        return copy
    odd = [None, True, -1, 10, 1.5, "a\nb", [], {}, [[]], [[1], [2, 3]], {"train": 1}]
    return draw(strategies.sampled_from(odd))


@hypothesis.settings(max_examples=150)
@hypothesis.given(strategies.data())
def test_no_task_crashes_the_loader(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mutated")
    contents = {
        "challenges": {"a": entry(1, outputs=False), "b": entry(2)},
        "solutions": {"a": [[[1, 0]]]},
    }
    changed = data.draw(strategies.sampled_from(list(contents)))
    contents[changed] = mutated(contents[changed], data.draw)
    for name, value in contents.items():
        (folder / f"x_{name}.json").write_text(json.dumps(value))
    try:
        found = arc.load(folder / "x_challenges.json", split="")
    except (ValueError, FileNotFoundError) as error:
        assert str(folder) in str(error) and "\n" not in str(error)
    else:
        assert all(isinstance(one, Task) for one in found.values())


# The real files


def test_all_training_tasks_load(seal_data):
    tasks = arc.load(
        seal_data / FEW_SHOT / "arc-agi_training_challenges.json", split=""
    )
    assert len(tasks) == 400 and list(tasks) == sorted(tasks)
    assert sum(len(one.tests) for one in tasks.values()) == 416


@pytest.mark.parametrize(
    "name, count, tests",
    [
        ("training_challenges_filtered_1B_training_set", 12, 13),
        ("evaluation_challenges_filtered_1B_eval_set", 10, 11),
    ],
)
def test_the_filtered_tasks_load(name, count, tests, seal_data):
    folder = seal_data / FEW_SHOT
    tasks = arc.load(folder / f"arc-agi_{name}.json", split="")
    assert len(tasks) == count
    assert sum(len(one.tests) for one in tasks.values()) == tests
    if name.startswith("training"):
        every = arc.load(folder / "arc-agi_training_challenges.json", split="")
        assert arc.select(every, list(tasks)) == list(tasks.values())


def test_the_repository_layout_gives_the_same_tasks(seal_data, write, tmp_path):
    folder = seal_data / FEW_SHOT
    name = "arc-agi_training_{}_filtered_1B_training_set.json"
    entries = files.read_json(folder / name.format("challenges"))
    outputs = files.read_json(folder / name.format("solutions"))
    for task_id, one in entries.items():
        solved = zip(one["test"], outputs[task_id], strict=True)
        tests = [test | {"output": output} for test, output in solved]
        write(f"training/{task_id}.json", one | {"test": tests})
    kaggle = arc.load(folder / name.format("challenges"), split="")
    assert arc.load(tmp_path / "training", split="") == kaggle
