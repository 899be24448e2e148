"""report.html: one page that shows a run, without scripts or outside files.

The page is well-formed XML as well as HTML, every text from the run is escaped, and its
colours follow the reader's light or dark scheme.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax import files, report_style, run_view, stats, svg

REPORT_NAME = "report.html"
_SHOWN_EDITS = 3
_SHOWN_METRICS = 12

type Cells = Sequence[str]  # HTML


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
    files.write_text(
        path,
        _page(
            name,
            [
                _header(name, summary),
                _ladder(summary),
                _paired(summary),
                _rewards(summary, edits),
                _edits(edits),
                _metrics(run_view.read_metrics(workdir)),
                _cost(summary),
                _config(config),
            ],
        ),
    )
    return path


def _page(title: str, sections: Sequence[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>{svg.escape(title)}: SEAL run</title>"
        f"<style>{report_style.CSS}</style></head>\n"
        f"<body><main>\n{'\n'.join(filter(None, sections))}\n</main></body></html>\n"
    )


def _section(title: str, note: str, body: str) -> str:
    lead = f'<p class="note">{note}</p>' if note else ""
    return f"<section><h2>{title}</h2>{lead}{body}</section>"


def _table(head: Cells, rows: Sequence[Cells], *, css: str = "") -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows
    )
    return _scroll(
        f'<table class="{css}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _scroll(inner: str) -> str:
    """Room to scroll sideways on a narrow screen."""
    return f'<div class="scroll">{inner}</div>' if inner else ""


def _header(name: str, summary: dict[str, Any]) -> str:
    means = {
        row.get("name"): row.get("mean") for row in run_view.rows(summary, "ladder")
    }
    rounds = [n for n in means if str(n).startswith("round_")]
    tiles = []
    for row in ["base", "self_edits", *rounds[-1:]]:
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
    return {"base": "k-base", "oracle": "k-oracle", "self_edits": "k-self"}.get(
        name, "k-control"
    )


def _ladder(summary: dict[str, Any]) -> str:
    points, rows, base = [], [], None
    for row in run_view.rows(summary, "ladder"):
        name = str(row.get("name", run_view.MISSING))
        mean, se = run_view.measured(row.get("mean")), run_view.measured(row.get("se"))
        cells = (run_view.number(mean), run_view.number(se))
        rows.append(
            (
                svg.escape(name),
                *cells,
                run_view.count(row.get("n")),
                run_view.percent(row.get("empty_rate")),
            )
        )
        if mean is None:
            continue
        points.append(
            svg.Point(name, f"{cells[0]} ± {cells[1]}", mean, se, _kind(name))
        )
        base = mean if name == "base" else base
    if not rows:
        return _section("Ladder", "", '<p class="note">No rows on record.</p>')
    chart = svg.intervals(points, reference=base) if points else ""
    head = ("", "mean", "se", "n", "empty answers")
    return _section(
        "Ladder",
        "Mean score on held-out passages. Thick bar: one standard error, thin bar: "
        "two, dashed: the base model.",
        f"{_scroll(chart)}<details><summary>As a table</summary>{_table(head, rows)}"
        "</details>",
    )


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
    return _section(
        "Paired differences",
        "Over the same passages, so that what makes a passage hard cancels out. Bold: "
        "|z| ≥ 2.",
        _table(head, cells, css="pairs"),
    )


def _rewards(summary: dict[str, Any], edits: Sequence[dict[str, Any]]) -> str:
    head = ("round", "sampled", "best of E", "kept", "failed adapters", "empty answers")
    means = [
        (
            run_view.count(row.get("round")),
            *(
                run_view.number(row.get(f"{key}_mean"))
                for key in ("sampled", "best", "kept")
            ),
            run_view.count(row.get("failed_adapters")),
            run_view.percent(row.get("empty_rate")),
        )
        for row in run_view.rows(summary, "rounds")
    ]
    by_round: dict[Any, list[dict[str, Any]]] = {}
    for edit in edits:
        if run_view.measured(edit.get("reward")) is not None:
            by_round.setdefault(edit.get("round"), []).append(edit)
    values = [e["reward"] for group in by_round.values() for e in group]
    # One axis for all, ending at the extremes so that the end bins mean something.
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    x = svg.Scale(low, high if high > low else low + 1.0, 10, 230)
    charts = []
    for number, group in by_round.items():
        best: dict[Any, float] = {}
        for e in group:
            key = e.get("passage_id")
            best[key] = max(e["reward"], best.get(key, e["reward"]))
        kept = [e["reward"] for e in group if e.get("kept")]
        columns = (
            ("sampled", [e["reward"] for e in group], "k-control"),
            ("best of E", list(best.values()), "k-self"),
            ("kept", kept, "k-round"),
        )
        for label, chosen, css in columns:
            mean = run_view.number(stats.mean_se(chosen)[0]) if chosen else "-"
            charts.append(
                f"<figure><figcaption><b>Round {svg.escape(number)}, {label}</b><br/>"
                f"{len(chosen)} edits, mean {mean}</figcaption>"
                f"{svg.histogram(chosen, x, css)}</figure>"
            )
    if not (means or charts):
        return ""
    return _section(
        "Rewards by round",
        "An edit's reward is the mean score of its adapters. The best of E is chosen "
        "by the same noisy number it is shown with, so it flatters.",
        (_table(head, means) if means else "")
        + f'<div class="grid3">{"".join(charts)}</div>',
    )


def _edits(edits: Sequence[dict[str, Any]]) -> str:
    known = [e for e in edits if run_view.measured(e.get("reward")) is not None]
    if not known:
        return ""
    # Worst among what is left, so that a small run does not show an edit twice.
    ordered = sorted(known, key=lambda e: -e["reward"])
    best = _spread(ordered)
    worst = _spread([e for e in reversed(ordered) if e not in best])
    parts = [
        f"<h3>{title}</h3>{''.join(_edit(e) for e in chosen)}"
        for title, chosen in (("Best", best), ("Worst", worst))
        if chosen
    ]
    failed = sum(1 for e in edits if e.get("failed"))
    note = f"By reward, one for each passage, of {len(known)} edits with a reward."
    if failed:
        note += f" {failed} more failed."
    return _section("Edits to read", note, "".join(parts))


def _spread(edits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first edits, of different passages."""
    chosen: dict[Any, dict[str, Any]] = {}
    for edit in edits:
        if len(chosen) < _SHOWN_EDITS:
            chosen.setdefault(edit.get("passage_id"), edit)
    return list(chosen.values())


