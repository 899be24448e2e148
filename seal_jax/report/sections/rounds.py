"""Rounds side by side, of one run or several: scores, rewards, and where they end."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from seal_jax.analysis import plateau, stats
from seal_jax.report import few_shot_view, fragments, run_view
from seal_jax.report.charts import plots
from seal_jax.report.run_view import Workdir
from seal_jax.report.sections import ladder as ladder_section
from seal_jax.rounds import ladder_rows
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

_BEFORE = "self_edits"  # of the base policy: round 0
# A longer table is folded away.
_SHOWN_ROWS = 12
_MEANS = (("sampled", "sampled"), ("best of E", "best"), ("kept", "kept"))


def scores(summary: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The ladder's rows by round; 0 is before the first."""
    by_round = {}
    for row in run_view.rows(summary, "ladder"):
        number = _number(row.get("name"))
        if number is not None:
            by_round[number] = row
    return dict(sorted(by_round.items()))


def _number(name: Any) -> int | None:
    if name == _BEFORE:
        return 0
    return ladder_rows.round_of(str(name))


def has_rounds(summary: dict[str, Any]) -> bool:
    """Whether there is a round to draw."""
    return any(scores(summary)) or bool(run_view.rows(summary, "rounds"))


# Tables


def tables(runs: Sequence[Workdir]) -> list[Table]:
    """The ladder by round of each run, its rounds in numbers, and where it ended."""
    runs = [run for run in runs if has_rounds(run.summary)]
    if not runs:
        return []
    return [_ladder(runs), _ends(runs), _rounds(runs)]


def _ladder(runs: Sequence[Workdir]) -> Table:
    last = max((max(scores(run.summary), default=0) for run in runs), default=0)
    head = ("run", "base", *(f"round {i}" for i in range(last + 1)))
    rows = []
    for run in runs:
        by_round = scores(run.summary)
        means = [by_round.get(i, {}).get("mean") for i in range(last + 1)]
        rows.append(
            (
                run.name,
                formatting.number(_base(run.summary)),
                *map(formatting.number, means),
            )
        )
    return Table("Ladder by round", head, rows)


def _ends(runs: Sequence[Workdir]) -> Table:
    head = ("run", "n", "last − round 0", "se", "z", "plateau", "trainings", "adapters")
    head += ("ended",)
    rows = []
    for run in runs:
        gain = _gain(run.summary)
        n = gain.get("n")
        rows.append(
            (
                run.name,
                formatting.count(n),
                formatting.signed(gain.get("diff")),
                formatting.number(gain.get("se")),
                formatting.signed(gain.get("z") if stats.enough(n) else None, digits=1),
                formatting.count(plateau_of(run.summary)),
                formatting.count(_trainings(run.summary)),
                formatting.count(run.summary.get("adapters")),
                ended(run.summary),
            )
        )
    return Table("Where the rounds ended", head, rows)


def _base(summary: dict[str, Any]) -> float | None:
    reference = few_shot_view.reference(summary)
    for row in run_view.rows(summary, "ladder"):
        if row.get("name") == reference:
            return formatting.measured(row.get("mean"))
    return None


def _gain(summary: dict[str, Any]) -> dict[str, Any]:
    """The paired difference of the last round and round 0; {} where there is none."""
    last = max(scores(summary), default=0)
    for row in ladder_section.pairs(summary):
        if (row.get("a"), row.get("b")) == (f"round_{last}", _BEFORE):
            return row
    return {}


def plateau_of(summary: dict[str, Any]) -> int | None:
    """The first round that no later one is clearly above, over the same items.

    None where that is only the last, or nothing is known (`plateau.plateaus`).
    """
    names = [_BEFORE if r == 0 else f"round_{r}" for r in scores(summary)]
    items = run_view.rows(summary, "items")
    values = [[formatting.measured(item.get(name)) for item in items] for name in names]
    at = plateau.plateaus(values) if items and len(names) > 1 else None
    return None if at is None else list(scores(summary))[at]


def _trainings(summary: dict[str, Any]) -> float | None:
    """Adapters trained for rewards, over all rounds."""
    counts = [formatting.measured(r.get("trainings")) for r in _lines(summary)]
    counted = [n for n in counts if n is not None]
    return sum(counted) if counted else None


