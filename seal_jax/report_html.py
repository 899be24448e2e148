"""report.html: one page that shows a run, without scripts or outside files.

The page is well-formed XML as well as HTML, every text from the run is escaped, and its
colours follow the reader's light or dark scheme.
"""

import json
from pathlib import Path
from typing import Any

from seal_jax import (
    few_shot_view,
    files,
    report_configs,
    report_edits,
    report_grids,
    report_parts,
    run_view,
    svg,
)

REPORT_NAME = "report.html"
_SHOWN_METRICS = 12
# A longer list of items is folded away.
_SHOWN_ITEMS = 12


def write_html(workdir: str | Path, *, out: str | Path | None = None) -> Path:
    """Writes the page of a finished run: `out`, or `workdir`/report.html.

    Raises:
      ValueError: `workdir` is none, or its run has not finished.
      files.DiskFullError: no room.
    """
    path = Path(out) if out else Path(workdir) / REPORT_NAME
    summary = run_view.read_summary(workdir)
    config = run_view.read_config(workdir)
    edits = run_view.read_edits(workdir)
    name = str(config.get("name") or Path(workdir).resolve().name)
    few_shot, tasks = [], {}
    if few_shot_view.is_few_shot(summary):
        heldout = run_view.read_heldout(workdir)
        tasks = few_shot_view.tasks(run_view.read_items(workdir))
        few_shot = [
            report_grids.section(summary, heldout, tasks),
            report_configs.section(summary, edits, heldout),
        ]
    sections = [
        _header(name, summary),
        _ladder(summary),
        _items(summary),
        _paired(summary),
        *few_shot,
        report_edits.rewards(summary, edits),
        report_edits.to_read(edits, tasks),
        _metrics(run_view.read_metrics(workdir)),
        _cost(summary),
        _config(config),
    ]
    files.write_text(path, report_parts.page(name, sections))
    return path


def _header(name: str, summary: dict[str, Any]) -> str:
    means = {
        row.get("name"): row.get("mean") for row in run_view.rows(summary, "ladder")
    }
    rounds = [n for n in means if str(n).startswith("round_")]
    tiles = []
    for row in ("base", few_shot_view.NO_ADAPTER, "self_edits", *rounds[-1:]):
        if row in means:
            tiles.append((run_view.number(means[row]), str(row)))
    tiles += [
        (value, label)
        for label, value in run_view.cost(summary)
        if label != "tokens" and value != run_view.MISSING
    ]
    cells = "".join(
        f'<div class="tile"><b>{svg.escape(value)}</b>'
        f"<span>{svg.escape(label)}</span></div>"
        for value, label in tiles
    )
    digest = svg.escape(summary.get("config_hash", run_view.MISSING))
    return (
        f"<header><h1>{svg.escape(name)}</h1>"
        f'<p class="note">SEAL run, config <code>{digest}</code></p>'
        f'<div class="tiles">{cells}</div></header>'
    )


def _kind(name: str) -> str:
    """The CSS class of a ladder row."""
    if name.startswith("round_"):
        return "k-round"
    known = {"base": "k-base", "oracle": "k-oracle", "self_edits": "k-self"}
    known[few_shot_view.NO_ADAPTER] = "k-base"
    return known.get(name, "k-control")


def _ladder(summary: dict[str, Any]) -> str:
    found = run_view.rows(summary, "ladder")
    if not found:
        return report_parts.section(
            "Ladder", "", report_parts.lead("No rows on record.")
        )
    few_shot = few_shot_view.is_few_shot(summary)
    reference = few_shot_view.NO_ADAPTER if few_shot else "base"
    points, base = [], None
    for row in found:
        name = str(row.get("name", run_view.MISSING))
        mean, se, low, high = (
            run_view.measured(row.get(key)) for key in ("mean", "se", "low", "high")
        )
        if mean is None:
            continue
        bounds = None if low is None or high is None else (low, high)
        text = f"{run_view.number(mean)} ± {run_view.number(se)}"
        points.append(svg.Point(name, text, mean, se, _kind(name), bounds))
        base = mean if name == reference else base
    what = (
        "Share of self-edits that solve a held-out task, averaged over tasks."
        if few_shot
        else "Mean score on held-out passages."
    )
    bounded = any(point.bounds for point in points)
    thin = "95 % interval (bootstrap over items)" if bounded else "two"
    return report_parts.section(
        "Ladder",
        f"{what} Thick bar: one standard error, thin bar: {thin}, dashed: "
        f"{'in context' if few_shot else 'the base model'}.",
        report_parts.scroll(svg.intervals(points, reference=base) if points else "")
        + (
            _rates(found)
            if few_shot
            else report_parts.folded("As a table", _scores(found))
        ),
    )


