"""How far rewards can be trusted, on a page: by seeds, by round, by schedule."""

import dataclasses
import math
import re
from collections.abc import Sequence

from markupsafe import Markup

from seal_jax.analysis import halving, reliability, variance
from seal_jax.analysis.reliability import SeedRewards
from seal_jax.report import fragments, read_seeds
from seal_jax.report.charts import plots
from seal_jax.report.charts.plots import Axes, Dot, Series
from seal_jax.report.run_view import Workdir
from seal_jax.report.tables import reliability as reliability_table
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

_SEEDS = (1, 2, 3, 4, 6, 8, 12, 24)
_UNIFORM = (1, 2, 3, 4, 6, 8, 12)
_SHOWN_ROWS = 12  # A longer table is folded away.
_ROUND = re.compile(r" round (\d+)")


def of_workdir(run: Workdir) -> list[SeedRewards]:
    """The rewards of each round, and of the other rewards measured beside them.

    None where no edit was graded by two seeds: then nothing can be said of luck.
    """
    if run.path is None or not run.edits:
        return []
    try:
        measured = read_seeds.read(run.path)
    except ValueError:  # Rows of another kind of run: there is nothing to measure.
        return []
    # Those that chose first, of all rounds; then the others.
    folder = run.path.name
    return [
        dataclasses.replace(m, name=f"{run.name}{m.name.removeprefix(folder)}")
        for m in sorted(measured, key=lambda m: "," in m.name)
        if reliability.is_separable(m.rewards)
    ]


# By round, or by reward


def table(measured: Sequence[SeedRewards]) -> Table:
    """A row for each: variance of edits and of seeds, and what they leave to trust."""
    head = ("rewards", "seeds", "reliability", "95 %", "edit variance")
    head += ("seed variance", "mean", "lead of best", "real", "passages", "edits")
    rows = []
    for m in measured:
        trust = reliability.trust(m.rewards)
        parts = trust.parts
        span = variance.reliability_interval(m.rewards, trust.seeds)
        rows.append(
            (
                m.name,
                formatting.count(trust.seeds),
                formatting.number(trust.reliability, digits=2),
                formatting.span(*span, digits=2),
                formatting.number(parts.edit, digits=4),
                formatting.number(parts.seed, digits=4),
                formatting.number(parts.mean, digits=4),
                formatting.signed(trust.lead, digits=4),
                formatting.signed(trust.real, digits=4),
                formatting.count(parts.passages),
                formatting.count(parts.edits),
                formatting.count(parts.trainings),
            )
        )
    return Table("Reliability of rewards", (*head, "trainings"), rows)


def section(measured: Sequence[SeedRewards]) -> Markup:
    """The table, and by round a line for each run and reward; nothing for none."""
    if not measured:
        return fragments.NOTHING
    listed = fragments.shown(table(measured)._replace(title=""))
    if len(measured) > _SHOWN_ROWS:
        listed = fragments.folded("As a table", listed)
    return fragments.section(
        "Reliability of rewards",
        "Reliability: share of the variance among edits' mean rewards that is there "
        "again at fresh seeds. Real: what is expected to remain of the best edit's "
        "lead. Bars: 95 % bootstrap over passages.",
        by_round(measured) + listed,
    )


def by_round(measured: Sequence[SeedRewards]) -> Markup:
    """Reliability by round, a line for each run and a chart for each kind of reward."""
    kinds: dict[str, dict[str, list[Dot]]] = {}
    rounds = set()
    for m in measured:
        match = _ROUND.search(m.name)
        seeds = reliability.most_seeds(m.rewards)
        trust = variance.reliability(variance.anova(m.rewards), seeds)
        if match and trust is not None:
            low, high = variance.reliability_interval(m.rewards, seeds)
            dot = Dot(int(match[1]), trust, low, high, f"mean over {_seeds(seeds)}")
            by_run = kinds.setdefault(m.name[match.end() :].removeprefix(", "), {})
            by_run.setdefault(m.name[: match.start()], []).append(dot)
            rounds.add(int(match[1]))
    if len(rounds) < 2:
        return fragments.NOTHING
    step = 1 + (len(rounds) - 1) // 16
    ticks = tuple((n, str(n)) for n in sorted(rounds)[::step])
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


def ranking(measured: SeedRewards, *, draws: int = 400) -> Markup:
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
    text = reliability_table.describe(measured, draws=draws)
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


def by_seeds(measured: SeedRewards) -> Markup:
    """Reliability of the mean over k seeds, with its interval; the seeds that are."""
    parts, here = (
        variance.anova(measured.rewards),
        reliability.most_seeds(measured.rewards),
    )
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


def gains(measured: SeedRewards) -> Markup:
    """Apparent, real, perfect and held-out gain of the best edit, by seeds."""
    parts, here = (
        variance.anova(measured.rewards),
        reliability.most_seeds(measured.rewards),
    )
    edits = max(map(len, measured.rewards))
    counts = sorted({*_SEEDS, here})
    expected = [variance.expected_gain(parts, edits, k) for k in counts]

    def line(name: str, style: int) -> Series:
        values = [getattr(gain, name) for gain in expected]
        dots = [
            Dot(_place(k), v, note=_seeds(k))
            for k, v in zip(counts, values, strict=True)
        ]
        return Series(name, tuple(dots), style)

    measured_dots = []
    for k in range(1, here):
        mean, se = reliability.held_out(measured, halving.uniform(k))
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


def schedules(measured: SeedRewards, edits: int, *, draws: int = 400) -> Markup:
    """Real gain against trainings, of equal seeds for all and of halving."""
    parts = variance.anova(measured.rewards)

    def grades(plans: Sequence[halving.Schedule]) -> list[halving.Grade]:
        return reliability.resample(
            measured.rewards, parts, plans, edits=edits, draws=draws
        )

    def dots(names: Sequence[str], of: Sequence[halving.Grade]) -> tuple[Dot, ...]:
        pairs = zip(names, of, strict=True)
        placed = [Dot(_place(g.trainings), g.gain, note=name) for name, g in pairs]
        return tuple(sorted(placed, key=lambda d: d.x))

    uniform = grades([halving.uniform(k) for k in _UNIFORM])
    plans = reliability.halvings(edits)
    same = dots([_seeds(k) for k in _UNIFORM], uniform)
    halved = dots([reliability_table.steps(plan) for plan in plans], grades(plans))
    series = [Series("equal seeds", same, 1), Series("halving", halved, 0)]
    ends = [2**d.x for d in (*same, *halved)]
    ticks = [edits * k for k in (1, 2, 4, 8, 16, 32) if edits * k <= 1.2 * max(ends)]
    axes = Axes(
        "trainings for each passage",
        "real gain in reward",
        _places(ticks),
        zero=True,
        reference=(uniform[0].perfect, "the truly best edit"),
    )
    return plots.lines(series, axes, f"Gain by trainings, of {edits} edits")


def _place(count: float) -> float:
    """Equal factors are equally far apart."""
    return math.log2(count)


def _places(counts: Sequence[int]) -> tuple[tuple[float, str], ...]:
    return tuple((_place(k), f"{k:,}") for k in counts)


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
