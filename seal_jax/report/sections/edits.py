"""The parts of report.html about self-edits: their rewards, and some to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from seal_jax.analysis import stats
from seal_jax.report import few_shot_view, fragments, run_view
from seal_jax.report.charts import svg
from seal_jax.report.sections import grids as grids_section
from seal_jax.runtime import formatting

_SHOWN_EDITS = 3

type Edits = Sequence[dict[str, Any]]


def rewards(summary: dict[str, Any], edits: Edits) -> Markup:
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
        return fragments.NOTHING
    note = (
        "An edit's reward is the mean score of its adapters. The best of E is chosen "
        "by the same noisy number it is shown with, so it flatters."
    )
    if any(edit.get("objective") == "max" for edit in edits):
        note = note.replace("the mean score", "the best score")
    if any(edit.get("aside") for edit in edits):
        note += " What a prefilter set aside was written, and not tried."
    if any(edit.get("refused") for edit in edits):
        note += " What was refused was not tried and has no reward."
    return fragments.section(
        "Rewards by round",
        note,
        (fragments.table(head, means) if means else "")
        + fragments.charts(figures)
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
                fragments.figure(
                    fragments.caption(
                        f"Round {number}, {label}",
                        below=f"{len(chosen)} edits, mean {mean}",
                    ),
                    svg.histogram(chosen, x, css),
                )
            )
    return figures


def _by_task(edits: Edits) -> Markup:
    """Which tasks of a few-shot run were solved while sampling, by round."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for e in edits:
        key = (str(e.get("round", formatting.MISSING)), str(e["task_id"]))
        groups.setdefault(key, []).append(e)
    if not groups:
        return fragments.NOTHING
    rows = []
    for (number, task), task_edits in groups.items():
        counts = few_shot_view.edit_counts(task_edits)
        share = few_shot_view.success(task_edits)
        rows.append(
            (
                task,
                number,
                *map(formatting.count, (counts.drawn, counts.valid, counts.trained)),
                formatting.percent(share),
                formatting.count(sum(bool(e.get("kept")) for e in task_edits)),
                counts.reasons() or formatting.MISSING,
            )
        )
    head = ("task", "round", "drawn", "valid", "trained", "solved if trained", "kept")
    return fragments.folded(
        "By task", fragments.table((*head, "refused"), rows, css="reasons")
    )


def to_read(edits: Edits, tasks: Mapping[str, few_shot_view.Task]) -> Markup:
    """The edits of the highest and of the lowest rewards, and refused ones, in full."""
    rewarded = [e for e in edits if formatting.measured(e.get("reward")) is not None]
    refused = [e for e in edits if e.get("refused")]
    if not (rewarded or refused):
        return fragments.NOTHING
    # Worst among what is left, so that a small run does not show an edit twice.
    ordered = sorted(rewarded, key=lambda e: -e["reward"])
    best = _spread(ordered)
    worst = _spread([e for e in reversed(ordered) if e not in best])
    reasons = {e["refused"]: e for e in reversed(refused)}
    odd = [e for e in reversed(reasons.values())][:_SHOWN_EDITS]
    parts = [
        fragments.headed(title, fragments.joined(_edit(e, tasks) for e in chosen))
        for title, chosen in (("Best", best), ("Worst", worst), ("Refused", odd))
        if chosen
    ]
    failed = sum(1 for e in edits if e.get("failed"))
    what = "task" if any("task_id" in e for e in edits) else "passage"
    note = f"By reward, one for each {what}, of {len(rewarded)} edits with a reward."
    if failed:
        note += f" {failed} more failed."
    if refused:
        note += f" {len(refused)} more were refused; shown are different reasons."
    return fragments.section("Edits to read", note, fragments.joined(parts))


def _item_of(edit: dict[str, Any]) -> Any:
    return edit.get("passage_id", edit.get("task_id"))


def _spread(edits: Edits) -> list[dict[str, Any]]:
    """The first edits, of different items."""
    chosen: dict[Any, dict[str, Any]] = {}
    for edit in edits:
        if len(chosen) < _SHOWN_EDITS:
            chosen.setdefault(_item_of(edit), edit)
    return list(chosen.values())


def _edit(edit: dict[str, Any], tasks: Mapping[str, few_shot_view.Task]) -> Markup:
    """One edit in full, to be opened."""
    missing = formatting.MISSING
    seeds = ", ".join(formatting.number(r, digits=2) for r in edit.get("rewards") or [])
    aside = "set aside" if edit.get("aside") else ""
    chips = ["kept" if edit.get("kept") else "", aside, edit.get("refused")]
    answers = edit.get("answers") or []
    few_shot = "task_id" in edit
    task = tasks.get(str(edit.get("task_id")))
    return fragments.render(
        "edits.edit",
        reward=formatting.number(edit.get("reward")),
        title=edit.get("title", edit.get("task_id", missing)),
        chips=[chip for chip in chips if chip],
        place=f"round {edit.get('round', missing)}, edit {edit.get('edit', missing)}, "
        f"by seed: {seeds or '-'}",
        passage=edit.get("passage"),
        text=edit.get("text", ""),
        brief=few_shot_view.brief(edit),
        redrawn=", ".join(map(str, edit.get("redrawn") or ())),
        lines=edit.get("lines") or [],
        answers=grids_section.answers(task, answers) if few_shot else _answers(answers),
        prompt=edit.get("prompt", ""),
    )


def _answers(seeds: Sequence[Sequence[dict[str, Any]] | None]) -> Markup:
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
                str(answer.get("question", formatting.MISSING)) if first else "",
                str(answer.get("gold", formatting.MISSING)) if first else "",
                said if said.strip() else fragments.render("edits.empty_answer"),
                _verdict(answer.get("score")),
                str(seed),
            )
        )
    if not rows:
        return fragments.lead("No answers on record.")
    return fragments.table(
        ("question", "gold", "answer", "verdict", "seed"), rows, css="answers"
    )


def _verdict(score: Any) -> str:
    value = formatting.measured(score)
    if isinstance(score, bool):
        value = float(score)
    if value is None:
        return fragments.note("not judged")
    if value in (0.0, 1.0):
        return fragments.verdict(bool(value))
    return formatting.number(value, digits=2)
