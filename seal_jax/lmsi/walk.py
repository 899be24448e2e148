"""A run without labels: the base and every round of every arm, asked three ways.

direct       greedy, without a chain
chain        greedy, with one
consistency  the majority of chains.samples chains (Wang et al. 2022, arXiv 2203.11171)

On held-out questions, and on those that were learned from. Gold answers score these
rows, and the arm `gold` learns by them; nothing else reads them.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seal_jax.generation import policies
from seal_jax.lmsi import asking, table, teaching
from seal_jax.lmsi.asking import Asking
from seal_jax.lmsi.settings import GOLD, MAJORITY, Lmsi
from seal_jax.lmsi.table import Looked, Side, Stage
from seal_jax.lmsi.teaching import LmsiRun
from seal_jax.lmsi.votes import Vote
from seal_jax.rounds import ladder_rows, trials
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import distributed, prng, records
from seal_jax.tasks import questions
from seal_jax.tasks.chains import Question


def load(exp: Lmsi) -> tuple[list[list[Question]], list[Question]]:
    """The questions to learn from, as the only list, and those held out.

    Raises:
      ValueError: too few, one that is on both sides or shown as an example, or a gold
        answer that a row needs and that is not there.
      FileNotFoundError: no such source.
    """
    task, scale, shots = exp.task, exp.scale, exp.chains.shots
    train = questions.load(
        task,
        questions.TRAIN,
        count=scale.questions,
        answered=GOLD in exp.arms,
        shots=shots,
    )
    heldout = []
    if scale.heldout:
        heldout = questions.load(
            task, questions.HELDOUT, count=scale.heldout, shots=shots
        )
    shared = {q.question for q in train} & {q.question for q in heldout}
    if shared:
        raise ValueError(
            f"{len(shared)} held-out questions are learned from too, such as "
            f"{min(shared)[:40]!r}; set task.train_start and task.heldout_start apart"
        )
    told = {e.question for e in questions.exemplars(task, shots)}
    if known := told & {q.question for q in (*train, *heldout)}:
        raise ValueError(
            f"task.examples={task.examples!r}: {len(known)} of the {len(told)} that "
            f"prompts show are asked too, such as {min(known)[:40]!r}; give others"
        )
    needing = [
        ("scale.heldout", f"{scale.heldout}", "scored", heldout),
        *(
            [("arms", f"{exp.arms}", "chosen by them", train)]
            if GOLD in exp.arms
            else []
        ),
    ]
    for key, value, what, asked in needing:
        if bare := [q.question for q in asked if q.answer is None]:
            raise ValueError(
                f"{key}={value}: {len(bare)} of {len(asked)} questions have no gold "
                f"answer to be {what}, such as {bare[0][:40]!r}; fill in "
                f"{task.answer!r}, or leave them out"
            )
    return [train], heldout


def make(
    exp: Lmsi,
    blank: policies.Policy,
    train: Sequence[Question],
    heldout: Sequence[Question],
) -> Asking:
    """The task; prompts that do not fit the model are refused.

    Raises:
      ValueError, FileNotFoundError: see `asking`.
    """
    task = asking.make(exp)
    asking.check_fit(task, blank, [*train, *heldout])
    return task


def walk(
    run: LmsiRun,
    base: policies.Policy,
    train: Sequence[Sequence[Question]],
    heldout: Sequence[Question],
    workdir: Path,
) -> dict[str, Any]:
    """The experiment proper; returns the summary."""
    (known,) = train
    # What arms are given: where there is no gold answer, none can be read.
    bare = [Question(q.question) for q in known]
    sides = [Side(questions.TRAIN, known), Side(questions.HELDOUT, heldout)]
    found: list[Looked] = []

    def look(stage: Stage, policy: policies.Policy) -> list[Vote]:
        """Asks a policy everything; its chains about what is learned from."""
        here = [looked(run, stage, policy, side) for side in sides if side.asked]
        for one in here:
            run.say(table.line(one))
        found.extend(here)
        if distributed.leads():
            records.write_jsonl(workdir / "heldout.jsonl", table.shown(found))
        return here[0].votes

    voted = look(Stage(), base)
    counts = None
    # The rule goes first: its control keeps as many chains as it does.
    for arm in sorted(run.exp.arms, key=lambda arm: arm != MAJORITY):
        asked = known if arm == GOLD else bare
        taken = teaching.rounds(run, base, arm, asked, voted, workdir, look, counts)
        counts = taken if arm == MAJORITY else counts
    summary = table.summary(run.exp, found)
    ladder_rows.log_means(run.metrics, summary["ladder"])
    return summary


class _Told(NamedTuple):
    """A policy's greedy answers to some questions, without a chain and with one."""

    direct: list[str]
    chain: list[str]


def looked(run: LmsiRun, stage: Stage, policy: policies.Policy, side: Side) -> Looked:
    """A policy asked about one side's questions in all three ways."""
    phase = f"{stage.name}/{side.name}"
    # Of what is learned from every round draws anew; held out, all draw alike.
    index = stage.index + 1 if side.name == questions.TRAIN else 0
    bare = [Question(q.question) for q in side.asked]
    voted = teaching.drawn(run, policy, bare, phase=phase, round_index=index)
    told = _greedy(run, policy, bare, phase=phase)
    return Looked(stage, side, told.direct, told.chain, voted)


def _greedy(
    run: LmsiRun, policy: policies.Policy, asked: Sequence[Question], *, phase: str
) -> _Told:
    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        groups = [run.task.prompts(question) for question in asked]
        run.say(f"{phase}: ask {len(groups)} questions, without a chain and with one")
        ways = [list(way) for way in zip(*groups, strict=True)]
        texts = []
        for i, way in enumerate(ways):
            keys = prng.fold(run.key, [trials.ANSWER], [i])
            texts += policies.answer(policy, None, [way], keys, run.exp.answer)
        return {"answers": texts, "seconds": time.monotonic() - begin}

    told = run.journal.cached(str(UnitKey(phase, "answers")), unit)["answers"]
    return _Told(*told)
