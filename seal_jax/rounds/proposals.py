"""Step 1 of a round: self-edits, as a policy writes them or as none does."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seal_jax.generation import mixture, policies
from seal_jax.rounds import graded, trials
from seal_jax.rounds.experiment import Experiment
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import distributed, prng, progress
from seal_jax.tasks import strategies
from seal_jax.tasks.base import Edit, Reading


def propose[Item](
    run: trials.Run[Experiment, Item],
    writer: policies.Policy,
    items: Sequence[Item],
    *,
    phase: str,
    round_index: int,
    count: int,
) -> list[Edit]:
    """Samples `count` self-edits for every item (SEAL, section 3.1).

    The keys hold the round, the item, the edit and the attempt, but not the phase:
    policies that are compared on the same items draw with the same random numbers.
    """
    asked = studied(
        run, writer, items, phase=phase, round_index=round_index, count=count
    )
    index = [(p, e) for p in range(len(items)) for e in range(count)]
    drawn: list[list[str]] = [[] for _ in index]
    read: list[list[Reading]] = [[] for _ in index]
    wanted = list(range(len(index)))

    def unit(wanted: Sequence[int], attempt: int) -> dict[str, Any]:
        begin = time.monotonic()
        rows = np.array([index[i] for i in wanted])
        fixed = [np.full(len(rows), v) for v in (trials.PROPOSE, round_index)]
        keys = prng.fold(run.key, *fixed, rows[:, 0], rows[:, 1])
        if attempt:
            keys = prng.fold(keys, np.full(len(rows), attempt))
        row_prompts = [asked[i].prompt for i in wanted]
        with progress.progress(
            len(rows), f"{phase}: propose", "edits", visible=distributed.leads()
        ) as tick:
            written = policies.write(
                writer, row_prompts, keys, run.task.writing, tick=tick
            )
        return {"texts": written, "seconds": time.monotonic() - begin}

    for attempt in range(run.task.attempts):
        again = " again" * bool(attempt)
        run.say(f"{phase}: propose {len(wanted)} {run.task.called}{again}")
        name = str(UnitKey(phase, "propose", attempt or None))
        draw = functools.partial(unit, wanted, attempt)
        texts = run.journal.cached(name, draw)["texts"]
        for i, text in zip(wanted, texts, strict=True):
            drawn[i].append(text)
            read[i].append(run.task.read(items[index[i][0]], text))
        wanted = [i for i in wanted if read[i][-1].again]
        if not wanted:
            break
    edits = []
    for i, (p, e) in enumerate(index):
        *before, last = read[i]
        redrawn = tuple(str(reading.refused) for reading in before)
        edits.append(
            Edit(
                p,
                e,
                asked[i].prompt,
                drawn[i][-1],
                redrawn=redrawn,
                refused=last.refused,
                strategy=asked[i].strategy,
            )
        )
    edits = settled(run, writer, items, edits, phase=phase, round_index=round_index)
    refused = graded.refusals(edits)
    if refused:
        reasons = ", ".join(f"{why} {n}" for why, n in refused.items())
        run.say(f"{phase}: texts refused: {reasons}")
    return edits


class Asked(NamedTuple):
    """What an edit's writer continues, and the strategy in it, or ""."""

    prompt: str
    strategy: str = ""


def studied[Item](
    run: trials.Run[Experiment, Item],
    writer: policies.Policy,
    items: Sequence[Item],
    *,
    phase: str,
    round_index: int,
    count: int,
) -> list[Asked]:
    """The prompts of `count` edits for every item, item by item.

    Where edits are written in two steps the policy lists strategies for each item
    first, a unit of the journal, and edit e goes by the e-th of them, from the first on
    again where there are fewer. An item for which none is listed that fits has its
    edits written by `strategies.NO_OTHER`.
    """
    task = run.task
    prompts = [task.listing(item) for item in items]
    listing = [prompt for prompt in prompts if prompt is not None]
    if len(listing) < len(items):
        return [
            Asked(prompt)
            for prompt in map(task.propose_prompt, items)
            for _ in range(count)
        ]

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        stage = [np.full(len(items), v) for v in (trials.STRATEGY, round_index)]
        keys = prng.fold(run.key, *stage, np.arange(len(items)))
        texts = policies.write(writer, listing, keys, task.writing)
        return {"texts": texts, "seconds": time.monotonic() - begin}

    run.say(f"{phase}: list strategies for {len(items)} items")
    texts = run.journal.cached(str(UnitKey(phase, "strategies")), unit)["texts"]
    made, without = [], 0
    for item, text in zip(items, texts, strict=True):
        found = strategies.listed(text, count)
        fitting = [
            Asked(prompt, strategy)
            for strategy in found
            if (prompt := task.by_strategy(item, strategy)) is not None
        ]
        without += not fitting
        fitting = fitting or [Asked(task.propose_prompt(item))]
        made += [fitting[e % len(fitting)] for e in range(count)]
    if without:
        run.say(
            f"{phase}: for {without} of {len(items)} items no strategy is listed that "
            "fits; their edits are written without one"
        )
    return made


