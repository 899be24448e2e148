"""The parts of report.html about self-edits: their rewards, and some to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from seal_jax import (
    few_shot_view,
    formatting,
    report_grids,
    report_parts,
    run_view,
    stats,
    svg,
)

_SHOWN_EDITS = 3

type Edits = Sequence[dict[str, Any]]


def rewards(summary: dict[str, Any], edits: Edits) -> str:
    """What was sampled in each round, the best of each item, and what was kept."""
    head = ("round", "sampled", "best of E", "kept", "failed adapters", "empty answers")
    means = [
        (
            formatting.count(row.get("round")),
            *(
                formatting.number(row.get(f"{key}_mean"))
                for key in ("sampled", "best", "kept")
            ),
            formatting.count(row.get("failed_adapters")),
            formatting.percent(row.get("empty_rate")),
        )
        for row in run_view.rows(summary, "rounds")
    ]
    by_round: dict[Any, list[dict[str, Any]]] = {}
    for edit in edits:
        if formatting.measured(edit.get("reward")) is not None:
            by_round.setdefault(edit.get("round"), []).append(edit)
    figures = _histograms(by_round)
    if not (means or figures):
        return ""
    note = (
        "An edit's reward is the mean score of its adapters. The best of E is chosen "
        "by the same noisy number it is shown with, so it flatters."
    )
    if few_shot_view.is_few_shot(summary):
        note += " What was refused was not tried and has no reward."
    return report_parts.section(
        "Rewards by round",
        note,
        (report_parts.table(head, means) if means else "")
        + report_parts.charts(figures)
        + _by_task([e for e in edits if "task_id" in e]),
    )


def _histograms(by_round: dict[Any, list[dict[str, Any]]]) -> list[str]:
    values = [e["reward"] for group in by_round.values() for e in group]
    # One axis for all, ending at the extremes so that the end bins mean something.
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    x = svg.Scale(low, high if high > low else low + 1.0, 10, 230)
    figures = []
    for number, group in by_round.items():
        best: dict[Any, float] = {}
        for e in group:
            key = _item_of(e)
            best[key] = max(e["reward"], best.get(key, e["reward"]))
        kept = [e["reward"] for e in group if e.get("kept")]
        columns = (
            ("sampled", [e["reward"] for e in group], "k-control"),
            ("best of E", list(best.values()), "k-self"),
            ("kept", kept, "k-round"),
        )
        for label, chosen, css in columns:
            mean = formatting.number(stats.mean_se(chosen)[0]) if chosen else "-"
            figures.append(
                report_parts.figure(
                    f"<b>Round {svg.escape(number)}, {label}</b><br/>"
                    f"{len(chosen)} edits, mean {mean}",
                    svg.histogram(chosen, x, css),
                )
            )
    return figures


def _by_task(edits: Edits) -> str:
    """Which tasks of a few-shot run were solved while sampling, by round."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for e in edits:
        key = (str(e.get("round", formatting.MISSING)), str(e["task_id"]))
        groups.setdefault(key, []).append(e)
    if not groups:
        return ""
    rows = []
    for (number, task), own in groups.items():
        counts = few_shot_view.edit_counts(own)
        share = few_shot_view.success(own)
        rows.append(
            (
                svg.escape(task),
                svg.escape(number),
                *map(formatting.count, (counts.drawn, counts.valid, counts.trained)),
                formatting.percent(share),
                formatting.count(sum(bool(e.get("kept")) for e in own)),
                svg.escape(counts.reasons()) or formatting.MISSING,
            )
        )
    head = ("task", "round", "drawn", "valid", "trained", "solved if trained", "kept")
    return report_parts.folded(
        "By task", report_parts.table((*head, "refused"), rows, css="reasons")
    )


