"""A round's line of the summary, and its rows of edits.jsonl."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from seal_jax.analysis import agreement, novelty_measures
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import graded as grades
from seal_jax.rounds import ladder_rows, learn, scoring, self_scores
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.graded import Graded, mean
from seal_jax.rounds.rest_em import Outcome
from seal_jax.rounds.trials import Run
from seal_jax.runtime import formatting
from seal_jax.tasks.base import Lines
from seal_jax.training.outer_rules import RULES


def round_line[Item](
    run: Run[Rounds, Item],
    items: Sequence[Item],
    done: Outcome,
    round_index: int,
    lines: Sequence[Lines],
) -> dict[str, Any]:
    """All that the summary says about a round; `lines`: of each edit, as trained."""
    line = scores_line(done.graded, done.kept, done.baseline, round_index)
    line |= scoring.total(lines) | learn.figures(run, round_index)
    line |= self_scores.figures(run, ladder_rows.round_name(round_index))
    line |= {"entropy": done.entropy}
    line |= novelty_line([run.task.text(item) for item in items], done.graded)
    line |= diversity_line([*done.graded, *done.aside])
    if done.aside:
        whole = [*done.graded, *done.aside]
        line["written"] = len(whole)
        line["refused"] = grades.refusals([g.edit for g in whole])
    select = run.exp.select
    if select.objective != "mean":
        line["objective"] = select.objective
    if select.trains:
        sieve = select.sieve
        line |= agreement_line(
            select.measured,
            len(items),
            done.graded,
            select.objective,
            prefilter=sieve.by if sieve is not None else None,
        )
    return line


def edit_rows[Item](
    run: Run[Rounds, Item],
    items: Sequence[Item],
    done: Outcome,
    round_index: int,
    lines: Sequence[Lines],
) -> list[dict[str, Any]]:
    """The round's edits as rows of edits.jsonl; `lines` as for `round_line`.

    With a prefilter each says whether it is `aside`: written, and not tried; with
    another objective than the mean, which.
    """
    kept, rule = set(done.kept), RULES[run.exp.imitate.rule]
    by_edit = {(one.edit.item, one.edit.edit): one for one in done.lessons}
    sieved = run.exp.select.sieve is not None
    how = run.exp.select.objective
    objective = {} if how == "mean" else {"objective": how}

    def taught(g: Graded) -> dict[str, Any]:
        """What pairs or groups say of the edit, that a person may follow the rule."""
        lesson = by_edit.get((g.edit.item, g.edit.edit))
        if rule.pairs:
            other = lesson.other if lesson is not None else None
            return {"preferred_to": None if other is None else other.edit}
        if rule.groups:
            return {"advantage": None if lesson is None else lesson.advantage}
        return {}

    rows = [
        scoring.edit_row(
            run,
            g,
            items,
            round=round_index,
            kept=i in kept,
            **taught(g),
            cut=trained.cut,
            **({"aside": False} if sieved else {}),
            **objective,
        )
        for i, (g, trained) in enumerate(zip(done.graded, lines, strict=True))
    ]
    if not done.aside:
        return rows
    placed = [
        ((g.edit.item, g.edit.edit), row)
        for g, row in zip(done.graded, rows, strict=True)
    ]
    placed += [
        (
            (g.edit.item, g.edit.edit),
            scoring.edit_row(
                run, g, items, round=round_index, kept=False, cut=0, aside=True
            ),
        )
        for g in done.aside
    ]
    return [row for _, row in sorted(placed, key=lambda pair: pair[0])]


def scores_line(
    graded: Sequence[Graded],
    kept: Sequence[int],
    baseline: Sequence[float | None],
    round_index: int,
) -> dict[str, Any]:
    """A round in numbers: what was sampled, the best of each item, what was kept."""
    best: dict[int, float] = {}
    for g in graded:
        # What left a race early was measured by fewer seeds.
        if g.reward is not None and not g.out:
            p = g.edit.item
            best[p] = max(best.get(p, g.reward), g.reward)
    return {
        "round": round_index,
        "baseline_mean": mean(baseline),
        "sampled_mean": mean([g.reward for g in graded]),
        "best_mean": mean(list(best.values())),
        "kept_mean": mean([graded[i].reward for i in kept]),
        "kept": len(kept),
        "refused": grades.refusals([g.edit for g in graded]),
        "trainings": sum(len(g.trials) for g in graded),
        "failed_adapters": sum(bool(t.failed) for g in graded for t in g.trials),
        "missing_judgements": sum(
            s is None for g in graded for row in g.scores for s in row
        ),
        "empty_rate": grades.empty_rate(
            [a for g in graded for t in g.trials for a in t.answers]
        ),
    }


def novelty_line(
    passages: Sequence[str | None], graded: Sequence[Graded]
) -> dict[str, Any]:
    """How new the edits are, and how alike; nothing where there are no passages."""
    if not passages or any(passage is None for passage in passages):
        return {}
    places = grades.by_item(g.edit.item for g in graded)
    measures = [
        novelty_measures.measure(str(passage), [graded[i].edit.text for i in places[p]])
        for p, passage in enumerate(passages)
    ]
    return {
        "novelty": {
            name: mean([measure[name] for measure in measures]) for name in measures[0]
        }
    }


def diversity_line(graded: Sequence[Graded]) -> dict[str, Any]:
    """How different the policy's texts are; nothing where it wrote none."""
    groups = grades.by_item(g.edit.item for g in graded).values()
    texts = [[graded[i].edit.text for i in group] for group in groups]
    return {"diversity": novelty_measures.diversity(texts)} if texts else {}