def _scores(rows: list[dict[str, Any]]) -> str:
    """The ladder of a knowledge run as a table."""
    head = ("", "mean", "se", "95 % interval", "n", "empty answers")
    return report_parts.table(
        head,
        [
            (
                svg.escape(row.get("name", run_view.MISSING)),
                run_view.number(row.get("mean")),
                run_view.number(row.get("se")),
                run_view.span(row.get("low"), row.get("high")),
                run_view.count(row.get("n")),
                run_view.percent(row.get("empty_rate")),
            )
            for row in rows
        ],
    )


def _rates(rows: list[dict[str, Any]]) -> str:
    """The ladder of a few-shot run as a table."""
    lines, refused = [], []
    for row in rows:
        counts = few_shot_view.row_counts(row)
        rates = (counts.valid_rate, counts.budget_rate) if counts else (None, None)
        lines.append(
            (
                svg.escape(row.get("name", run_view.MISSING)),
                run_view.number(row.get("mean")),
                run_view.number(row.get("se")),
                run_view.span(row.get("low"), row.get("high")),
                run_view.count(row.get("n")),
                run_view.count(counts and counts.drawn),
                *map(run_view.percent, rates),
                run_view.number(row.get("trained_mean") if counts else None),
            )
        )
        if counts and counts.refused:
            refused.append((lines[-1][0], svg.escape(counts.reasons())))
    head = ("", "success", "se", "95 % interval", "tasks", "texts", "valid")
    head += ("in budget", "if trained")
    reasons = report_parts.table(("", "texts refused"), refused, css="reasons")
    return report_parts.table(head, lines) + (reasons if refused else "")


def _items(summary: dict[str, Any]) -> str:
    names, found = few_shot_view.items_table(summary)
    if not found:
        return ""
    rows = []
    for row in found:
        scores = [run_view.measured(row.get(name)) for name in names]
        cells = [report_parts.tinted(run_view.number(s, digits=2), s) for s in scores]
        rows.append((svg.escape(row.get("item", run_view.MISSING)), *cells))
    table = report_parts.table(("", *map(svg.escape, names)), rows)
    if len(rows) > _SHOWN_ITEMS:
        table = report_parts.folded(f"{len(rows)} items", table)
    return report_parts.section("By item", "Mean score of each held-out item.", table)


def _paired(summary: dict[str, Any]) -> str:
    rows = run_view.rows(summary, "paired")
    if not rows:
        return ""
    ends = [0.0]
    for row in rows:
        diff, se = (run_view.measured(row.get(k)) for k in ("diff", "se"))
        ends += [(diff or 0.0) + k * (se or 0.0) for k in (-2, 2)]
    x = svg.fit(ends, 6, 234)
    cells = []
    for row in rows:
        diff, se, z = (run_view.measured(row.get(k)) for k in ("diff", "se", "z"))
        clear = abs(z or 0.0) >= 2
        css = ("k-up" if (z or 0.0) > 0 else "k-down") if clear else "k-control"
        text = run_view.signed(z, digits=1)
        pair = f"{row.get('a', run_view.MISSING)} − {row.get('b', run_view.MISSING)}"
        cells.append(
            (
                svg.escape(pair),
                "" if diff is None else svg.interval(x, diff, se, css),
                run_view.signed(diff),
                run_view.number(se),
                f"<b>{text}</b>" if clear else text,
            )
        )
    head = ("pair", "", "difference", "se", "z")
    what = "task" if few_shot_view.is_few_shot(summary) else "passage"
    return report_parts.section(
        "Paired differences",
        f"Over the same {what}s, so that what makes a {what} hard cancels out. Bold: "
        "|z| ≥ 2.",
        report_parts.table(head, cells, css="pairs"),
    )


def _metrics(series: dict[str, list[tuple[int, float]]]) -> str:
    charts = [
        f"<figure><figcaption>{svg.escape(name)}</figcaption>{svg.line(points)}</figure>"
        for name, points in series.items()
        if len(points) > 1
    ][:_SHOWN_METRICS]
    if not charts:
        return ""
    return report_parts.section(
        "Training", "", f'<div class="grid3">{"".join(charts)}</div>'
    )


def _cost(summary: dict[str, Any]) -> str:
    phases = run_view.seconds(summary)
    total = sum(phases.values())
    bars = [
        (
            name,
            s,
            f"{run_view.number(s, digits=1)} s, {s / total:.0%}" if total else "-",
        )
        for name, s in phases.items()
    ]
    lines = [(svg.escape(k), svg.escape(v)) for k, v in run_view.cost(summary)]
    return report_parts.section(
        "Cost",
        "Rates are over the phases that train adapters, where the run names them.",
        report_parts.scroll(svg.bars(bars) if bars else "")
        + report_parts.table(("", ""), lines, css="facts"),
    )


def _config(config: dict[str, Any]) -> str:
    if not config:
        return ""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return report_parts.section(
        "Config",
        "",
        f"<details><summary>config.json</summary><pre>{svg.escape(text)}</pre></details>",
    )
