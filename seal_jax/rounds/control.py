"""The control without a reward: the same rounds with a random edit kept."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seal_jax.generation import policies
from seal_jax.rounds import ladder_rows, learn, lessons, proposals
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.graded import by_item, refusals
from seal_jax.rounds.lessons import Lesson
from seal_jax.rounds.trials import Run


def random_kept[Item](
    run: Run[Rounds, Item],
    base: policies.Policy,
    rounds: Sequence[Sequence[Item]],
    workdir: Path,
    tell: Callable[[dict[str, Any]], None] = lambda line: None,
) -> policies.Policy:
    """The policy after rounds that keep a random edit: what imitation alone does.

    They are imitated, by whatever rule the policy learns, and are as many of an item as
    that rule imitates at most.
    It needs no rewards, so nothing is adapted. Its first proposals are round 1's. The
    base stays as it is. An edit that was refused is not among those to keep.

    `tell` takes what the summary says of each round.
    """
    exp, policy, past = run.exp, base, []
    most = lessons.select_rule(
        exp.imitate, exp.select.rule, edits=exp.scale.edits
    ).k_best
    for round_index, items in enumerate(rounds, start=1):
        phase = ladder_rows.round_name(round_index)
        edits = proposals.propose(
            run,
            policy,
            items,
            phase=phase if round_index == 1 else f"control/{phase}",
            round_index=round_index,
            count=run.exp.select.written(run.exp.scale.edits),
        )
        places = by_item(e.item for e in edits)
        kept: list[Lesson] = []
        for p in range(len(items)):
            rng = random.Random(f"control {run.exp.seed} {round_index} {p}")
            choices = [edits[i] for i in places[p] if edits[i].imitable]
            count = min(most, len(choices))
            kept += [Lesson(edit) for edit in rng.sample(choices, count)]
        from_base = policy is base or run.exp.imitate.start == "base"
        policy = learn.imitate(
            run,
            policy,
            kept,
            start=base if from_base else None,
            past=past,
            round_index=round_index,
            workdir=workdir,
            name=learn.CONTROL,
        )
        past.append(kept)
        refused = refusals(edits)
        tell({"round": round_index, "kept": len(kept), "refused": refused})
    return policy
