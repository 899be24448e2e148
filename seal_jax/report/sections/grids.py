"""The part of report.html that draws held-out tasks: what was shown, asked, guessed."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from seal_jax.report import few_shot_view, fragments
from seal_jax.report.charts import svg
from seal_jax.report.few_shot_view import Answer, Grid, Task
from seal_jax.runtime import formatting

# Tasks beyond these are folded away, and beyond so many characters left out.
_OPEN_TASKS = 12
_ROOM = 1_300_000
# Least and most pixels of a grid's longer side, and of a cell in between: of a task's
# own grids, and of the guesses.
_PAIRS, _GUESSES = (80, 160, 6), (76, 120, 4)

type Rows = Sequence[dict[str, Any]]


def section(
    summary: dict[str, Any], heldout: Rows, tasks: Mapping[str, Task]
) -> Markup:
    """Held-out tasks with the guesses of the ladder's main rows.

    Args:
      heldout: rows of heldout.jsonl.
    """
    by_task: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in heldout:
        by_arm = by_task.setdefault(str(row.get("task_id")), {})
        by_arm.setdefault(str(row.get("arm")), []).append(row)
    wanted = (
        few_shot_view.NO_ADAPTER,
        "self_edits",
        few_shot_view.last_round(summary),
        "oracle",
    )
    drawn, size, left = [], 0, 0
    for name, arms in by_task.items():
        if name not in tasks:
            continue
        markup = _task(tasks[name], {a: arms[a] for a in wanted if a in arms})
        size += len(markup)
        if size <= _ROOM:
            drawn.append(markup)
        else:
            left += 1
    if not (drawn or left):
        return fragments.NOTHING
    note = (
        "Two guesses for each test, from the votes of several views; a task is solved "
        "if one of them is right for every test. Of each row of the ladder: the share "
        "of its self-edits that solved the task, and the first one that was trained, "
        "whether it solved it or not."
    )
    if left:
        note += f" {left} more tasks are left out, to keep this page small."
    rest = drawn[_OPEN_TASKS:]
    return fragments.section(
        "Tasks",
        note,
        _legend()
        + fragments.joined(drawn[:_OPEN_TASKS])
        + (
            fragments.folded(f"{len(rest)} more", fragments.joined(rest))
            if rest
            else ""
        ),
    )


def _legend() -> Markup:
    colours = [
        (c, svg.cells([[c]], f"colour {c}", side=12)) for c in few_shot_view.COLOURS
    ]
    return fragments.render("tasks.legend", colours=colours)


def _task(task: Task, arms: Mapping[str, Rows]) -> Markup:
    shown = [_pair(pair, f"demonstration {i}") for i, pair in enumerate(task.train, 1)]
    asked = [_pair(pair, f"test {i}") for i, pair in enumerate(task.tests, 1)]
    arm_rows = [_arm(name, rows, task) for name, rows in arms.items()]
    return fragments.render(
        "tasks.task", name=task.id, shown=shown, asked=asked, arms=arm_rows
    )


def _pair(pair: tuple[Grid | None, Grid | None], caption: str) -> Markup:
    input_grid, output_grid = pair
    return fragments.figure(
        caption,
        fragments.render(
            "tasks.pair",
            given=_grid(input_grid, f"{caption}, input"),
            made=_grid(output_grid, f"{caption}, output"),
        ),
    )


def _grid(
    grid: Grid | None, title: str, sizes: tuple[int, int, int] = _PAIRS
) -> Markup:
    if grid is None:
        return fragments.note("no grid")
    least, most, cell = sizes
    longest = max(len(grid), len(grid[0]))
    return svg.cells(grid, title, side=min(max(cell * longest, least), most))


def _arm(name: str, rows: Rows, task: Task) -> Markup:
    """One row of the ladder on one task."""
    rest = ""
    shares = [few_shot_view.solved(row) or 0.0 for row in rows]
    if name != few_shot_view.NO_ADAPTER:
        share = formatting.percent(sum(shares) / len(shares), digits=0)
        rest = f": {share} of {len(rows)} edits"
    caption = fragments.caption(name, rest)
    trained = [row for row in rows if not row.get("refused")]
    if not trained:
        reasons = few_shot_view.edit_counts(rows).reasons()
        return fragments.figure(caption, fragments.lead(f"refused: {reasons}"))
    seeds = trained[0].get("answers") or [[]]
    return fragments.figure(
        caption,
        _guesses(task, few_shot_view.answers(seeds[0]))
        + fragments.lead(few_shot_view.brief(trained[0])),
    )


def answers(task: Task | None, seeds: Sequence[Any]) -> Markup:
    """The guesses of every adapter of a self-edit, beside the task if it is known."""
    asked = [_pair(p, f"test {i}") for i, p in enumerate(task.tests, 1)] if task else []
    figures = [
        fragments.figure(
            fragments.bold(f"seed {seed}"),
            _guesses(task, few_shot_view.answers(tests)),
        )
        for seed, tests in enumerate(seeds)
    ]
    if not figures:
        return fragments.lead("No answers on record.")
    return fragments.render("tasks.row", figures=[*asked, *figures])


def _guesses(task: Task | None, tests: Sequence[Answer]) -> Markup:
    if not tests:
        return fragments.lead("No answers on record.")
    parts = []
    for i, test in enumerate(tests):
        true = task.tests[i][1] if task and i < len(task.tests) else None
        label = [f"test {i + 1}"] if len(tests) > 1 else []
        label += [fragments.verdict(test.right)] if true is None else []
        drawn = [fragments.note(_spaced(label))] if label else []
        for k, guess in enumerate(test.guesses, 1):
            right = guess == true
            title = f"test {i + 1}, guess {k}{', right' if right else ''}"
            mark = fragments.verdict(right) if true is not None else ""
            drawn.append(
                fragments.render(
                    "tasks.guess",
                    drawn=_grid(guess, title, _GUESSES),
                    right=right,
                    mark=mark,
                )
            )
        if not test.guesses:
            mark = fragments.verdict(False)
            drawn.append(fragments.note(_spaced(["no grid answered", mark])))
        parts.append(fragments.render("tasks.guesses", drawn=drawn))
    return fragments.joined(parts)


def _spaced(parts: Sequence[str]) -> Markup:
    return Markup(" ").join(parts)
