"""ARC-AGI-1 as few-shot learning: a few pairs of grids show a rule, then apply it.

Origin: François Chollet, "On the Measure of Intelligence" (arXiv 1911.01547),
https://github.com/fchollet/ARC-AGI, 400 training and 400 evaluation tasks; licence
Apache-2.0. Three layouts are read. A folder with a file for each task, `<id>.json`,
as in that repository (made up):

    {"train": [{"input": [[0, 3]], "output": [[3], [0]]},
               {"input": [[5, 1]], "output": [[1], [5]]}],
     "test": [{"input": [[4, 2]], "output": [[2], [4]]}]}

One file in the layout of the ARC Prize competitions, `..._challenges....json`, which
holds {id: task} with tests that lack their output, and beside it the same name with
`solutions`, {id: [output of each test]}. Or a data set of the hub with the columns id,
train and test: "dataartist/arc-agi" (splits "training" and "evaluation"). A copy
without ids, such as "lordspline/arc-agi", is refused: experiments name their tasks.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seal_jax.runtime import files, reading
from seal_jax.tasks import hub

# Rows of colours 0-9, all of one length.
type Grid = tuple[tuple[int, ...], ...]

MOST_SIDE = 30

_IDS = ("id", "task_id")
_LAYOUTS = "the head of seal_jax/tasks/arc/puzzles.py shows the layouts"
_FIX = (
    "give a challenges file, a folder of task files or a hub name such as "
    f"dataartist/arc-agi ({_LAYOUTS}), or use --config=arc:tiny, which needs no data"
)


class Pair(NamedTuple):
    """An input grid and what the task's rule makes of it."""

    input: Grid
    output: Grid


@dataclasses.dataclass(frozen=True)
class Task:
    """Demonstrations of a rule, and the tests that are solved by applying it."""

    id: str
    train: tuple[Pair, ...]
    tests: tuple[Pair, ...]


def load(source: str | Path, *, split: str) -> dict[str, Task]:
    """Every task of `source` by its id, ids ascending.

    Args:
      source: a challenges file, a single task's file, a folder of task files, or a hub
        name of the form owner/name (see the head of this file).
      split: the hub's split, such as "training" or "evaluation"; unused for files.

    Raises:
      FileNotFoundError: no such file; or the hub cannot be reached or lacks the name.
      ValueError: a task is malformed or has no solution (file and task are named), or
        there is none.
    """
    path = Path(source)
    # An empty name would be the folder one is in.
    with reading.boundary(source, wrong="must be tasks", fix=_FIX):
        if str(source) and files.is_folder(path):
            tasks = _load_folder(path)
        elif files.is_file(path):
            tasks = _load_file(path)
        else:
            tasks = parse_rows(hub.rows(str(source), split, fix=_FIX), str(source))
        return dict(sorted(tasks.items()))


def select(tasks: Mapping[str, Task], ids: Sequence[str]) -> list[Task]:
    """The tasks named by `ids`, in that order.

    Raises:
      ValueError: an id that is not among `tasks`.
    """
    for name in ids:
        if name not in tasks:
            near = difflib.get_close_matches(name, tasks, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(
                f"task {name!r} must be one of the {len(tasks)} of the source{hint}"
            )
    return [tasks[name] for name in ids]


def parse_rows(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, Task]:
    """Tasks of a hub's rows; `name` is the source in messages.

    Raises:
      ValueError: as `load`.
    """
    tasks: dict[str, Task] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"{name}: row {index} must be a row of columns, not {row!r:.40}; {_FIX}"
            )
        task_id = next((row[key] for key in _IDS if key in row), None)
        if not isinstance(task_id, str) or not task_id:
            raise ValueError(
                f"{name}: row {index} must have the task's name in a column id, not "
                f"only {', '.join(map(str, row))}; give another data set, such as "
                "dataartist/arc-agi"
            )
        if task_id in tasks:
            raise ValueError(
                f"{name}: row {index} must not repeat task {task_id!r}; give another "
                "data set, such as dataartist/arc-agi"
            )
        columns = {key: _records(row.get(key)) for key in ("train", "test")}
        tasks[task_id] = _parse_task(columns, None, task_id, name)
    return _some(tasks, name)


def _load_folder(folder: Path) -> dict[str, Task]:
    paths = [path for path in folder.glob("*.json") if not path.name.startswith(".")]
    if not paths:
        inner = {str(path.parent) for path in folder.glob("**/*.json")}
        hint = f", as {min(inner)} does; give that" if inner else f"; {_FIX}"
        raise ValueError(f"{folder}: must hold a JSON file for each task{hint}")
    tasks = {}
    for path in sorted(paths):
        entry = files.read_data(path)
        if isinstance(entry, dict) and "train" not in entry and len(entry) > 1:
            raise ValueError(
                f"{path}: must be one task; it looks like a file of many, give that "
                "file and not its folder"
            )
        tasks[path.stem] = _parse_task(entry, None, path.stem, str(path))
    return tasks


