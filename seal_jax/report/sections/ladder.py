"""The parts of a page about a ladder: its rows, its items, and paired differences."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from seal_jax.analysis import stats
from seal_jax.report import few_shot_view, fragments, run_view
from seal_jax.report.charts import svg
from seal_jax.rounds import ladder_rows
from seal_jax.runtime import formatting

# A longer list of items is folded away.
_SHOWN_ITEMS = 12
_SHOWN_PAIRS = 36


def _kind(name: str) -> str:
    """The CSS class of a ladder row."""
    if ladder_rows.is_round(name):
        return "k-round"
    classes = {"base": "k-base", "oracle": "k-oracle", "self_edits": "k-self"}
    classes[few_shot_view.NO_ADAPTER] = "k-base"
    return classes.get(name, "k-control")


# The row of a run on the job that the others are held against.
STATEMENTS = "edits"


def ladder(summary: dict[str, Any]) -> Markup:
    """Means with intervals, as a chart and as a table; nothing for a continual run."""
    if summary.get("kind") in run_view.OVER:
        return fragments.NOTHING
    if not run_view.rows(summary, "ladder"):
        lead = fragments.lead(str(summary.get("left_out") or "No rows on record."))
        return fragments.section("Ladder", "", lead)
    note, body = _ladder(summary)
    return fragments.section("Ladder", note, body)


def ladders(runs: Sequence[run_view.Workdir]) -> Markup:
    """The ladders of several runs; those drawn by round already are to be opened."""
    bodies = []
    for run in runs:
        if not run_view.rows(run.summary, "ladder"):
            continue
        note, chart = _ladder(run.summary)
        body = fragments.lead(note) + chart
        drawn = bool(run_view.rows(run.summary, "rounds"))
        show = fragments.folded if drawn else fragments.headed
        bodies.append(show(run.name, body))
    if not bodies:
        return fragments.NOTHING
    return fragments.section("Ladders", "", fragments.joined(bodies))


def _ladder(summary: dict[str, Any]) -> tuple[str, str]:
    """How to read the chart; the chart and its table."""
    ladder = run_view.rows(summary, "ladder")
    few_shot = few_shot_view.is_few_shot(summary)
    reference = few_shot_view.reference(summary)
    points, base = [], None
    for row in ladder:
        name = str(row.get("name", formatting.MISSING))
        mean, se, low, high = (
            formatting.measured(row.get(key)) for key in ("mean", "se", "low", "high")
        )
        if mean is None:
            continue
        bounds = None if low is None or high is None else (low, high)
        text = f"{formatting.number(mean)} ± {formatting.number(se)}"
        points.append(svg.Point(name, text, mean, se, _kind(name), bounds))
        base = mean if name == reference else base
    what = (
        "Share of self-edits that solve a held-out task, averaged over tasks."
        if few_shot
        else f"Mean score on {passages(summary)}."
    )
    bounded = any(point.bounds for point in points)
    thin = f"95 % interval ({_interval(summary)})" if bounded else "two"
    return (
        f"{what} Thick bar: one standard error, thin bar: {thin}, dashed: "
        f"{'in context' if few_shot else 'the base model'}.",
        fragments.scroll(svg.intervals(points, reference=base) if points else "")
        + (
            _rates(ladder)
            if few_shot
            else fragments.folded("As a table", _scores(ladder))
        ),
    )


def _interval(summary: dict[str, Any]) -> str:
    if summary.get("kind") == run_view.OVER_SEEDS:
        return "Student's, over seeds"
    return "bootstrap over items"


def _scores(rows: list[dict[str, Any]]) -> Markup:
    """The ladder of a knowledge run as a table."""
    head = ("", "mean", "se", "95 % interval", "n", "empty answers")
    return fragments.table(
        head,
        [
            (
                str(row.get("name", formatting.MISSING)),
                formatting.number(row.get("mean")),
                formatting.number(row.get("se")),
                formatting.span(row.get("low"), row.get("high")),
                formatting.count(row.get("n")),
                formatting.percent(row.get("empty_rate")),
            )
            for row in rows
        ],
    )


def _rates(rows: list[dict[str, Any]]) -> Markup:
    """The ladder of a few-shot run as a table."""
    lines, refused = [], []
    for row in rows:
        counts = few_shot_view.row_counts(row)
        rates = (counts.valid_rate, counts.budget_rate) if counts else (None, None)
        lines.append(
            (
                str(row.get("name", formatting.MISSING)),
                formatting.number(row.get("mean")),
                formatting.number(row.get("se")),
                formatting.span(row.get("low"), row.get("high")),
                formatting.count(row.get("n")),
                formatting.count(counts and counts.drawn),
                *map(formatting.percent, rates),
                formatting.number(row.get("trained_mean") if counts else None),
            )
        )
        if counts and counts.refused:
            refused.append((lines[-1][0], counts.reasons()))
    head = ("", "success", "se", "95 % interval", "tasks", "texts", "valid")
    head += ("in budget", "if trained")
    reasons = fragments.table(("", "texts refused"), refused, css="reasons")
    return fragments.table(head, lines) + (reasons if refused else "")


def items(summary: dict[str, Any]) -> Markup:
    """The mean score of each held-out item."""
    names, item_rows = few_shot_view.items_table(summary)
    if not item_rows:
        return fragments.NOTHING
    rows = []
    for row in item_rows:
        scores = [formatting.measured(row.get(name)) for name in names]
        cells = [fragments.tinted(formatting.number(s, digits=2), s) for s in scores]
        rows.append((str(row.get("item", formatting.MISSING)), *cells))
    table = fragments.table(("", *names), rows)
    if len(rows) > _SHOWN_ITEMS:
        table = fragments.folded(f"{len(rows)} items", table)
    return fragments.section("By item", "Mean score of each held-out item.", table)


def passages(summary: dict[str, Any]) -> str:
    """What the rows of a ladder are scores on."""
    if summary.get("kind") == run_view.POOLED:
        return "the passages that were trained together"
    if summary.get("kind") == run_view.OVER_SEEDS:
        return "held-out passages, a mean for each seed"
    return "held-out passages"


def main_pairs(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the pairs, those of neighbouring rows of the ladder and of its last round.

    All of them where the pairs are not of rows.
    """
    return [row for row in pairs(summary) if _is_main(row, summary)]