def _lines(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return run_view.rows(summary, "rounds")


def ended(summary: dict[str, Any]) -> str:
    """Where a run ended, and why if it stopped before its time."""
    count = max(len(_lines(summary)), max(scores(summary), default=0))
    text = f"after {count} round{'' if count == 1 else 's'}"
    stopped = summary.get("stopped")
    return f"{text}: {stopped}" if stopped else text


def reward_of(run: Workdir) -> str | None:
    """What an edit of the run is worth, the unit of its rewards, if on record."""
    settings = run.config.get("select")
    value = settings.get("reward") if isinstance(settings, dict) else None
    return value if isinstance(value, str) else None


def _rounds(runs: Sequence[Workdir]) -> Table:
    head = (
        "run",
        "reward",
        "round",
        "sampled",
        "best of E",
        "kept",
        "edits kept",
        "trainings",
    )
    rows = [
        (
            run.name,
            reward_of(run) or formatting.MISSING,
            formatting.count(line.get("round")),
            *(formatting.number(line.get(f"{key}_mean")) for _, key in _MEANS),
            formatting.count(line.get("kept")),
            formatting.count(line.get("trainings")),
        )
        for run in runs
        for line in _lines(run.summary)
    ]
    return Table("Rewards by round", head, rows)


# Charts


def section(runs: Sequence[Workdir]) -> Markup:
    """The score and the rewards by round, a line for each run; nothing without rounds.

    A single run with a single round has nothing to draw by round, and its rewards are
    told in a section of their own.
    """
    runs = [run for run in runs if has_rounds(run.summary)]
    if not runs:
        return fragments.NOTHING
    alone = len(runs) == 1
    ladder, ends, rewards = tables(runs)
    drawn = ladder_chart(runs)
    parts = [fragments.scroll(drawn)]
    if drawn or not alone:
        parts.append(fragments.shown(ladder._replace(title="")))
    if drawn or not alone or runs[0].summary.get("stopped"):
        # Its last column is text, and may be long.
        parts.append(fragments.shown(ends, css="close reasons"))
    parts.append(rewards_chart(runs))
    if not alone:
        parts.append(_shown_or_folded(rewards))
    if not any(parts):
        return fragments.NOTHING
    return fragments.section(
        "Rounds",
        "Mean score on held-out items of what the policy writes after each round; 0 is "
        "the policy that no round has changed. Bars: one standard error. Plateau: the "
        "first round that no later one is above by two paired standard errors.",
        fragments.joined(parts),
    )


def _shown_or_folded(table: Table) -> Markup:
    if len(table.rows) <= _SHOWN_ROWS:
        return fragments.shown(table)
    inner = fragments.shown(table._replace(title=""))
    return fragments.folded(table.title, inner)


def ladder_chart(runs: Sequence[Workdir]) -> Markup:
    """The score on held-out items by round, a line for each run."""
    series, ends = [], set()
    for style, run in enumerate(runs):
        dots = []
        for number, row in scores(run.summary).items():
            mean, se = (formatting.measured(row.get(k)) for k in ("mean", "se"))
            if mean is not None:
                dots.append(plots.erring(number, mean, se))
                ends.add(number)
        series.append(plots.Series(run.name, tuple(dots), style))
    if len(ends) < 2:
        return fragments.NOTHING
    bases = {_base(run.summary) for run in runs}
    same = bases.pop() if len(bases) == 1 else None
    at = plateau_of(runs[0].summary) if len(runs) == 1 else None
    axes = plots.Axes(
        x="rounds",
        y="score",
        ticks=_ticks(ends),
        reference=None if same is None else (same, "base model, no adapter"),
        marks=() if at is None else ((at, f"no round is clearly above {at}"),),
    )
    return plots.lines(series, axes, "Held-out score by round")


def rewards_chart(runs: Sequence[Workdir]) -> Markup:
    """Rewards while sampling: of all edits, of the best, of those kept.

    Of one run three lines in one chart, of several a small chart for each. Runs that
    were decided by different rewards are drawn apart: these share no unit.
    """
    by_reward: dict[str | None, list[tuple[int, Workdir]]] = {}
    for style, run in enumerate(runs):
        by_reward.setdefault(reward_of(run), []).append((style, run))
    apart = len(by_reward) > 1
    return fragments.joined(
        _rewards_chart(
            styled_runs, f": {reward or 'reward not on record'}" if apart else ""
        )
        for reward, styled_runs in by_reward.items()
    )


def _rewards_chart(runs: Sequence[tuple[int, Workdir]], end: str) -> Markup:
    """Of runs with one reward, each with its style; `end` is of the title."""
    lines = {
        label: [_rewards(run, f"{key}_mean") for _, run in runs]
        for label, key in _MEANS
    }
    ends = {int(d.x) for by_run in lines.values() for dots in by_run for d in dots}
    if len(ends) < 2:
        return fragments.NOTHING
    ticks, title = _ticks(ends), f"Rewards by round{end}"
    if len(runs) == 1:
        axes = plots.Axes("round", "reward while sampling", ticks)
        series = [
            plots.Series(label, by_run[0], style)
            for style, (label, by_run) in enumerate(lines.items())
        ]
        named = f"{title}: {runs[0][1].name}" if end else title
        drawn = plots.lines(series, axes, named)
        return fragments.headed(named, fragments.scroll(drawn))
    figures, series = [], []
    for label, by_run in lines.items():
        series = [
            plots.Series(run.name, dots, style)
            for (style, run), dots in zip(runs, by_run, strict=True)
        ]
        axes = plots.Axes("round", "", ticks)
        drawn = plots.lines(series, axes, f"{title}, {label}", small=True)
        figures.append(fragments.figure(fragments.bold(label), drawn))
    legend = fragments.scroll(plots.legend(series))
    return fragments.headed(title, legend + fragments.small_charts(figures))


def _rewards(run: Workdir, key: str) -> tuple[plots.Dot, ...]:
    dots = []
    for line in _lines(run.summary):
        mean, number = (formatting.measured(line.get(k)) for k in (key, "round"))
        if mean is not None and number is not None:
            dots.append(plots.Dot(number, mean))
    return tuple(dots)


def _ticks(numbers: set[int]) -> tuple[tuple[float, str], ...]:
    step = 1 + (len(numbers) - 1) // 16
    return tuple((n, str(n)) for n in sorted(numbers)[::step])
