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
from seal_jax.rounds import learn, proposals, select
from seal_jax.rounds.lessons import Lesson
from seal_jax.rounds.trials import Run
from seal_jax.tasks.chains import Chain, Question

type LmsiRun = Run[Lmsi, Question]

# Of checkpoints and units; those of the rule lie where other rounds have theirs.
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
    exp: Lmsi,
    arm: str,
    voted: Sequence[Vote],
    asked: Sequence[Question],
    index: int,
    counts: Sequence[int] | None = None,
) -> list[list[Chain]]:
    """Of each question the chains that an arm learns, in round `index`.

    `counts`: how many of each question the control takes; None: as many as its own
    majority has. What one question has too few answers for, others make up, so that as
    many are learned in all.
    """
    cfg = exp.chains
    found = []
    for i, (vote, question) in enumerate(zip(voted, asked, strict=True)):
        by_vote = votes.kept(vote, threshold=cfg.threshold, cap=cfg.cap)
        if arm == GOLD:
            found.append(votes.gold_kept(vote, question, cap=cfg.cap))
        elif arm == RANDOM:
            rng = random.Random(f"random chain {exp.seed} {index} {i}")
            count = len(by_vote) if counts is None else counts[i]
            found.append(votes.random_kept(vote, rng, count))
        else:
            found.append(by_vote)
    if arm == RANDOM and counts is not None:
        rng = random.Random(f"made up {exp.seed} {index}")
        missing = sum(counts) - sum(map(len, found))
        found = votes.made_up(found, voted, rng, missing)
    return found


def rounds(
    run: LmsiRun,
    base: policies.Policy,
    arm: str,
    asked: Sequence[Question],
    voted: Sequence[Vote],
    workdir: Path,
    look: Callable[[Stage, policies.Policy], list[Vote]],
    counts: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """All rounds of an arm; the base is not consumed.

    Args:
      run: the experiment.
      base: the policy to begin with.
      arm: what is learned.
      asked: what is learned from; for other arms than `gold`, without gold answers.
      voted: the base's chains about them.
      workdir: where checkpoints go.
      look: is shown each policy, and gives its chains about the same questions.
      counts: [round][question] chains that the rule kept, for its control to keep as
        many; None: the rule is no arm.

    Returns:
      [round][question] chains that were kept.
    """
    exp, task = run.exp, task_of(run)
    policy, past = base, list[list[Lesson]]()
    taken: list[list[int]] = []
    for index in range(1, exp.scale.rounds + 1):
        of_rule = None if counts is None else counts[index - 1]
        chosen = kept(exp, arm, voted, asked, index, of_rule)
        taken.append(list(map(len, chosen)))
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
        learnt = select.training_set(past, new, exp.imitate.data) if new else []
        past.append(new)
        if arm == MAJORITY:
            learn.save_policy(run, policy, workdir, round_index=index)
        stage = Stage(
            arm,
            index,
            questions=sum(map(bool, chosen)),
            chains=sum(map(len, chosen)),
            rows=len(new),
            steps=exp.imitate.epochs * -(-len(learnt) // exp.imitate.batch),
        )
        voted = look(stage, policy)
    if policy is not base:
        policy.freed()
    return taken
