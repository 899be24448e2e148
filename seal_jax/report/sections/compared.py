"""Several runs side by side: what differs between their configs, and over seeds.

Runs whose configs are the same but for the seed are a group. Over the runs of a group
each row of the ladder, and each paired difference of two rows, has a mean and Student's
interval: what would come out with other seeds, where a run's own intervals are over its
items.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from seal_jax.analysis import stats
from seal_jax.report import fragments, run_view
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import ladder as ladder_section
from seal_jax.runtime import formatting, reading, records
from seal_jax.runtime.formatting import Table

# What makes two runs of one experiment: other random numbers, and other passages.
SEEDS = ("seed", "task.shuffle_seed")
LADDER = "Ladder over seeds"
_ABSENT = "(absent)"
_LONGEST = 40

_DIFFERS = (
    "Keys whose values are not the same in all runs; all others are, but for where a "
    "run was to be watched."
)
OVER_SEEDS = (
    "Runs of the same config but for the seed, together: the mean over them, and the "
    "95 % interval of Student's t, which is over seeds. One seed has no interval."
)


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds, which all differ.

    `name`: what tells it from the other groups. `again`: runs that have the seeds of
    one before them, and so are not in it.
    """

    name: str
    runs: tuple[Workdir, ...]
    again: tuple[str, ...] = ()


# What differs


def differences(runs: Sequence[Workdir]) -> Table:
    """The keys in which the configs of these runs differ; no rows for none.

    A row is a key, or where there are more runs than keys, a run.
    """
    runs = [run for run in runs if run.config]
    by_key = _differing([_leaves(run) for run in runs])
    title = "What differs between the configs"
    names = [run.name for run in runs]
    if len(runs) < 2 or not by_key:
        return Table(title, (), ())
    if len(runs) <= len(by_key):
        rows = [(key, *map(_short, texts)) for key, texts in by_key.items()]
        return Table(title, ("", *names), rows)
    rows = [
        (name, *(_short(texts[i]) for texts in by_key.values()))
        for i, name in enumerate(names)
    ]
    return Table(title, ("", *by_key), rows)


def _leaves(run: Workdir) -> dict[str, str]:
    """{dotted key: value as JSON text} of what decides a run's result."""
    flat = records.leaves(records.without_aside(run.config))
    return {key: json.dumps(value, sort_keys=True) for key, value in flat.items()}


def _differing(configs: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """{key: its value in each config}, of the keys whose values differ."""
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [c.get(key, _ABSENT) for c in configs] for key in keys}
    return {key: texts for key, texts in values.items() if len(set(texts)) > 1}


def _short(text: str) -> str:
    shown = reading.printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


# Over seeds


def groups(runs: Sequence[Workdir], *, having: str = "ladder") -> list[Group]:
    """Runs by config but for the seed; none if every run is alone.

    `having`: the rows of the summary that a run must have.
    """
    alike: dict[tuple[tuple[str, str], ...], list[Workdir]] = {}
    for run in runs:
        own_seeds = run.kind == run_view.OVER_SEEDS
        if run.config and run_view.rows(run.summary, having) and not own_seeds:
            rest = {k: v for k, v in _leaves(run).items() if k not in SEEDS}
            alike.setdefault(tuple(sorted(rest.items())), []).append(run)
    varied = _differing([dict(rest) for rest in alike])
    found = []
    for i, members in enumerate(alike.values()):
        by_seed: dict[tuple[str, ...], Workdir] = {}
        again = []
        for run in members:
            leaves = _leaves(run)
            seed = tuple(leaves.get(key, _ABSENT) for key in SEEDS)
            if by_seed.setdefault(seed, run) is not run:
                again.append(run.name)
        name = " ".join(f"{key}={_short(texts[i])}" for key, texts in varied.items())
        found.append(Group(name, tuple(by_seed.values()), tuple(again)))
    return found if any(len(group.runs) > 1 for group in found) else []


def group_names(runs: Sequence[Workdir]) -> dict[str, str]:
    """By the name of each run that is in a group, the group's."""
    return {
        run.name: group.name or "all runs"
        for group in groups(runs)
        for run in group.runs
    }


def tables(runs: Sequence[Workdir]) -> list[Table]:
    """Of the groups: the ladder and the main paired differences, over seeds."""
    found = groups(runs)
    if not found:
        return []
    head = ["", *(group.name or "all runs" for group in found)]
    firsts = [group.runs[0].summary for group in found]
    rows = dict.fromkeys(name for first in firsts for name in _means(first))
    pairs = dict.fromkeys(
        pair for first in firsts for pair in _diffs(ladder_section.main_pairs(first))
    )
    counts = [("seeds", *(formatting.count(len(group.runs)) for group in found))]
    shown = [
        Table(
            LADDER,
            head,
            counts + _lines(found, rows, _means, formatting.number),
        ),
        Table(
            "Paired differences over seeds",
            head,
            _lines(
                found,
                pairs,
                lambda summary: _diffs(run_view.rows(summary, "paired")),
                formatting.signed,
            ),
        ),
    ]
    return [table for table in shown if table.rows]


def _lines(
    found: Sequence[Group],
    names: dict[str, None],
    values: Callable[[dict[str, Any]], dict[str, float]],
    shown: Callable[[float | None], str],
) -> list[tuple[str, ...]]:
    """A row for each name: in each group the mean of its value, with the interval."""
    lines = []
    for name in names:
        cells = []
        for group in found:
            each = [values(run.summary).get(name) for run in group.runs]
            mean = stats.mean(each)
            low, high = stats.student(each)
            span = "" if low is None else f" ({shown(low)} to {shown(high)})"
            cells.append(f"{shown(mean)}{span}")
        lines.append((name, *cells))
    return lines


def _means(summary: dict[str, Any]) -> dict[str, float]:
    """The ladder's rows that have a mean."""
    return {
        str(row.get("name")): mean
        for row in run_view.rows(summary, "ladder")
        if (mean := formatting.measured(row.get("mean"))) is not None
    }


def _diffs(pairs: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {
        f"{pair.get('a')} - {pair.get('b')}": diff
        for pair in pairs
        if not pair.get("what")
        and (diff := formatting.measured(pair.get("diff"))) is not None
    }


def notes(runs: Sequence[Workdir]) -> list[str]:
    """A line on runs that are left out of their group."""
    return [
        f"{name} has config and seed of another run here, and is no seed of its own"
        for group in groups(runs)
        for name in group.again
    ]


# On a page


def sections(runs: Sequence[Workdir]) -> list[Markup]:
    """Both as parts of a page; nothing for a lone run."""
    parts = []
    differ, over = differences(runs), tables(runs)
    if differ.rows:
        shown = fragments.table(differ.head, differ.rows, css="close")
        parts.append(fragments.section(differ.title, _DIFFERS, shown))
    if over:
        left_out = fragments.joined(map(fragments.lead, notes(runs)))
        body = fragments.joined(map(fragments.shown, over))
        parts.append(fragments.section("Over seeds", OVER_SEEDS, body + left_out))
    return parts