def settled[Item](
    run: trials.Run[Experiment, Item],
    writer: policies.Policy,
    items: Sequence[Item],
    edits: Sequence[Edit],
    *,
    phase: str,
    round_index: int,
) -> list[Edit]:
    """The edits as they are trained: quizzes with what their writer answers again.

    A quiz's questions are put to the policy once more, greedily and with the item in
    view; by the rule "mix" their answers are then drawn from its two ways to answer.
    """
    task, answer = run.task, run.exp.answer
    asked = [task.again(items[e.item], e) for e in edits]

    def again() -> dict[str, Any]:
        begin = time.monotonic()
        prompts = [[each.in_view for each in group] for group in asked]
        keys_A = prng.fold(run.key, np.arange(len(edits)))  # Not used: it is greedy.
        greedy = dataclasses.replace(answer, temperature=0.0)
        answers = policies.answer(writer, None, prompts, keys_A, greedy, room=task.room)
        return {"answers": answers, "seconds": time.monotonic() - begin}

    answers: list[list[str]] = [[] for _ in edits]
    if any(asked):
        count = sum(map(len, asked))
        run.say(f"{phase}: ask {count} questions of {len(edits)} quizzes again")
        answers = run.journal.cached(str(UnitKey(phase, "again")), again)["answers"]
    edits = [
        task.settled(items[e.item], e, texts)
        for e, texts in zip(edits, answers, strict=True)
    ]
    pairs = [task.mixed(items[e.item], e) for e in edits]

    def mix() -> dict[str, Any]:
        begin = time.monotonic()
        rows = [(e, q) for e, group in enumerate(pairs) for q in range(len(group))]
        ids = np.array([(edits[e].item, edits[e].edit, q) for e, q in rows])
        stage = [np.full(len(rows), v) for v in (trials.PRACTICE, round_index)]
        teach = task.teach
        assert teach is not None  # What mixes has it.
        drawn = mixture.answer(
            writer,
            [pairs[e][q] for e, q in rows],
            prng.fold(run.key, *stage, *ids.T),
            dataclasses.replace(answer, temperature=teach.temperature),
            teach.mix,
        )
        texts = iter(drawn)
        return {
            "answers": [[next(texts) for _ in group] for group in pairs],
            "seconds": time.monotonic() - begin,
        }

    if not any(pairs):
        return edits
    drawn = run.journal.cached(str(UnitKey(phase, "mix")), mix)["answers"]
    return [
        task.answered(e, texts) if texts else e
        for e, texts in zip(edits, drawn, strict=True)
    ]


def entropy[Item](
    run: trials.Run[Experiment, Item],
    writer: policies.Policy,
    edits: Sequence[Edit],
    *,
    phase: str,
) -> float | None:
    """Nats a token of what the policy wrote: mean -log p of its edits' tokens.

    That is the policy's entropy as its own samples estimate it, of those that were
    drawn at temperature 1 from all tokens. Colder samples, or some of a nucleus, are
    likelier than that. None where a policy wrote nothing.
    """
    written = [(e.prompt, e.text) for e in edits if not e.fixed]

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        found = policies.surprise(writer, written, run.task.writing)
        return {
            "nats": [each.nats for each in found],
            "lengths": [each.tokens for each in found],
            "seconds": time.monotonic() - begin,
        }

    if not written:
        return None
    found = run.journal.cached(str(UnitKey(phase, "entropy")), unit)
    return sum(found["nats"]) / sum(found["lengths"])


def fixed_edits[Item](
    run: trials.Run[Experiment, Item], items: Sequence[Item], arm: str
) -> list[Edit]:
    """The edits of an arm that no policy writes; none of them is refused.

    Raises:
      ValueError: the arm's edits are a policy's.
    """
    edits = []
    for p, item in enumerate(items):
        texts = run.task.fixed(arm, item)
        if texts is None:
            raise ValueError(f"arm={arm!r}: a policy writes its edits; use propose")
        edits += [Edit(p, e, "", text, fixed=True) for e, text in enumerate(texts)]
    return edits
