"""All rounds of a run: the ladder around them, and when to stop.

The rows that need no training of the policy come first; then the rounds, each followed
by its own row on the held-out items.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seal_jax.analysis import plateau
from seal_jax.generation import policies
from seal_jax.rounds import (
    control,
    gold,
    ladder,
    ladder_rows,
    learn,
    outer_checks,
    prompts,
    rest_em,
    scoring,
    summary,
)
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.ladder_rows import LadderRow, RowKind
from seal_jax.rounds.lessons import Lesson
from seal_jax.rounds.settings import StopConfig
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import distributed, records
from seal_jax.tasks.knowledge import PROMPTS

# The row of that name; none where nothing is held out to measure it on.
type RowOf = Callable[[policies.Policy, str], list[LadderRow]]


def walk[Item](
    run: Run[Rounds, Item],
    base: policies.Policy,
    train: Sequence[Sequence[Item]],
    heldout: Sequence[Item],
    workdir: Path,
) -> dict[str, Any]:
    """The experiment proper; everything before it was preparation.

    It consumes `base`, unless all rounds start from it.
    """

    exp, wanted = run.exp, run.exp.ladder
    missed = gold.left_out(
        run.task, [*itertools.chain(*train)], heldout, wanted, exp.select.compare
    )
    if missed:
        run.say(missed)
    two_steps = any(run.task.listing(item) is not None for item in train[0][:1])
    for line in outer_checks.notes(exp.imitate, run.task.writing, two_steps=two_steps):
        run.say(line)
    heldout = gold.measurable(run.task, heldout)
    wanted = wanted if heldout else ()

    def row_of(policy: policies.Policy, name: str) -> list[LadderRow]:
        if not heldout:
            return []
        if name == PROMPTS:
            row = prompts.row(run, policy, train[0], heldout)
        else:
            row = ladder.row(run, policy, heldout, name=name)
        run.say(ladder.line(row))
        return [row]

    before = [arm for arm in exp.base_arms if arm in wanted and arm != "oracle"]
    rows = [row for arm in before for row in row_of(base, arm)]
    last = row_of(base, "oracle") if "oracle" in wanted else []
    controlled: list[dict[str, Any]] = []
    if ladder_rows.CONTROL in wanted:
        policy = control.random_kept(run, base, train, workdir, controlled.append)
        rows += row_of(policy, ladder_rows.CONTROL)
        del policy
    final, lines, stopped = all_rounds(run, base, train, rows, row_of, workdir)
    rows += [
        row for arm in exp.last_arms if arm in wanted for row in row_of(final, arm)
    ]
    rows += last
    if distributed.leads():
        write_heldout(run, rows, [*train, heldout], workdir)
    table = ladder.table(rows)
    ladder_rows.log_means(run.metrics, table)
    return {
        "ladder": table,
        "paired": ladder.pairs(rows),
        "items": ladder.by_item(run, rows, heldout),
        "rounds": lines,
        "control": controlled,
        "stopped": stopped,
    } | ({"left_out": missed} if missed else {})


def all_rounds[Item](
    run: Run[Rounds, Item],
    base: policies.Policy,
    train: Sequence[Sequence[Item]],
    rows: list[LadderRow],
    row_of: RowOf,
    workdir: Path,
) -> tuple[policies.Policy, list[dict[str, Any]], str | None]:
    """The rounds one after another, each followed by its row, until one is the last.

    Args:
      run: the experiment.
      base: the policy to begin with; consumed, unless all rounds start from it.
      train: items of each round.
      rows: of the ladder so far; gains one for each round, if anything is held out.
      row_of: measures a policy as a row of that name.
      workdir: where checkpoints, the policy and edits.jsonl go.

    Returns:
      the last policy, the rounds' lines of the summary, and why they ended early.
    """
    exp = run.exp
    start = base if exp.imitate.start == "base" else None
    policy, lines, stopped = base, [], None
    past: list[list[Lesson]] = []
    edits: list[dict[str, Any]] = []
    for index, items in enumerate(train, start=1):
        done = rest_em.one_round(
            run,
            policy,
            items,
            start=start,
            past=past,
            round_index=index,
            workdir=workdir,
        )
        policy, name = done.policy, ladder_rows.round_name(index)
        if not done.lessons:
            run.say(summary.nothing_kept(name, done.graded, exp.imitate.rule))
        trained = scoring.lines_trained(run, items, done.graded)
        edits += summary.edit_rows(run, items, done, index, trained)
        lines.append(summary.round_line(run, items, done, index, trained))
        past.append(done.lessons)
        learn.save_policy(run, policy, workdir, round_index=index)
        if distributed.leads():
            records.write_jsonl(workdir / "edits.jsonl", edits)
        run.say(summary.told(lines[-1]))
        run.metrics.log(index, summary.metrics_of(lines[-1]))
        rows += row_of(policy, name)
        # As it was decided: a judgement that comes in later does not undo a round.
        stopped = run.journal.cached(
            str(UnitKey("", "stop", index)),
            functools.partial(stop, exp.stop, rows),
        )
        if stopped:
            run.say(f"stopped after round {index} of {len(train)}: {stopped}")
            break
    return policy, lines, stopped


def write_heldout[Item](
    run: Run[Rounds, Item],
    rows: Sequence[LadderRow],
    lists: Sequence[Sequence[Item]],
    workdir: Path,
) -> None:
    """Writes heldout.jsonl, and items.jsonl where items have rows of their own."""
    records.write_jsonl(
        workdir / "heldout.jsonl", [edit for row in rows for edit in row.edits]
    )
    by_name = {run.task.name(item): item for items in lists for item in items}
    shown = [row for item in by_name.values() if (row := run.task.item_row(item))]
    if shown:
        records.write_jsonl(workdir / "items.jsonl", shown)


def stop(cfg: StopConfig, rows: Sequence[LadderRow]) -> str | None:
    """Why no further round is worth it, by the ladder's rows so far; None: go on."""
    first = [row.values for row in rows if row.name == "self_edits"]
    rounds = [row.values for row in rows if row.kind is RowKind.ROUND]
    verdict = plateau.verdict(
        [*first, *rounds], rule=cfg.rule, patience=cfg.patience, z=cfg.z
    )
    return None if verdict is None else verdict.reason
