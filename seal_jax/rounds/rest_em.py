"""ReST-EM over self-edits: one round.

    for round in 1 .. rounds:
        edits   = propose(policy, items)             sample E self-edits per item
        adapt   : (edits, seeds) -> answers          train an adapter per edit and seed,
                                                     and ask it about its item
        rewards = evaluate(edits, adapt)             what each edit's answers are worth
        kept    = select(rewards)                    the best edits of each item
        policy  = imitate(policy, kept)              fine-tune on (prompt, edit), merge

An item is a passage (`tasks.knowledge`) or a few-shot task (`tasks.few_shot`). The loop
over the rounds is in `loop`.

SEAL (arXiv 2506.10943), algorithm 1 and section 3.1; ReST-EM is Singh et al. 2023.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from seal_jax.generation import policies
from seal_jax.rounds import evaluate, ladder_rows, learn, proposals, select, trials
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.graded import Graded
from seal_jax.rounds.trials import Run
from seal_jax.tasks.base import Edit


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a round leaves.

    `policy`: the next one. `graded`: all edits, with what they are worth; `kept`:
    indices of those that were imitated. `baseline`: each item's mean score without an
    adapter. `entropy`: of the policy that wrote the edits (`proposals.entropy`).
    """

    policy: policies.Policy
    graded: list[Graded]
    kept: list[int]
    baseline: list[float | None]
    entropy: float | None = None

    @property
    def kept_edits(self) -> list[Edit]:
        return [self.graded[i].edit for i in self.kept]


def one_round[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    *,
    start: policies.Policy | None,
    past: Sequence[Sequence[Edit]],
    round_index: int,
    workdir: Path,
) -> Outcome:
    """One round of ReST-EM. It consumes `policy`, unless that is `start`.

    Args:
      run: the experiment.
      policy: the policy that writes the edits and is adapted. Its weights become the
        next policy's and must not be used again.
      items: of this round.
      start: the policy that is fine-tuned in place of `policy`, or None; it stays as
        it is.
      past: what each of the rounds before kept.
      round_index: from 1 on.
      workdir: where checkpoints go.
    """
    phase = ladder_rows.round_name(round_index)
    edits = proposals.propose(
        run,
        policy,
        items,
        phase=phase,
        round_index=round_index,
        count=run.exp.scale.edits,
    )
    entropy = proposals.entropy(run, policy, edits, phase=phase)
    adapt = functools.partial(
        trials.adapt_and_answer, run, policy, edits, round_index=round_index
    )
    graded, baseline = evaluate.evaluate(
        run, policy, items, edits, adapt, phase=phase, round_index=round_index
    )
    kept = select.choose(
        graded,
        [run.task.text(item) for item in items],
        baseline,
        rule=run.exp.select.rule,
        ties_seed=f"{run.exp.seed} {round_index}",
    )
    following = learn.imitate(
        run,
        policy,
        [graded[i].edit for i in kept],
        start=start,
        past=past,
        round_index=round_index,
        workdir=workdir,
    )
    return Outcome(following, graded, kept, baseline, entropy)
