"""The control without a reward: the same rounds with a random edit kept."""

import random
from collections.abc import Sequence
from pathlib import Path

from seal_jax import ladder_rows, learn, policy, proposals
from seal_jax.experiment_base import Rounds
from seal_jax.tasks.base import Edit
from seal_jax.trials import Run


def random_kept[Item](
    run: Run[Rounds, Item],
    base: policy.Policy,
    rounds: Sequence[Sequence[Item]],
    workdir: Path,
) -> policy.Policy:
    """The policy after rounds that keep a random edit: what imitation alone does.

    It needs no rewards, so nothing is adapted. Its first proposals are round 1's. The
    base stays as it is.
    """
    pupil, past = base, []
    for round_index, items in enumerate(rounds, start=1):
        phase = ladder_rows.round_name(round_index)
        edits = proposals.propose(
            run,
            pupil,
            items,
            phase=phase if round_index == 1 else f"control/{phase}",
            round_index=round_index,
            count=run.exp.scale.edits,
        )
        kept: list[Edit] = []
        for p in range(len(items)):
            rng = random.Random(f"control {run.exp.seed} {round_index} {p}")
            choices = [e for e in edits if e.item == p]
            kept += rng.sample(choices, min(run.exp.select.k_best, len(choices)))
        from_base = pupil is base or run.exp.imitate.start == "base"
        pupil = learn.imitate(
            run,
            pupil,
            kept,
            start=base if from_base else None,
            past=past,
            round_index=round_index,
            workdir=workdir,
            name=learn.CONTROL,
        )
        past.append(kept)
    return pupil
