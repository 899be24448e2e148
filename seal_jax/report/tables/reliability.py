"""What more seeds would buy, as text: by seeds, by budget, by schedule."""

from seal_jax.analysis import halving, reliability, stats, variance
from seal_jax.analysis.reliability import SeedRewards
from seal_jax.runtime import formatting

_SEEDS = (1, 2, 3, 4, 6, 8, 12, 24)
_UNIFORM = (1, 2, 3, 4, 6, 8, 12)
_BUDGETS = (5, 10, 15, 30, 60, 120)
_NOTHING = (formatting.MISSING, formatting.MISSING)


def describe(measured: SeedRewards, *, draws: int = 400) -> str:
    """What `variance` and `halving` say of these rewards, as tables to print.

    Raises:
      ValueError: as `variance.anova`.
    """
    trust = reliability.trust(measured.rewards)
    parts, edits, seeds = trust.parts, trust.edits, trust.seeds
    lines = [
        f"{measured.name}{formatting.raced(measured.raced)}: "
        f"{parts.passages} passages, {parts.edits} edits, "
        f"{parts.trainings} trainings, mean reward {parts.mean:.4f}",
        f"variance: passages {formatting.number(parts.passage, digits=4)}, edits "
        f"{parts.edit:.4f}, seeds {parts.seed:.4f}; of means over {seeds} seeds "
        f"{parts.of_means(seeds):.4f}",
    ]
    for part in parts.clipped:
        lines.append(f"the variance of the {part}s was estimated below 0: taken as 0")
    lines.append(
        f"best of {edits}: lead {formatting.signed(trust.lead, digits=4)} (se "
        f"{formatting.number(trust.lead_se, digits=4)}), of which expected to be real "
        f"{formatting.signed(trust.real, digits=4)}"
    )
    if not reliability.are_equal(measured.rewards, measured.judge):
        lines.append("held out: chosen by these rewards, graded by right answers")
    tables = [_by_seeds(measured, trust), _by_budget(parts)]
    for count in (edits, 4 * edits):
        tables.append(_by_schedule(measured, parts, count, draws))
    return "\n\n".join(["\n".join(lines), *tables])


def steps(plan: halving.Schedule) -> str:
    """1>3, 2>1: after 1 seed 3 edits stay, after 2 seeds 1."""
    return ", ".join(f"{rung.seeds}>{rung.keep}" for rung in plan)


def _by_seeds(measured: SeedRewards, trust: reliability.Trust) -> str:
    parts = trust.parts

    def interval(k: int) -> tuple[float | None, float | None]:
        if not stats.enough(parts.passages):
            return None, None
        return variance.reliability_interval(measured.rewards, k)

    rows = []
    for k in sorted({*_SEEDS, trust.seeds}):
        gain = variance.expected_gain(parts, trust.edits, k)
        rows.append(
            (
                str(k),
                formatting.number(variance.reliability(parts, k), digits=2),
                formatting.span(*interval(k)),
                formatting.number(gain.apparent, digits=4),
                formatting.number(gain.real, digits=4),
                formatting.number(gain.perfect, digits=4),
                *_held_out(measured, halving.uniform(k)),
            )
        )
    head = ("seeds", "reliability", "95 %", "lead", "real", "perfect", "held out", "se")
    return formatting.aligned([head, *rows])


def _by_budget(parts: variance.Components) -> str:
    rows = []
    for budget in _BUDGETS:
        best = variance.splits(parts, budget)[0]
        rows.append(
            (
                str(budget),
                f"{best.edits} x {best.seeds}",
                formatting.number(best.real, digits=4),
            )
        )
    head = ("trainings a passage", "edits x seeds", "real gain")
    return formatting.aligned([head, *rows])


def _by_schedule(
    measured: SeedRewards, parts: variance.Components, edits: int, draws: int
) -> str:
    """Successive halving beside uniform seeds, on resampled passages."""
    names = [f"{k} seed{'' if k == 1 else 's'}" for k in _UNIFORM]
    plans = [halving.uniform(k) for k in _UNIFORM]
    halvings = reliability.halvings(edits)
    names += [f"halving {steps(plan)}" for plan in halvings]
    plans += halvings
    grades = reliability.resample(
        measured.rewards, parts, plans, edits=edits, draws=draws
    )
    curve = [(g.trainings, g.gain) for g in grades[: len(_UNIFORM)]]
    is_measured = edits == max(map(len, measured.rewards))
    rows = []
    for name, plan, grade in zip(names, plans, grades, strict=True):
        equal = halving.uniform_trainings(grade.gain, curve)
        rows.append(
            (
                name,
                str(grade.trainings),
                formatting.number(grade.gain, digits=4),
                formatting.percent(grade.share),
                formatting.number(equal, digits=1),
                *(_held_out(measured, plan) if is_measured else _NOTHING),
            )
        )
    head = (f"of {edits} edits", "trainings", "real gain", "of perfect", "as uniform")
    return formatting.aligned([(*head, "held out", "se"), *rows])


def _held_out(measured: SeedRewards, plan: halving.Schedule) -> tuple[str, str]:
    mean, error = reliability.held_out(measured, plan)
    return formatting.number(mean, digits=4), formatting.number(error, digits=4)
