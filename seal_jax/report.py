"""`python -m seal_jax.report PATH...`: results as a table.

A PATH is a workdir of a finished run (or its summary.json), or a result file of the
SEAL reference. Several result files over the same passages are also compared in pairs.
With --html FILE, one workdir becomes a page to read (`report_html`).
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax import few_shot_view, files, report_html, run_view, seal_results, stats

type Row = Sequence[str]


def table(head: Row, rows: Sequence[Row]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([lines[0], rule, *lines[1:]])


def summary_table(summary: dict[str, Any]) -> str:
    """The ladder of a summary.json, its paired differences, and what the run cost.

    Of the pairs, those of neighbouring rows and those of the last round; summary.json
    and the report have all. Of a few-shot run also what became of the self-edits, and
    the mean score of each task.
    """
    view = run_view
    if few_shot_view.is_few_shot(summary):
        parts = _few_shot_tables(summary)
    else:
        parts = [_ladder_table(summary)]
    paired = [row for row in view.rows(summary, "paired") if _telling(row, summary)]
    if paired:
        parts.append(
            table(
                ("paired difference", "diff", "se", "z"),
                [
                    (
                        f"{row.get('a', '-')} - {row.get('b', '-')}",
                        view.signed(row.get("diff")),
                        view.number(row.get("se")),
                        view.signed(row.get("z"), digits=1),
                    )
                    for row in paired
                ],
            )
        )
    cost = view.cost(summary)
    parts.append("\n".join(f"{name}: {value}" for name, value in cost))
    return "\n\n".join(parts)


def _ladder_table(summary: dict[str, Any]) -> str:
    view = run_view
    return table(
        ("", "mean", "se", "n", "empty"),
        [
            (
                str(row.get("name", "-")),
                view.number(row.get("mean")),
                view.number(row.get("se")),
                view.count(row.get("n")),
                view.percent(row.get("empty_rate")),
            )
            for row in view.rows(summary, "ladder")
        ],
    )


def _few_shot_tables(summary: dict[str, Any]) -> list[str]:
    """Success with an interval and the rates of the self-edits; refusals; tasks."""
    view = run_view
    rows, refusals = [], []
    for row in view.rows(summary, "ladder"):
        counts = few_shot_view.row_counts(row)
        rates = (counts.valid_rate, counts.budget_rate) if counts else (None, None)
        name = str(row.get("name", "-"))
        rows.append(
            (
                name,
                view.number(row.get("mean")),
                view.number(row.get("se")),
                view.span(row.get("low"), row.get("high")),
                view.count(row.get("n")),
                *map(view.percent, rates),
                view.number(row.get("trained_mean") if counts else None),
            )
        )
        if counts and counts.refused:
            refusals.append(f"texts refused, {name}: {counts.reasons()}")
    head = ("", "success", "se", "95 %", "tasks", "valid", "in budget", "if trained")
    parts = [table(head, rows)]
    if refusals:
        parts.append("\n".join(refusals))
    names, items = few_shot_view.items_table(summary)
    if items:
        lines = [
            (
                str(item.get("item", "-")),
                *(view.number(item.get(name), digits=2) for name in names),
            )
            for item in items
        ]
        parts.append(table(("by task", *names), lines))
    return parts


def seconds_line(summary: dict[str, Any]) -> str:
    """Seconds by kind of phase, over all rounds and rows, the longest first."""
    kinds: dict[str, float] = {}
    for phase, seconds in run_view.seconds(summary).items():
        parts = phase.split("/")
        # policy/imitate/2 is counted as imitate, round_1/adapt as adapt.
        kind = next(p for p in reversed(parts) if not p.isdigit())
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    ordered = sorted(kinds.items(), key=lambda item: -item[1])
    return "seconds: " + ", ".join(f"{kind} {s:.1f}" for kind, s in ordered)


def _telling(pair: dict[str, Any], summary: dict[str, Any]) -> bool:
    """Whether a pair is of neighbouring rows of the ladder or of its last round."""
    names = [row.get("name") for row in run_view.rows(summary, "ladder")]
    rounds = [name for name in names if str(name).startswith("round_")]
    ends = {pair.get("a"), pair.get("b")}
    if not ends <= set(names):
        return True
    neighbours = abs(names.index(pair["a"]) - names.index(pair["b"])) == 1
    return neighbours or bool(rounds and rounds[-1] in ends)


def results_table(results: Sequence[seal_results.Results]) -> str:
    """SEAL result files, one a row, and the paired differences among them."""
    view = run_view
    rows = []
    for r in results:
        base, _ = stats.mean_se([a.baseline for a in r.articles])
        mean, se = stats.mean_se([a.adapter for a in r.articles])
        rows.append(
            (
                r.name,
                view.count(len(r.articles)),
                view.count(r.completions),
                view.number(base, digits=4),
                view.number(mean, digits=4),
                view.number(se, digits=4),
                view.number(r.pooled(), digits=4),
                view.percent(r.empty_rate()),
                view.number(r.nonempty_accuracy()),
            )
        )
    head = ("", "articles", "edits", "base", "adapter", "se", "pooled", "empty")
    parts = [table((*head, "non-empty"), rows)]
    pairs = [_gain(r) for r in results]
    for a, b in itertools.combinations(results, 2):
        if {x.passage for x in a.articles} & {x.passage for x in b.articles}:
            pairs.append((f"{b.name} - {a.name}", *seal_results.paired(b, a)))
    parts.append(
        table(
            ("paired difference", "passages", "diff", "se", "z"),
            [
                (
                    name,
                    view.count(n),
                    view.signed(diff, digits=4),
                    view.number(se, digits=4),
                    view.signed(z, digits=1),
                )
                for name, n, diff, se, z in pairs
            ],
        )
    )
    return "\n\n".join(parts)


def _gain(r: seal_results.Results) -> tuple[str, int, float, Any, Any]:
    gain = stats.paired(
        [a.adapter for a in r.articles], [a.baseline for a in r.articles]
    )
    return (f"{r.name} - its base", len(r.articles), *gain)


def load(path: str | Path) -> dict[str, Any] | seal_results.Results:
    """A workdir's summary, or a SEAL result file, whichever `path` is.

    Raises:
      ValueError: it is neither, or a workdir whose run has not finished.
    """
    path = Path(path)
    if path.is_dir():
        return run_view.read_summary(path)
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file or directory; give a workdir or a SEAL result file"
        )
    value = files.read_json(path)
    if seal_results.is_results(value):
        return seal_results.read(path)
    if isinstance(value, dict) and isinstance(value.get("ladder"), list):
        return value
    raise ValueError(
        f"{path}: must be a workdir with a summary.json, or a SEAL result file; give "
        "one of these"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints tables for the paths of a command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seal_jax.report",
        description="Prints results of seal_jax workdirs and SEAL result files.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument(
        "--html", metavar="FILE", help="also write one workdir as a page to read"
    )
    args = parser.parse_args(argv)
    try:
        if args.html and (len(args.paths) > 1 or not Path(args.paths[0]).is_dir()):
            raise ValueError(
                f"--html {args.html}: needs exactly one PATH, a workdir; give that one"
            )
        loaded = [(path, load(path)) for path in args.paths]
        for path, item in loaded:
            if isinstance(item, dict):
                print(f"{path}\n\n{summary_table(item)}\n")
        results = [item for _, item in loaded if isinstance(item, seal_results.Results)]
        if results:
            print(results_table(results))
        if args.html:
            print(f"page: {report_html.write_html(args.paths[0], out=args.html)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
