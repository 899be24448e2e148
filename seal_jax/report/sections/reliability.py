"""How far rewards can be trusted, on a page: by seeds, by round, by schedule."""

import dataclasses
import math
import re
from collections.abc import Sequence

from markupsafe import Markup

from seal_jax.analysis import halving, stats, variance
from seal_jax.report import fragments
from seal_jax.report.charts import plots
from seal_jax.report.charts.plots import Axes, Dot, Series
from seal_jax.report.commands import reliability
from seal_jax.report.commands.reliability import Measured
from seal_jax.report.run_view import Workdir
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

FAILED = -1e6  # the log-likelihood of an adapter that failed: a mark, no measurement
_SEEDS = (1, 2, 3, 4, 6, 8, 12, 24)
_UNIFORM = (1, 2, 3, 4, 6, 8, 12)
_SHOWN_ROWS = 12  # A longer table is folded away.
_ROUND = re.compile(r" round (\d+)")


def of_workdir(run: Workdir) -> list[Measured]:
    """The rewards of each round, and of the other rewards measured beside them.

    None where no edit was graded by two seeds: then nothing can be said of luck.
    """
    if run.path is None or not run.edits:
        return []
    try:
        found = reliability.read(run.path)
    except ValueError:  # Rows of another kind of run: there is nothing to measure.
        return []
    # Those that chose first, of all rounds; then the others.
    known = [tellable(m) for m in sorted(found, key=lambda m: "," in m.name)]
    folder = run.path.name
    return [
        dataclasses.replace(m, name=f"{run.name}{m.name.removeprefix(folder)}")
        for m in known
        if m
    ]


def tellable(measured: Measured) -> Measured | None:
    """`measured` if its seeds can be told from its edits."""
    try:
        variance.anova(measured.rewards)
    except ValueError:  # Too few seeds or edits, which it says of itself.
        return None
    return measured


# By round, or by reward


def table(found: Sequence[Measured]) -> Table:
    """A row for each: variance of edits and of seeds, and what they leave to trust."""
    head = ("rewards", "seeds", "reliability", "95 %", "edit variance")
    head += ("seed variance", "mean", "lead of best", "real", "passages", "edits")
    rows = []
    for m in found:
        parts, seeds = variance.anova(m.rewards), most_seeds(m.rewards)
        trust = variance.reliability(parts, seeds)
        span = variance.reliability_interval(m.rewards, seeds)
        lead, _ = stats.mean_se(variance.best_lead(m.rewards))
        rows.append(
            (
                m.name,
                formatting.count(seeds),
                formatting.number(trust, digits=2),
                formatting.span(*span, digits=2),
                formatting.number(parts.edit, digits=4),
                formatting.number(parts.seed, digits=4),
                formatting.number(parts.mean, digits=4),
                formatting.signed(lead, digits=4),
                formatting.signed(None if trust is None else lead * trust, digits=4),
                formatting.count(parts.passages),
                formatting.count(parts.edits),
                formatting.count(parts.trainings),
            )
        )
    return Table("Reliability of rewards", (*head, "trainings"), rows)


def most_seeds(rewards: variance.Rewards) -> int:
    """Seeds of the edit that has most."""
    return max((len(own) for passage in rewards for own in passage), default=0)


def section(found: Sequence[Measured]) -> Markup:
    """The table, and by round a line for each run and reward; nothing for none."""
    if not found:
        return fragments.NOTHING
    listed = fragments.shown(table(found)._replace(title=""))
    if len(found) > _SHOWN_ROWS:
        listed = fragments.folded("As a table", listed)
    return fragments.section(
        "Reliability of rewards",
        "Reliability: share of the variance among edits' mean rewards that is there "
        "again at fresh seeds. Real: what is expected to remain of the best edit's "
        "lead. Bars: 95 % bootstrap over passages.",
        by_round(found) + listed,
    )