def _is_main(pair: dict[str, Any], summary: dict[str, Any]) -> bool:
    """Whether a pair is of neighbouring rows of the ladder or of its last round.

    The row with the passage in view is a ceiling, not a step: it stands beside the base
    alone, and the row after it is the base's neighbour too.
    """
    ends = {pair.get("a"), pair.get("b")}
    if summary.get("kind") == run_view.DEPLOY:
        # Against statements, where they are a row: more than against nothing.
        arms = [row.get("name") for row in run_view.rows(summary, "arms")]
        return STATEMENTS in ends or STATEMENTS not in arms
    if summary.get("kind") == run_view.LMSI:
        # Of what was learned from only where nothing is held out.
        sides = {row.get("what") for row in run_view.rows(summary, "paired")}
        return pair.get("what") != "train" or sides == {"train"}
    names = [row.get("name") for row in run_view.rows(summary, "ladder")]
    if ladder_rows.BASE in names:  # Of few-shot tasks the base has them in view.
        if ladder_rows.IN_CONTEXT in ends:
            return ends == {*ladder_rows.NO_ADAPTER}
        names = [name for name in names if name != ladder_rows.IN_CONTEXT]
    rounds = [name for name in names if ladder_rows.is_round(str(name))]
    if not ends <= set(names):
        return True
    first, second = (names.index(pair.get(side)) for side in ("a", "b"))
    neighbours = abs(first - second) == 1
    return neighbours or bool(rounds and rounds[-1] in ends)


def shared(pair: dict[str, Any], summary: dict[str, Any]) -> float | None:
    """Over how many items a pair is: as it says, else those of its smaller row."""
    recorded = formatting.measured(pair.get("n"))
    ends = (pair.get("a"), pair.get("b"))
    counts = [
        n
        for row in run_view.rows(summary, "ladder")
        if row.get("name") in ends
        and (n := formatting.measured(row.get("n"))) is not None
    ]
    return min(counts, default=None) if recorded is None else recorded


def pairs(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """All pairs of a summary, each with its number of items."""
    recorded = run_view.rows(summary, "paired")
    return [pair | {"n": shared(pair, summary)} for pair in recorded]


def paired(
    rows: Sequence[dict[str, Any]],
    *,
    first: Sequence[dict[str, Any]] | None = None,
    what: str = "passage",
    title: str = "Paired differences",
) -> Markup:
    """Differences over the same items, as intervals against zero; nothing for none.

    Args:
      first: those to show of many; the others are folded away.
    """
    if not rows:
        return fragments.NOTHING
    shown = rows
    if first and len(rows) > _SHOWN_PAIRS:
        shown = first
    others = [row for row in rows if row not in shown]
    body = _pairs(shown, rows)
    if others:
        body += fragments.folded(f"{len(others)} more", _pairs(others, rows))
    return fragments.section(
        title,
        f"Over the same {what}s, so that what makes a {what} hard cancels out. Bold: "
        f"|z| ≥ 2; fewer than {stats.FEWEST} make neither a z nor an interval.",
        body,
    )


def _pairs(shown: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> Markup:
    """Some of `rows` as a table, on an axis and with columns that suit all of them."""
    ends = [0.0]
    for row in rows:
        diff, se = (formatting.measured(row.get(k)) for k in ("diff", "se"))
        ends += [(diff or 0.0) + k * (se or 0.0) for k in (-2, 2)]
    x = svg.fit(ends, 6, 234)
    named = any(row.get("what") for row in rows)
    bounded = any(formatting.measured(row.get("low")) is not None for row in rows)
    cells = []
    for row in shown:
        diff, se, z = (formatting.measured(row.get(k)) for k in ("diff", "se", "z"))
        enough = stats.enough(row.get("n"))
        z = z if enough else None
        ends = (row.get("low"), row.get("high")) if enough else (None, None)
        clear = abs(z or 0.0) >= 2
        css = ("k-up" if (z or 0.0) > 0 else "k-down") if clear else "k-control"
        text = formatting.signed(z, digits=1)
        pair = (
            f"{row.get('a', formatting.MISSING)} − {row.get('b', formatting.MISSING)}"
        )
        cells.append(
            (
                pair,
                ""
                if diff is None
                else svg.interval(x, diff, se if enough else None, css),
                *([str(row.get("what") or formatting.MISSING)] if named else []),
                formatting.count(row.get("n")),
                formatting.signed(diff),
                formatting.number(se),
                fragments.bold(text) if clear else text,
                *([formatting.span(*ends)] if bounded else []),
            )
        )
    head = ("pair", "", *(["of"] if named else []), "n", "difference", "se", "z")
    head += ("95 % interval",) if bounded else ()
    return fragments.table(head, cells, css="pairs")