def to_read(edits: Edits, tasks: Mapping[str, few_shot_view.Task]) -> str:
    """The edits of the highest and of the lowest rewards, and refused ones, in full."""
    known = [e for e in edits if formatting.measured(e.get("reward")) is not None]
    refused = [e for e in edits if e.get("refused")]
    if not (known or refused):
        return ""
    # Worst among what is left, so that a small run does not show an edit twice.
    ordered = sorted(known, key=lambda e: -e["reward"])
    best = _spread(ordered)
    worst = _spread([e for e in reversed(ordered) if e not in best])
    reasons = {e["refused"]: e for e in reversed(refused)}
    odd = [e for e in reversed(reasons.values())][:_SHOWN_EDITS]
    parts = [
        f"<h3>{title}</h3>{''.join(_edit(e, tasks) for e in chosen)}"
        for title, chosen in (("Best", best), ("Worst", worst), ("Refused", odd))
        if chosen
    ]
    failed = sum(1 for e in edits if e.get("failed"))
    what = "task" if any("task_id" in e for e in edits) else "passage"
    note = f"By reward, one for each {what}, of {len(known)} edits with a reward."
    if failed:
        note += f" {failed} more failed."
    if refused:
        note += f" {len(refused)} more were refused; shown are different reasons."
    return report_parts.section("Edits to read", note, "".join(parts))


def _item_of(edit: dict[str, Any]) -> Any:
    return edit.get("passage_id", edit.get("task_id"))


def _spread(edits: Edits) -> list[dict[str, Any]]:
    """The first edits, of different items."""
    chosen: dict[Any, dict[str, Any]] = {}
    for edit in edits:
        if len(chosen) < _SHOWN_EDITS:
            chosen.setdefault(_item_of(edit), edit)
    return list(chosen.values())


def _edit(edit: dict[str, Any], tasks: Mapping[str, few_shot_view.Task]) -> str:
    e = svg.escape
    seeds = ", ".join(formatting.number(r, digits=2) for r in edit.get("rewards") or [])
    chips = [
        f'<span class="chip">{e(text)}</span>'
        for text in ("kept" if edit.get("kept") else "", edit.get("refused"))
        if text
    ]
    task = tasks.get(str(edit.get("task_id")))
    title = edit.get("title", edit.get("task_id", formatting.MISSING))
    lines = "".join(f"<li>{e(line)}</li>" for line in edit.get("lines") or [])
    passage, brief = edit.get("passage"), few_shot_view.brief(edit)
    redrawn = ", ".join(map(str, edit.get("redrawn") or ()))
    answers = edit.get("answers") or []
    parts = [
        f"<h4>Passage</h4><pre>{e(passage)}</pre>" if passage is not None else "",
        f"<h4>Edit</h4><pre>{e(edit.get('text', ''))}</pre>",
        report_parts.lead(e(brief)),
        report_parts.lead(f"Drawn before it: {e(redrawn)}." if redrawn else ""),
        f"<h4>Training lines</h4><ul>{lines}</ul>" if lines else "",
        "<h4>Answers</h4>",
        report_grids.answers(task, answers) if "task_id" in edit else _answers(answers),
        report_parts.folded("Prompt", f"<pre>{e(edit.get('prompt', ''))}</pre>"),
    ]
    return (
        '<details class="edit"><summary><b>'
        f"{formatting.number(edit.get('reward'))}</b> {e(title)} {''.join(chips)}"
        f'<span class="note">round {e(edit.get("round", formatting.MISSING))}, edit '
        f"{e(edit.get('edit', formatting.MISSING))}, by seed: {seeds or '-'}</span>"
        f"</summary>{''.join(parts)}</details>"
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
                svg.escape(answer.get("question", formatting.MISSING)) if first else "",
                svg.escape(answer.get("gold", formatting.MISSING)) if first else "",
                svg.escape(said) if said.strip() else "<i>empty</i>",
                _verdict(answer.get("score")),
                str(seed),
            )
        )
    if not rows:
        return report_parts.lead("No answers on record.")
    return report_parts.table(
        ("question", "gold", "answer", "verdict", "seed"), rows, css="answers"
    )


def _verdict(score: Any) -> str:
    known = formatting.measured(score)
    if isinstance(score, bool):
        known = float(score)
    if known is None:
        return '<span class="note">not judged</span>'
    if known in (0.0, 1.0):
        return report_parts.verdict(bool(known))
    return formatting.number(known, digits=2)
