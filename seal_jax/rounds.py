"""All rounds of a run: the ladder around them, and when to stop.

The rows that need no training of the policy come first; then the rounds, each followed
by its own row on the held-out items.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax import (
    config_rounds,
    distributed,
    ladder,
    plateau,
    policy,
    records,
    rest_em,
    trials,
)


def walk(
    state: trials.Run,
    base: policy.Policy,
    train: Sequence[Sequence[Any]],
    heldout: Sequence[Any],
    workdir: Path,
) -> dict[str, Any]:
    """The experiment proper; everything before it was preparation."""
    row = functools.partial(ladder.row, state, items=heldout)
    wanted = state.exp.ladder
    rows = [
        row(base, name=name)
        for name in state.exp.base_arms
        if name in wanted and name != "oracle"
    ]
    last = [row(base, name="oracle")] if "oracle" in wanted else []
    if "random_kept" in wanted:
        control = rest_em.control(state, base, train, workdir)
        rows.append(row(control, name="random_kept"))
        del control
    lines, past, edits, stopped = [], [], [], None
    start = base if state.exp.imitate.start == "base" else None
    # Handed over in a list: on a large model two sets of weights are one too many.
    handed = [base]
    del base
    for index, items in enumerate(train, start=1):
        done = rest_em.one_round(
            state,
            handed,
            items,
            base=start,
            past=past,
            round_index=index,
            workdir=workdir,
        )
        handed = [done.policy]
        edits += done.rows
        lines.append(done.line)
        past.append(done.kept)
        rest_em.save_policy(state, done.policy, workdir, round_index=index)
        if distributed.leads():
            records.write_jsonl(workdir / "edits.jsonl", edits)
        state.metrics.log(index, numbers(done.line))
        rows.append(row(done.policy, name=f"round_{index}"))
        del done
        # As it was decided: a judgement that comes in later does not undo a round.
        stopped = state.journal.cached(
            f"stop/{index}", functools.partial(stop, state.exp.stop, rows)
        )
        if stopped:
            state.say(f"stopped after round {index} of {len(train)}: {stopped}")
            break
    rows += [row(handed[0], name=n) for n in state.exp.last_arms if n in wanted]
    rows += last
    heldout_edits = [edit for r in rows for edit in r["edits"]]
    every = {state.task.name(i): i for own in (*train, heldout) for i in own}
    shown = [row for i in every.values() if (row := state.task.item_row(i))]
    if distributed.leads():
        records.write_jsonl(workdir / "heldout.jsonl", heldout_edits)
        if shown:
            records.write_jsonl(workdir / "items.jsonl", shown)
    for i, r in enumerate(ladder.table(rows)):
        state.metrics.log(i, {f"ladder/{r['name']}": r["mean"]})
    return {
        "ladder": ladder.table(rows),
        "paired": ladder.pairs(rows),
        "items": ladder.by_item(state, rows, heldout),
        "rounds": lines,
        "stopped": stopped,
    }


def numbers(line: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a round's line, by the names that metrics.jsonl has for them."""
    known = {f"round/{k}": v for k, v in line.items() if isinstance(v, (int, float))}
    texts = line.get("novelty", {}).items()
    return known | {f"novelty/{k}": v for k, v in texts if v is not None}


def stop(cfg: config_rounds.StopConfig, rows: Sequence[dict[str, Any]]) -> str | None:
    """Why no further round is worth it, by the ladder's rows so far; None: go on."""
    values = {r["name"]: r["values"] for r in rows}
    rounds = [own for name, own in values.items() if name.startswith("round_")]
    first = [values["self_edits"]] if "self_edits" in values else []
    found = plateau.verdict(
        [*first, *rounds], rule=cfg.rule, patience=cfg.patience, z=cfg.z
    )
    return None if found is None else found.reason