def by_round(found: Sequence[Measured]) -> Markup:
    """Reliability by round, a line for each run and a chart for each kind of reward."""
    kinds: dict[str, dict[str, list[Dot]]] = {}
    numbers = set()
    for m in found:
        match = _ROUND.search(m.name)
        seeds = most_seeds(m.rewards)
        trust = variance.reliability(variance.anova(m.rewards), seeds)
        if match and trust is not None:
            low, high = variance.reliability_interval(m.rewards, seeds)
            dot = Dot(int(match[1]), trust, low, high, f"mean over {_seeds(seeds)}")
            own = kinds.setdefault(m.name[match.end() :].removeprefix(", "), {})
            own.setdefault(m.name[: match.start()], []).append(dot)
            numbers.add(int(match[1]))
    if len(numbers) < 2:
        return fragments.NOTHING
    step = 1 + (len(numbers) - 1) // 16
    ticks = tuple((n, str(n)) for n in sorted(numbers)[::step])
    axes = Axes("round", "reliability", ticks, zero=True)
    charts = []
    for kind, lines in kinds.items():
        series = [
            Series(name, tuple(sorted(dots, key=lambda d: d.x)), i)
            for i, (name, dots) in enumerate(lines.items())
        ]
        title = f"Of {kind or 'the rewards that chose'}"
        drawn = plots.lines(series, axes, f"Reliability by round. {title}")
        drawn = fragments.scroll(drawn)
        charts.append(fragments.headed(title, drawn) if len(kinds) > 1 else drawn)
    return fragments.joined(charts)


# Of one ranking run


def ranking(measured: Measured, *, draws: int = 400) -> Markup:
    """What more seeds would buy, by three charts; a section of the page.

    Raises:
      ValueError: as `variance.anova`.
    """
    edits = max(map(len, measured.rewards))
    parts = [
        fragments.shown(table([measured])._replace(title="")),
        fragments.headed("Reliability by seeds", _scrolled(by_seeds(measured))),
        fragments.headed(
            f"Gain of the best of {edits} edits over the mean edit",
            _scrolled(gains(measured)),
        ),
    ]
    for count in (edits, 4 * edits):
        parts.append(
            fragments.headed(
                f"Equal seeds or halving, {count} edits a passage",
                _scrolled(schedules(measured, count, draws=draws)),
            )
        )
    text = reliability.describe(measured, draws=draws)
    parts.append(fragments.folded("As tables", fragments.pre(text)))
    return fragments.section(
        f"Reliability of rewards: {measured.name}",
        "Reliability: share of the variance among edits' mean rewards that is there "
        "again at fresh seeds; band: 95 % bootstrap over passages. Apparent: the best "
        "edit's lead in the rewards it was chosen by; real: what is expected at fresh "
        "seeds; perfect: if it were chosen by true values; held out: measured on seeds "
        "it was not chosen by, with its standard error.",
        fragments.joined(parts),
    )


_scrolled = fragments.scroll


def by_seeds(measured: Measured) -> Markup:
    """Reliability of the mean over k seeds, with its interval; the seeds that are."""
    parts, here = variance.anova(measured.rewards), most_seeds(measured.rewards)
    dots = []
    for k in sorted({*_SEEDS, here}):
        trust = variance.reliability(parts, k)
        if trust is not None:
            low, high = variance.reliability_interval(measured.rewards, k)
            dots.append(Dot(_place(k), trust, low, high, _seeds(k)))
    series = [Series("reliability", tuple(dots), 0, band=True)]
    axes = Axes(
        "seeds of each edit",
        "reliability",
        _places(sorted({*_SEEDS, here})),
        zero=True,
        marks=((_place(here), f"measured: {_seeds(here)}"),),
    )
    return plots.lines(series, axes, "Reliability by number of seeds")


