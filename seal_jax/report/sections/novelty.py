"""How new self-edits are, by file and by round, on a page."""

import dataclasses
import itertools
import re
from collections.abc import Sequence

from markupsafe import Markup

from seal_jax.analysis import novelty, novelty_measures
from seal_jax.report import fragments, read_texts, run_view
from seal_jax.report.charts import plots, svg
from seal_jax.report.run_view import Workdir
from seal_jax.report.tables import novelty as novelty_table
from seal_jax.runtime import formatting
from seal_jax.runtime.formatting import Table

NOTE = (
    "Means over passages. novel3: share of an edit's word trigrams that its passage "
    "lacks. cov3: share of the passage's trigrams that the edit repeats. jaccard3: how "
    "alike two edits of a passage are. distinct2: different bigrams over all of them. "
    "zlib: how far the edits compress. Distinct-2 and zlib depend on how much was "
    "written, so compare rows of equally many edits."
)
# What the policy writes before round 1.
_HELD_OUT = " held-out"
_BEFORE, _FIRST = f"{_HELD_OUT} self_edits", f"{_HELD_OUT} round_0"
_ROUND = re.compile(r"(?:\bround[ _]|iter_?)(\d+)")
_SHOWN_ROWS = 12  # A longer table is folded away.
_CHARTS = ("novel3", "cov3", "jaccard3", "distinct2", "zlib", "words")


def of_workdir(run: Workdir) -> list[novelty.Edits]:
    """A run's self-edits by round and arm; none where they are not about passages."""
    if run.path is None or not _has_passages(run):
        return []
    try:
        groups = read_texts.read(run.path, name=run.name)
    except ValueError:  # Rows of another kind of edit: there is nothing to measure.
        return []
    return [*map(_encodable, groups)]


def _has_passages(run: Workdir) -> bool:
    """Whether there are edits about passages."""
    return any("passage" in row for row in run.edits)


def _encodable(edits: novelty.Edits) -> novelty.Edits:
    """With "?" for half characters, which a policy may write and no file can hold."""
    whole = {
        passage: tuple(t.encode(errors="replace").decode() for t in texts)
        for passage, texts in edits.by_passage.items()
    }
    return dataclasses.replace(edits, by_passage=whole)


def tables(
    groups: Sequence[novelty.Edits], runs: Sequence[Sequence[novelty.Edits]] = ()
) -> list[Table]:
    """A row for each set of edits, and one for each two that share passages.

    Args:
      groups: of files; every two are compared.
      runs: of each workdir; only neighbouring rounds are compared.
    """
    together = [*groups, *itertools.chain(*runs)]
    if not together:
        return []
    head, *rows = novelty_table.summary_rows(together)
    results = [Table("Novelty", ("edits", *head[1:]), rows)]
    title, *changes = novelty_table.change_rows(groups)
    for line in (line for run in runs for line in rounds(run).values()):
        for (_, earlier), (_, later) in itertools.pairwise(line):
            changes += novelty_table.change_rows([earlier, later])[1:]
    if changes:
        results.append(Table("Change, later − earlier", title, changes))
    return results


def rounds(
    groups: Sequence[novelty.Edits],
) -> dict[str, list[tuple[int, novelty.Edits]]]:
    """{line: [(round, edits), ...]} in their order, of names that count rounds.

    What the policy writes for held-out passages before the first round is round 0.
    """
    lines: dict[str, list[tuple[int, novelty.Edits]]] = {}
    for edits in groups:
        name = edits.name.replace(_BEFORE, _FIRST)
        match = _ROUND.search(name)
        if match:
            rest = f"{name[: match.start()]} {name[match.end() :]}"
            line = " ".join(rest.split()).strip("_") or "edits"
            lines.setdefault(line, []).append((int(match[1]), edits))
    return {
        name: sorted(line, key=lambda pair: pair[0]) for name, line in lines.items()
    }


