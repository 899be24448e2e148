"""The rounds of an arm: chains are drawn, voted on, and learned from.

    for each round:
        draw chains.samples chains of every question, from the policy
        keep those that reach the answer that most reach
        write each in chains.formats; fine-tune on all of them

(Huang et al. 2022, arXiv 2210.11610, section 3.) An arm sees its questions without
their gold answers, but for `gold`, which is an oracle.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from seal_jax.generation import policies
from seal_jax.lmsi import votes
from seal_jax.lmsi.asking import Asking
from seal_jax.lmsi.settings import GOLD, MAJORITY, RANDOM, Lmsi
from seal_jax.lmsi.table import Stage
from seal_jax.lmsi.votes import Vote
from seal_jax.rounds import learn, proposals
from seal_jax.rounds.lessons import Lesson
from seal_jax.rounds.trials import Run
from seal_jax.tasks.chains import Chain, Question

type LmsiRun = Run[Lmsi, Question]

# Checkpoints of what the first arm learns lie where those of other rounds do.
_NAMES = {MAJORITY: "policy", RANDOM: "random_chain", GOLD: "gold"}


def task_of(run: LmsiRun) -> Asking:
    """The run's task, which knows prompts by their format."""
    assert isinstance(run.task, Asking)
    return run.task


def drawn(
    run: LmsiRun,
    policy: policies.Policy,
    asked: Sequence[Question],
    *,
    phase: str,
    round_index: int,
) -> list[Vote]:
    """The chains of every question, as a vote each; no gold answer is read."""
    count = run.exp.chains.samples
    edits = proposals.propose(
        run, policy, asked, phase=phase, round_index=round_index, count=count
    )
    texts: list[list[str]] = [[] for _ in asked]
    for edit in edits:
        texts[edit.item].append(edit.text)
    return list(map(votes.of_texts, texts))


def kept(
    exp: Lmsi, arm: str, voted: Sequence[Vote], asked: Sequence[Question], index: int
) -> list[list[Chain]]:
    """Of each question the chains that an arm learns, in round `index`."""
    cfg = exp.chains
    found = []
    for i, (vote, question) in enumerate(zip(voted, asked, strict=True)):
        if arm == GOLD:
            found.append(votes.gold_kept(vote, question, cap=cfg.cap))
        elif arm == RANDOM:
            rng = random.Random(f"random chain {exp.seed} {index} {i}")
            found.append(
                votes.random_kept(vote, rng, threshold=cfg.threshold, cap=cfg.cap)
            )
        else:
            found.append(votes.kept(vote, threshold=cfg.threshold, cap=cfg.cap))
    return found


def rounds(
    run: LmsiRun,
    base: policies.Policy,
    arm: str,
    asked: Sequence[Question],
    voted: Sequence[Vote],
    workdir: Path,
    look: Callable[[Stage, policies.Policy], list[Vote]],
) -> None:
    """All rounds of an arm; the base is not consumed.

    Args:
      run: the experiment.
      base: the policy to begin with.
      arm: what is learned.
      asked: what is learned from; for other arms than `gold`, without gold answers.
      voted: the base's chains about them.
      workdir: where checkpoints go.
      look: is shown each policy, and gives its chains about the same questions.
    """
    exp, task = run.exp, task_of(run)
    policy, past = base, list[list[Lesson]]()
    for index in range(1, exp.scale.rounds + 1):
        chosen = kept(exp, arm, voted, asked, index)
        new = [
            Lesson(row)
            for i, (question, own) in enumerate(zip(asked, chosen, strict=True))
            for row in task.rows(i, question, own)
        ]
        if not new:
            run.say(f"{arm}: round {index} keeps no chain, and changes nothing")
        # The base is another arm's, too: what begins with it leaves it whole.
        whole = policy is base or exp.imitate.start == "base"
        policy = learn.imitate(
            run,
            policy,
            new,
            start=base if whole else None,
            past=past,
            round_index=index,
            workdir=workdir,
            name=_NAMES[arm],
        )
        past.append(new)
        if arm == MAJORITY:
            learn.save_policy(run, policy, workdir, round_index=index)
        stage = Stage(
            arm,
            index,
            questions=sum(map(bool, chosen)),
            chains=sum(map(len, chosen)),
            rows=len(new),
        )
        voted = look(stage, policy)
    if policy is not base:
        policy.freed()