def gains(measured: Measured) -> Markup:
    """Apparent, real, perfect and held-out gain of the best edit, by seeds."""
    parts, here = variance.anova(measured.rewards), most_seeds(measured.rewards)
    edits = max(map(len, measured.rewards))
    counts = sorted({*_SEEDS, here})
    found = [variance.expected_gain(parts, edits, k) for k in counts]

    def line(name: str, style: int) -> Series:
        values = [getattr(gain, name) for gain in found]
        dots = [
            Dot(_place(k), v, note=_seeds(k))
            for k, v in zip(counts, values, strict=True)
        ]
        return Series(name, tuple(dots), style)

    measured_dots = []
    for k in range(1, here):
        mean, se = held_out(measured, halving.uniform(k))
        if mean is not None:
            measured_dots.append(plots.erring(_place(k), mean, se, _seeds(k)))
    series = [
        line("apparent", 1),
        line("perfect", 2),
        line("real", 0),
        Series("held out", tuple(measured_dots), 3, joined=False),
    ]
    axes = Axes("seeds of each edit", "gain in reward", _places(counts), zero=True)
    return plots.lines(series, axes, "Gain of the best edit by number of seeds")


def schedules(measured: Measured, edits: int, *, draws: int = 400) -> Markup:
    """Real gain against trainings, of equal seeds for all and of halving."""
    parts = variance.anova(measured.rewards)

    def graded(plan: halving.Schedule) -> halving.Grade:
        return halving.resample(
            measured.rewards,
            plan,
            edit=parts.edit,
            seed=parts.seed,
            edits=edits,
            draws=draws,
        )

    def dots(plans: Sequence[tuple[str, halving.Schedule]]) -> tuple[Dot, ...]:
        made = [(name, graded(plan)) for name, plan in plans]
        found = [Dot(_place(g.trainings), g.gain, note=name) for name, g in made]
        return tuple(sorted(found, key=lambda d: d.x))

    same = dots([(_seeds(k), halving.uniform(k)) for k in _UNIFORM])
    halved = dots([(steps(plan), plan) for plan in halvings(edits)])
    series = [Series("equal seeds", same, 1), Series("halving", halved, 0)]
    ends = [2**d.x for d in (*same, *halved)]
    ticks = [edits * k for k in (1, 2, 4, 8, 16, 32) if edits * k <= 1.2 * max(ends)]
    axes = Axes(
        "trainings for each passage",
        "real gain in reward",
        _places(ticks),
        zero=True,
        reference=(graded(halving.uniform(1)).perfect, "the truly best edit"),
    )
    return plots.lines(series, axes, f"Gain by trainings, of {edits} edits")


def halvings(edits: int) -> list[halving.Schedule]:
    """The schedules that `reliability` prints: halved once, and until one is left."""
    once = (halving.Rung(1, math.ceil(edits / 2)), halving.Rung(2, 1))
    return [once, *(halving.schedule(edits, first=first) for first in (1, 2, 3))]


def steps(plan: halving.Schedule) -> str:
    """1>3, 2>1: after 1 seed 3 edits stay, after 2 seeds 1."""
    return ", ".join(f"{rung.seeds}>{rung.keep}" for rung in plan)


def held_out(
    measured: Measured, plan: halving.Schedule
) -> tuple[float | None, float | None]:
    """Gain on the seeds not raced with, and its standard error over passages."""
    most = plan[-1].seeds
    there = [
        (own, judge)
        for own, judge in zip(measured.rewards, measured.judge, strict=True)
        if most_seeds([own]) > most and len(own) >= plan[0].keep
    ]
    found = halving.held_out(
        [own for own, _ in there], plan, of=[judge for _, judge in there]
    )
    known = [gain for gain in found if gain is not None]
    return stats.mean_se(known) if known else (None, None)


def _place(count: float) -> float:
    """Equal factors are equally far apart."""
    return math.log2(count)


def _places(counts: Sequence[int]) -> tuple[tuple[float, str], ...]:
    return tuple((_place(k), f"{k:,}") for k in counts)


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
