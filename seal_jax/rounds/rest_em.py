"""ReST-EM over self-edits: one round.

    for round in 1 .. rounds:
        edits   = propose(policy, items)             sample E self-edits per item;
                                                     of more, those that look best
        adapt   : (edits, seeds) -> answers          train an adapter per edit and seed,
                                                     and ask it about its item
        rewards = evaluate(edits, adapt)             what each edit's answers are worth
        lessons = select(rewards)                    the best edits of each item
        policy  = imitate(policy, lessons)           fine-tune on (prompt, edit), merge

An item is a passage (`tasks.knowledge`) or a few-shot task (`tasks.few_shot`). The loop
over the rounds is in `loop`. By another outer rule (`training.outer_rules`) the lessons
are pairs of edits, or all edits with what each has over the others.

SEAL (arXiv 2506.10943), algorithm 1 and section 3.1; ReST-EM is Singh et al. 2023.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from seal_jax.generation import policies
from seal_jax.rounds import (
    dreams,
    evaluate,
    ladder_rows,
    learn,
    lessons,
    proposals,
    trials,
)
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.graded import Graded
from seal_jax.rounds.lessons import Lesson
from seal_jax.rounds.trials import Run


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a round leaves.

    `policy`: the next one. `graded`: all edits, with what they are worth; `lessons`:
    what was learned of them. `baseline`: each item's mean score without an adapter.
    `aside`: what was written and not tried (`select.prefilter`).
    `entropy`: of the policy that wrote the edits (`proposals.entropy`).
    """

    policy: policies.Policy
    graded: list[Graded]
    lessons: list[Lesson]
    baseline: list[float | None]
    aside: list[Graded] = dataclasses.field(default_factory=list)
    entropy: float | None = None

    @property
    def kept(self) -> list[int]:
        """Indices of the edits that the policy was to write more often."""
        places = {(g.edit.item, g.edit.edit): i for i, g in enumerate(self.graded)}
        kept = (lesson.edit for lesson in self.lessons if lesson.kept)
        return [places[edit.item, edit.edit] for edit in kept]


def one_round[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    items: Sequence[Item],
    *,
    start: policies.Policy | None,
    past: Sequence[Sequence[Lesson]],
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
      past: the lessons of each of the rounds before.
      round_index: from 1 on.
      workdir: where checkpoints go.
    """
    phase = ladder_rows.round_name(round_index)
    written = proposals.propose(
        run,
        policy,
        items,
        phase=phase,
        round_index=round_index,
        count=run.exp.select.written(run.exp.scale.edits),
    )
    entropy = proposals.entropy(run, policy, written, phase=phase)
    edits, scores, aside = dreams.sifted(
        run, policy, items, written, phase=phase, round_index=round_index
    )
    adapt = functools.partial(
        trials.adapt_and_answer, run, policy, edits, round_index=round_index
    )
    graded, baseline = evaluate.evaluate(
        *(run, policy, items, edits, adapt),
        phase=phase,
        round_index=round_index,
        known=scores,
    )
    chosen = lessons.choose(
        graded,
        [run.task.text(item) for item in items],
        baseline,
        cfg=run.exp.imitate,
        rule=run.exp.select.rule,
        ties_seed=f"{run.exp.seed} {round_index}",
    )
    following = learn.imitate(
        run,
        policy,
        chosen,
        start=start,
        past=past,
        round_index=round_index,
        workdir=workdir,
    )
    return Outcome(following, graded, chosen, baseline, aside, entropy)