def recorded(runs: Sequence[Workdir]) -> list[Table]:
    """What the runs' own summaries say of each round, and the edits do not tell."""
    rows, names = [], []
    for run in runs:
        for line in run_view.rows(run.summary, "rounds"):
            values = line.get("novelty")
            values = values if isinstance(values, dict) else {}
            if _has_passages(run):
                values = {
                    name: value
                    for name, value in values.items()
                    if name not in novelty_measures.MEASURES
                }
            if values:
                rows.append((run.name, line, values))
                names += values
    names = [*dict.fromkeys(map(str, names))]
    cells = [
        (
            name,
            formatting.count(line.get("round")),
            *(formatting.number(values.get(n)) for n in names),
        )
        for name, line, values in rows
    ]
    title = "Novelty as the rounds recorded it"
    return [Table(title, ("run", "round", *names), cells)] if cells else []


def section(groups: Sequence[novelty.Edits], runs: Sequence[Workdir] = ()) -> Markup:
    """Charts and tables of self-edits, of files and of workdirs; nothing for none."""
    of_runs = [of_workdir(run) for run in runs]
    shown = [*tables(groups, of_runs), *recorded(runs)]
    if not shown:
        return fragments.NOTHING
    together = [*groups, *itertools.chain(*of_runs)]
    lines = rounds(together)
    has_rounds = len({number for line in lines.values() for number, _ in line}) > 1
    body = charts(lines) if has_rounds else intervals(together)
    listed = []
    for i, table in enumerate(shown):
        if i == 0 and len(table.rows) <= _SHOWN_ROWS:
            listed.append(fragments.shown(table))
            continue
        inner = fragments.shown(table._replace(title=""))
        listed.append(fragments.folded(table.title, inner))
    prompts = [(e.name, e.prompt) for e in together if e.prompt is not None]
    if prompts:
        inner = fragments.render("parts.named_list", items=prompts)
        listed.append(fragments.folded("Prompts", inner))
    return fragments.section(
        "Novelty of self-edits", NOTE, body + fragments.joined(listed)
    )


def charts(lines: dict[str, list[tuple[int, novelty.Edits]]]) -> Markup:
    """A small chart of each measure by round, a line for each run or prompt."""
    means = {
        name: [(number, novelty.summarize(edits)) for number, edits in line]
        for name, line in lines.items()
    }
    counts = sorted({n for line in means.values() for n, _ in line})
    # What a run writes for held-out passages has its colour, in dashes.
    runs = dict.fromkeys(name.replace(_HELD_OUT, "") for name in lines)
    styles = {run: style for style, run in enumerate(runs)}
    figures, series = [], []
    for measure in _CHARTS:
        series = []
        for name, line in means.items():
            dots = [
                plots.erring(number, mean, se)
                for number, values in line
                for mean, se in [values[measure]]
                if mean is not None
            ]
            run = name.replace(_HELD_OUT, "")
            series.append(plots.Series(name, tuple(dots), styles[run], name != run))
        if any(s.dots for s in series):
            step = 1 + (len(counts) - 1) // 10
            ticks = tuple((n, str(n)) for n in counts[::step])
            axes = plots.Axes("round", "", ticks)
            drawn = plots.lines(series, axes, f"{measure} by round", small=True)
            figures.append(fragments.figure(fragments.bold(measure), drawn))
    legend = fragments.scroll(plots.legend(series))
    return legend + fragments.small_charts(figures)


def intervals(groups: Sequence[novelty.Edits]) -> Markup:
    """Each measure of files or arms, with its standard errors."""
    means = [(edits.name, novelty.summarize(edits)) for edits in groups]
    parts = []
    for measure in _CHARTS[:-1]:
        digits = novelty_measures.MEASURES[measure]
        points = []
        for name, values in means:
            mean, se = values[measure]
            if mean is not None:
                text = f"{formatting.number(mean, digits=digits)} ± "
                text += formatting.number(se, digits=digits)
                points.append(
                    svg.Point(plots.shortened(name, 21), text, mean, se, "k-self")
                )
        if points:
            chart = fragments.scroll(svg.intervals(points))
            parts.append(fragments.figure(fragments.bold(measure), chart))
    return fragments.joined(parts)
