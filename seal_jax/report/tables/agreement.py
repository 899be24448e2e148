"""How well rewards agree with the true one, as rows of text."""

import re
from collections.abc import Mapping, Sequence

from seal_jax.analysis import stats
from seal_jax.analysis.agreement import AllRewards
from seal_jax.runtime import formatting

ROUND = re.compile(r" round (\d+)$")


def title(measured: AllRewards) -> str:
    """The name, and which seeds and edits count if not all."""
    sifted = " (what a prefilter let through)" if measured.sifted else ""
    return f"{measured.name}{formatting.raced(measured.raced)}{sifted}"


def table(measured: AllRewards) -> list[tuple[str, ...]]:
    """A heading and a row per reward, as text; see `commands.agreement`."""
    rows: list[tuple[str, ...]] = [
        (
            title(measured),
            "passages",
            "pooled",
            "95 %",
            "mean ± se",
            "rank ± se",
            "finds best ± se",
            "by chance",
            "pick ± se",
            "mean",
            "best",
            "captured",
            "95 %",
        )
    ]
    for name, a in measured.agreements.items():
        if a is None:
            rows.append((name, "0", *[formatting.MISSING] * 11))
            continue
        rows.append(
            (
                name,
                formatting.count(a.passages),
                formatting.signed(a.pooled),
                formatting.span(*a.pooled_interval, digits=2),
                formatting.plus_minus(*a.pearson),
                formatting.plus_minus(*a.spearman),
                formatting.plus_minus(*a.found),
                formatting.number(a.chance),
                formatting.plus_minus(*a.pick),
                formatting.number(a.mean),
                formatting.number(a.best),
                formatting.percent(a.captured, digits=0),
                formatting.percents(*a.captured_interval),
            )
        )
    return rows


def by_round(
    measured: Sequence[AllRewards], groups: Mapping[str, str] | None = None
) -> list[tuple[str, ...]]:
    """Does a reward drift from the true one: what it captures, round by round.

    A heading, and for each reward a row of what it captures and one of its correlation
    within passages (`pooled`). No rows where no run has several rounds.

    Args:
      measured: by their names rounds of runs.
      groups: by a run's name that of its group, whose runs are put together: the mean,
        with Student's interval over them. None: all runs are one.
    """
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    runs: dict[str, dict[str, None]] = {}
    for m in measured:
        match = ROUND.search(m.name)
        if match is None:
            continue
        run, number = m.name[: match.start()], int(match[1])
        group = "" if groups is None else groups.get(run, run)
        runs.setdefault(group, {})[run] = None
        for reward, a in m.agreements.items():
            for what, value in (
                ("captured", a and a.captured),
                ("correlation", a and a.pooled),
            ):
                if value is not None:
                    row = found.setdefault((group, f"{reward}: {what}"), {})
                    row.setdefault(number, []).append(value)
    numbers = sorted({n for values in found.values() for n in values})
    if len(numbers) < 2:
        return []
    rows = []
    for (group, what), values in found.items():
        named = f"{group}: {what}" if group else what
        cells = [_over(values.get(n, ())) for n in numbers]
        rows.append((named, formatting.count(len(runs[group])), *cells))
    return [("by round", "runs", *(f"round {n}" for n in numbers)), *rows]


def _over(values: Sequence[float]) -> str:
    low, high = stats.student(values)
    span = "" if low is None else f" ({formatting.span(low, high, digits=2)})"
    return f"{formatting.number(stats.mean(values), digits=2)}{span}"