def agreement_line(
    names: Sequence[str],
    items: int,
    graded: Sequence[Graded],
    objective: str = "mean",
    *,
    prefilter: str | None = None,
) -> dict[str, Any]:
    """How the other rewards choose by the grade; nothing where there are none.

    `prefilter`: by what the edits were picked before, which each row then says: of
    these a filter's own agreement is no measure of the filter.
    """
    whole = grades.OBJECTIVES[objective]
    others = [name for name in names if name != reward_names.GRADE]
    if not others:
        return {}
    places = grades.by_item(g.edit.item for g in graded)
    true, *values = (
        [
            [whole(graded[i].measured.get(name, ())) for i in places[p]]
            for p in range(items)
        ]
        for name in (reward_names.GRADE, *others)
    )
    verdicts = [agreement.agree(true, value) for value in values]
    more = {} if prefilter is None else {"prefilter": prefilter}
    return {
        "agreement": [
            {"reward": name, **dataclasses.asdict(verdict), **more}
            for name, verdict in zip(others, verdicts, strict=True)
            if verdict is not None
        ]
    }


def told(line: dict[str, Any]) -> str:
    """What came out of a round, for people."""
    names = ("baseline", "sampled", "best", "kept")
    means = ", ".join(
        f"{name} {formatting.number(line[f'{name}_mean'])}" for name in names
    )
    return (
        f"{ladder_rows.round_name(line['round'])}: kept {line['kept']} self-edits; "
        f"mean rewards: {means}{_told_learned(line.get('learned'))}"
    )


def _told_learned(learned: dict[str, Any] | None) -> str:
    """How pairs or groups were learned, if there were any."""
    if learned is None:
        return ""
    number, last = formatting.number, learned["last"]
    names = {"right": "pairs right", "clipped": "clipped", "kl": "KL"}
    names |= {"winner": "winners", "loser": "losers", "good": "good", "bad": "bad"}
    shown = ", ".join(f"{n} {number(last[k])}" for k, n in names.items() if k in last)
    return (
        f"; loss {number(learned['first_loss'])} to {number(last['loss'])} on "
        f"{learned['lessons']} lessons of {number(learned['won_tokens'], digits=0)} "
        f"tokens against {number(learned['lost_tokens'], digits=0)} (log-likelihoods "
        f"and shares in the last epoch: {shown})"
    )


def nothing_kept(phase: str, graded: Sequence[Graded], rule: str) -> str:
    """Why a round changes nothing, for people; `rule`: the outer one."""
    counts = grades.counts(graded)
    scored = sum(g.reward is not None for g in graded)
    use = "loosen select.threshold and the other limits"
    if RULES[rule].weighed:
        use = (
            f"see whether edits differ by more than luck, which imitate.rule={rule!r} "
            "asks for (imitate.prefer.margin and shrink)"
        )
    return (
        f"{phase}: none of {counts['edits']} self-edits is kept (refused: "
        f"{counts['refused'] or 'none'}; with a reward: {scored}); the policy stays as "
        f"it is; raise scale.edits, or {use}"
    )


def metrics_of(line: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a round's line, by the names that metrics.jsonl has for them."""
    plain = {f"round/{k}": v for k, v in line.items() if isinstance(v, (int, float))}
    texts = {
        f"{group}/{k}": v
        for group in ("novelty", "diversity")
        for k, v in line.get(group, {}).items()
        if v is not None
    }
    last = line.get("learned", {}).get("last", {})
    return plain | texts | {f"learned/{k}": v for k, v in last.items()}