def _load_file(path: Path) -> dict[str, Task]:
    entries = files.read_data(path)
    if not isinstance(entries, dict):
        raise ValueError(
            f"{path}: must be a JSON object of tasks by id, not a "
            f"{type(entries).__name__}; {_LAYOUTS}"
        )
    if isinstance(entries.get("train"), list):
        return {path.stem: _parse_task(entries, None, path.stem, str(path))}
    solutions = None
    beside = path.with_name(path.name.replace("challenges", "solutions"))
    if beside != path and beside.is_file():
        solutions = files.read_data(beside)
        if not isinstance(solutions, dict):
            raise ValueError(
                f"{beside}: must be a JSON object of outputs by task id, not a "
                f"{type(solutions).__name__}; {_LAYOUTS}"
            )
    tasks = {}
    for task_id, entry in entries.items():
        outputs = None if solutions is None else solutions.get(task_id)
        tasks[task_id] = _parse_task(entry, outputs, task_id, str(path))
    return _some(tasks, str(path))


def _some(tasks: dict[str, Task], name: str) -> dict[str, Task]:
    if not tasks:
        raise ValueError(f"{name}: must hold at least one task; {_FIX}")
    return tasks


def _records(value: Any) -> Any:
    """A list of {input, output}; the hub may give {input: [...], output: [...]}."""
    if not isinstance(value, dict):
        return value
    inputs, outputs = value.get("input"), value.get("output")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        return value
    if len(inputs) != len(outputs):
        return value
    return [
        {"input": input_grid, "output": output_grid}
        for input_grid, output_grid in zip(inputs, outputs, strict=True)
    ]


def _parse_task(entry: Any, outputs: Any, task_id: str, source: str) -> Task:
    where = f"{source}: task {task_id!r:.40}"
    if not isinstance(entry, dict):
        raise ValueError(
            f"{where} must be an object with train and test, not {entry!r:.40}; "
            f"{_LAYOUTS}"
        )
    for key in ("train", "test"):
        if not isinstance(entry.get(key), list) or not entry[key]:
            raise ValueError(
                f"{where}: {key}={entry.get(key)!r:.40} must be a list of at least one "
                "pair of grids; add it or remove the task"
            )
    train = tuple(
        _parse_pair(pair, f"{where}, train {i}")
        for i, pair in enumerate(entry["train"])
    )
    tests = _with_outputs(entry["test"], outputs, where)
    return Task(
        task_id,
        train,
        tuple(_parse_pair(pair, f"{where}, test {i}") for i, pair in enumerate(tests)),
    )


def _with_outputs(tests: list[Any], outputs: Any, where: str) -> list[Any]:
    if all(isinstance(t, dict) and t.get("output") is not None for t in tests):
        return tests
    if not isinstance(outputs, list):
        raise ValueError(
            f"{where} must have solutions, as output of each test or in a file of the "
            "same name with solutions instead of challenges; add them"
        )
    if len(outputs) != len(tests):
        raise ValueError(
            f"{where}: its {len(outputs)} solutions must be as many as its "
            f"{len(tests)} tests; add or remove some"
        )
    return [
        {**test, "output": output} if isinstance(test, dict) else test
        for test, output in zip(tests, outputs, strict=True)
    ]


def _parse_pair(pair: Any, where: str) -> Pair:
    if not isinstance(pair, dict):
        raise ValueError(
            f"{where}: {pair!r:.40} must be an object with input and output; {_LAYOUTS}"
        )
    return Pair(
        _parse_grid(pair.get("input"), f"{where}, input"),
        _parse_grid(pair.get("output"), f"{where}, output"),
    )


def _parse_grid(rows: Any, where: str) -> Grid:
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{where}: {rows!r:.40} must be a list of rows; fill it in")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            raise ValueError(
                f"{where}: row {index}={row!r:.40} must be a list of colours; fill "
                "it in"
            )
        for cell in row:
            # A bool is an int to Python, and no colour.
            if type(cell) is not int or not 0 <= cell <= 9:
                raise ValueError(
                    f"{where}: {cell!r:.40} in row {index} must be a colour, an "
                    "integer in 0..9; correct it"
                )
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{where}: row {index} has {len(row)} cells and must have the "
                f"{len(rows[0])} of row 0; correct it"
            )
    if max(len(rows), len(rows[0])) > MOST_SIDE:
        raise ValueError(
            f"{where}: {len(rows)}x{len(rows[0])} cells must be at most {MOST_SIDE}x"
            f"{MOST_SIDE}; remove the task"
        )
    return tuple(tuple(row) for row in rows)