def _edit(edit: dict[str, Any]) -> str:
    e = svg.escape
    rewards = edit.get("rewards") or []
    seeds = ", ".join(run_view.number(r, digits=2) for r in rewards)
    kept = '<span class="chip">kept</span>' if edit.get("kept") else ""
    lines = "".join(f"<li>{e(line)}</li>" for line in edit.get("lines") or [])
    return (
        f'<details class="edit"><summary><b>{run_view.number(edit["reward"])}</b> '
        f"{e(edit.get('title', run_view.MISSING))} {kept}"
        f'<span class="note">round {e(edit.get("round", run_view.MISSING))}, edit '
        f"{e(edit.get('edit', run_view.MISSING))}, by seed: {seeds or '-'}</span>"
        f"</summary><h4>Passage</h4><pre>{e(edit.get('passage', ''))}</pre>"
        f"<h4>Edit</h4><pre>{e(edit.get('text', ''))}</pre>"
        f"<h4>Training lines</h4><ul>{lines}</ul>"
        f"<h4>Answers</h4>{_answers(edit.get('answers') or [])}"
        f"<details><summary>Prompt</summary><pre>{e(edit.get('prompt', ''))}</pre>"
        "</details></details>"
    )


def _answers(seeds: Sequence[Sequence[dict[str, Any]] | None]) -> str:
    # All seeds' answers to a question together; the question is said once.
    ordered = [
        (index, seed, answer)
        for seed, answers in enumerate(seeds)
        for index, answer in enumerate(answers or [])
    ]
    ordered.sort(key=lambda item: item[:2])
    rows = []
    asked = None
    for index, seed, answer in ordered:
        said = str(answer.get("answer") or "")
        first = index != asked
        asked = index
        rows.append(
            (
                svg.escape(answer.get("question", run_view.MISSING)) if first else "",
                svg.escape(answer.get("gold", run_view.MISSING)) if first else "",
                svg.escape(said) if said.strip() else "<i>empty</i>",
                _verdict(answer.get("score")),
                str(seed),
            )
        )
    if not rows:
        return '<p class="note">No answers on record.</p>'
    return _table(
        ("question", "gold", "answer", "verdict", "seed"), rows, css="answers"
    )


def _verdict(score: Any) -> str:
    known = run_view.measured(score)
    if isinstance(score, bool):
        known = float(score)
    if known is None:
        return '<span class="note">not judged</span>'
    if known in (0.0, 1.0):
        css, mark = ("yes", "✓") if known else ("no", "✗")
        return f'<span class="{css}">{mark}</span>'
    return run_view.number(known, digits=2)


def _metrics(series: dict[str, list[tuple[int, float]]]) -> str:
    charts = [
        f"<figure><figcaption>{svg.escape(name)}</figcaption>{svg.line(points)}</figure>"
        for name, points in series.items()
        if len(points) > 1
    ][:_SHOWN_METRICS]
    if not charts:
        return ""
    return _section("Training", "", f'<div class="grid3">{"".join(charts)}</div>')


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
    return _section(
        "Cost",
        "Rates are over the phases that train adapters, where the run names them.",
        _scroll(svg.bars(bars) if bars else "") + _table(("", ""), lines, css="facts"),
    )


def _config(config: dict[str, Any]) -> str:
    if not config:
        return ""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return _section(
        "Config",
        "",
        f"<details><summary>config.json</summary><pre>{svg.escape(text)}</pre></details>",
    )
