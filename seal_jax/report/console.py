"""Results as tables and as a page.

    seal-jax report PATH... [--html FILE] [--markdown FILE]

A PATH is a workdir of a finished run (or its summary.json); a result file of the SEAL
reference (results/query_server), whose rewards are also examined if it ranks edits; a
file of self-edits (data/synthetic_data, or an edits.jsonl); or a folder of continual
results (results/continual_self_edits), or of several such folders. What has something
in common is compared: of several runs it is told what differs between their configs,
and those that differ in the seed alone have intervals over seeds (`compared`). With
--html FILE, all of it becomes a page to read (`html_page`), with --markdown FILE the
runs side by side do (`markdown_page`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seal_jax.analysis import stats
from seal_jax.report import (
    few_shot_view,
    html_page,
    inputs,
    markdown_page,
    reference,
    run_view,
)
from seal_jax.report.sections import agreement as agreement_section
from seal_jax.report.sections import collapse as collapse_section
from seal_jax.report.sections import compared as compared_section
from seal_jax.report.sections import continual as continual_section
from seal_jax.report.sections import deploy as deploy_section
from seal_jax.report.sections import ladder as ladder_section
from seal_jax.report.sections import lmsi as lmsi_section
from seal_jax.report.sections import novelty as novelty_section
from seal_jax.report.sections import reference as reference_section
from seal_jax.report.sections import reliability as reliability_section
from seal_jax.report.sections import rounds as rounds_section
from seal_jax.report.sections import unused as unused_section
from seal_jax.report.tables import continual as continual_table
from seal_jax.report.tables import reliability as reliability_table
from seal_jax.runtime import command_line, files, formatting


def summary_table(summary: dict[str, Any]) -> str:
    """The ladder of a summary.json, its paired differences, and what the run cost.

    Of the pairs, those of neighbouring rows and those of the last round; summary.json
    and the report have all. Of a few-shot run also what became of the self-edits, and
    the mean score of each task.
    """
    if summary.get("kind") == run_view.CONTINUAL:
        arms = continual_section.arms(run_view.Workdir("", summary))
        nothing = [formatting.Table("", (), ())]
        scores, *others = continual_section.tables(arms) or nothing
        parts = [_texts([scores]), continual_section.LEGEND if arms else ""]
        parts.append(_texts(others))
    elif deploy_section.is_deploy(summary):
        found = deploy_section.tables(summary, brief=True)
        parts = [_texts(found[:1]), deploy_section.legend(summary), _texts(found[1:])]
    elif lmsi_section.is_lmsi(summary):
        found = lmsi_section.tables(summary)
        parts = [lmsi_section.LEGEND, _texts(found), lmsi_section.GROWTH]
    elif few_shot_view.is_few_shot(summary):
        parts = _few_shot_tables(summary)
    else:
        parts = [_ladder_table(summary)] if run_view.rows(summary, "ladder") else []
    if isinstance(summary.get("left_out"), str):
        parts.append(summary["left_out"])
    parts.append(_texts([unused_section.table([run_view.Workdir("", summary)])]))
    parts.append(_paired_table(summary))
    if summary.get("stopped"):
        parts.append(f"stopped {rounds_section.ended(summary)}")
    cost = run_view.cost(summary)
    parts.append("\n".join(f"{name}: {value}" for name, value in cost))
    return "\n\n".join(part for part in parts if part)


def _paired_table(summary: dict[str, Any]) -> str:
    pairs = ladder_section.main_pairs(summary)
    if not pairs:
        return ""
    of = any(row.get("what") for row in pairs)
    bounded = any(row.get("low") is not None for row in pairs)
    rows = [
        (
            f"{row.get('a', '-')} - {row.get('b', '-')}",
            *([str(row.get("what") or "-")] if of else []),
            formatting.count(n := ladder_section.shared(row, summary)),
            formatting.signed(row.get("diff")),
            formatting.number(row.get("se")),
            formatting.signed(row.get("z") if stats.enough(n) else None, digits=1),
            *([_signed_span(row)] if bounded else []),
        )
        for row in pairs
    ]
    head = ("paired difference", *(["of"] if of else []), "n", "diff", "se", "z")
    head += ("95 %",) * bounded
    return formatting.ruled(head, rows)


def _signed_span(row: dict[str, Any]) -> str:
    low, high = (formatting.measured(row.get(key)) for key in ("low", "high"))
    if low is None or high is None:
        return formatting.MISSING
    return f"{formatting.signed(low)} to {formatting.signed(high)}"


def _ladder_table(summary: dict[str, Any]) -> str:
    """The rows; of a run over seeds with their interval, n being seeds."""
    over_seeds = summary.get("kind") == run_view.OVER_SEEDS
    return formatting.ruled(
        ("", "mean", "se", "n", "empty", *(["95 %"] if over_seeds else [])),
        [
            (
                str(row.get("name", "-")),
                formatting.number(row.get("mean")),
                formatting.number(row.get("se")),
                formatting.count(row.get("n")),
                formatting.percent(row.get("empty_rate")),
                *(
                    [formatting.span(row.get("low"), row.get("high"))]
                    if over_seeds
                    else []
                ),
            )
            for row in run_view.rows(summary, "ladder")
        ],
    )


def _few_shot_tables(summary: dict[str, Any]) -> list[str]:
    """Success with an interval and the rates of the self-edits; refusals; tasks."""
    rows, refusals = [], []
    for row in run_view.rows(summary, "ladder"):
        counts = few_shot_view.row_counts(row)
        rates = (counts.valid_rate, counts.budget_rate) if counts else (None, None)
        name = str(row.get("name", "-"))
        rows.append(
            (
                name,
                formatting.number(row.get("mean")),
                formatting.number(row.get("se")),
                formatting.span(row.get("low"), row.get("high")),
                formatting.count(row.get("n")),
                *map(formatting.percent, rates),
                formatting.number(row.get("trained_mean") if counts else None),
            )
        )
        if counts and counts.refused:
            refusals.append(f"texts refused, {name}: {counts.reasons()}")
    head = ("", "success", "se", "95 %", "tasks", "valid", "in budget", "if trained")
    parts = [formatting.ruled(head, rows)]
    if refusals:
        parts.append("\n".join(refusals))
    names, items = few_shot_view.items_table(summary)
    if items:
        lines = [
            (
                str(item.get("item", "-")),
                *(formatting.number(item.get(name), digits=2) for name in names),
            )
            for item in items
        ]
        parts.append(formatting.ruled(("by task", *names), lines))
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


def results_table(results: Sequence[reference.Results]) -> str:
    """SEAL result files, one a row, and the paired differences among them."""
    return _texts(reference_section.tables(results))


def _texts(tables: Sequence[formatting.Table]) -> str:
    """Tables under their titles."""
    return "\n\n".join(
        (f"{t.title}\n\n" if t.title else "") + formatting.ruled(t.head, t.rows)
        for t in tables
        if t.rows
    )


def texts(given: inputs.Inputs, *, draws: int = 400) -> list[str]:
    """All that is printed of `given`, in paragraphs.

    Args:
      draws: resampled races of a ranking file, for each measured passage.
    """
    parts = []
    for run in given.workdirs:
        head = str(run.path or run.name)
        parts += [f"{head}\n\n{summary_table(run.summary)}"]
    compared = [compared_section.differences(given.workdirs)]
    parts.append(_texts([*compared, *compared_section.tables(given.workdirs)]))
    parts += compared_section.notes(given.workdirs)
    parts.append(_texts(deploy_section.over_seeds(given.workdirs)))
    runs = [run for run in given.workdirs if rounds_section.has_rounds(run.summary)]
    parts.append(_texts(rounds_section.tables(runs)))
    trusted = [m for run in runs for m in reliability_section.of_workdir(run)]
    if trusted:
        parts.append(_texts([reliability_section.table(trusted)]))
    if given.results:
        parts.append(results_table(given.results))
    parts += [reliability_table.describe(m, draws=draws) for m in given.rankings]
    agreed, groups = (
        html_page.agreements(given),
        compared_section.group_names(given.workdirs),
    )
    parts.append(_texts(agreement_section.tables(agreed)))
    parts.append(_texts([agreement_section.drift(agreed, groups)]))
    parts.append(_texts([collapse_section.table(given.workdirs)]))
    of_runs = [novelty_section.of_workdir(run) for run in given.workdirs]
    tables = novelty_section.tables(given.edits, of_runs)
    parts.append(_texts([*tables, *novelty_section.recorded(given.workdirs)]))
    arms = html_page.arms(given.workdirs)
    named = [(arm.name, arm.runs) for arm in arms if arm.runs]
    if named:
        parts.append(continual_table.side_by_side(named))
    for name, matrices in given.continual:
        parts.append(f"{name}: {continual_table.tables(matrices)}")
    if len(given.continual) > 1:
        parts.append(continual_table.side_by_side(given.continual))
    return [part for part in parts if part]


EXAMPLES = """
seal-jax report runs/tiny
seal-jax report runs/tiny runs/other --html=report.html
seal-jax report runs/sweep/* --markdown=sweep.md --html=sweep.html
seal-jax report results/query_server/eval
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints tables for the paths of a command line; returns the exit status."""
    parser = command_line.Parser(
        prog="seal-jax report",
        description="Prints and draws results of seal_jax and of the SEAL reference.",
        examples=EXAMPLES,
    )
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument("--html", metavar="FILE", help="also write a page to read")
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        help="also write runs side by side as Markdown: what differs between their "
        "configs, their ladders, and intervals over seeds",
    )
    args = parser.parse_args(argv)
    pages = {"--html": args.html, "--markdown": args.markdown}
    return formatting.exit_status(
        lambda: _print(args.paths, {flag: p for flag, p in pages.items() if p})
    )


_PAGES = {"--html": html_page.write_page, "--markdown": markdown_page.write_page}


def _print(paths: Sequence[str], pages: Mapping[str, str]) -> None:
    for flag, page in pages.items():
        if files.is_folder(page):
            raise ValueError(f"{flag} {page}: is a folder; give a file in it")
        if not Path(page).parent.is_dir():
            raise ValueError(
                f"{flag} {page}: {Path(page).parent} is no folder; give a file in one "
                "that is there"
            )
    given = inputs.read(paths)
    # Of several, the one that cannot be shown is not known here.
    with run_view.reading_from(paths[0] if len(paths) == 1 else "one of these paths"):
        shown = "\n\n".join(texts(given))
        written = [_PAGES[flag](given, page) for flag, page in pages.items()]
    print(shown)
    for path in written:
        print(f"\npage: {path}")
