"""SEAL result files beside each other, as tables and on a page."""

import itertools
from collections.abc import Sequence
from typing import Any

from seal_jax.analysis import stats
from seal_jax.report import fragments, reference
from seal_jax.report.charts import plots, svg
from seal_jax.report.sections import ladder as ladder_section
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

type Pair = tuple[str, str, int, float, float | None, float | None]


def pairs(results: Sequence[reference.Results]) -> list[Pair]:
    """(a, b, passages, a - b, se, z): gains, then files that share passages."""
    comparisons = [_gain(r) for r in results]
    for a, b in itertools.combinations(results, 2):
        if {x.passage for x in a.articles} & {x.passage for x in b.articles}:
            comparisons.append((b.name, a.name, *reference.paired(b, a)))
    return comparisons


def _gain(r: reference.Results) -> Pair:
    gain = stats.paired(
        [a.adapter for a in r.articles], [a.baseline for a in r.articles]
    )
    return (r.name, "its base", len(r.articles), *gain)


def tables(results: Sequence[reference.Results]) -> list[Table]:
    """One file a row, and the paired differences among them."""
    rows = []
    for r in results:
        base, _ = stats.mean_se([a.baseline for a in r.articles])
        mean, se = stats.mean_se([a.adapter for a in r.articles])
        rows.append(
            (
                r.name,
                formatting.count(len(r.articles)),
                formatting.count(r.completions),
                formatting.number(base, digits=4),
                formatting.number(mean, digits=4),
                formatting.number(se, digits=4),
                formatting.number(r.pooled(), digits=4),
                formatting.percent(r.empty_rate()),
                formatting.number(r.nonempty_accuracy()),
            )
        )
    head = ("", "articles", "edits", "base", "adapter", "se", "pooled", "empty")
    compared = [
        (
            f"{a} - {b}",
            formatting.count(n),
            formatting.signed(diff, digits=4),
            formatting.number(se, digits=4),
            formatting.signed(z if stats.enough(n) else None, digits=1),
        )
        for a, b, n, diff, se, z in pairs(results)
    ]
    paired_head = ("paired difference", "passages", "diff", "se", "z")
    return [
        Table("", (*head, "non-empty"), rows),
        Table("", paired_head, compared),
    ]


def sections(results: Sequence[reference.Results]) -> list[str]:
    """The files' means with intervals, and their paired differences; [] for none."""
    if not results:
        return []
    points = []
    for r in results:
        name = plots.shortened(r.name, 21)
        points.append(_point(name, [a.adapter for a in r.articles], "k-self"))
        points.append(_point("its base", [a.baseline for a in r.articles], "k-base"))
    first = fragments.section(
        "Result files",
        "Mean over passages of the share of questions answered right with an adapter. "
        "Thick bar: one standard error, thin bar: 95 % interval (bootstrap over "
        "passages).",
        fragments.scroll(svg.intervals(points)) + fragments.shown(tables(results)[0]),
    )
    rows: list[dict[str, Any]] = [
        {"a": a, "b": b, "n": n, "diff": diff, "se": se, "z": z}
        for a, b, n, diff, se, z in pairs(results)
    ]
    return [first, ladder_section.paired(rows)]


def _point(name: str, values: Sequence[float], css: str) -> svg.Point:
    mean, se = stats.mean_se(values)
    low, high = stats.interval(values)
    bounds = None if low is None or high is None else (low, high)
    text = f"{formatting.number(mean, digits=4)} ± {formatting.number(se, digits=4)}"
    return svg.Point(name, text, mean, se, css, bounds)
