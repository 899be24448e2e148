"""What models answer: by day with the context in view, in the morning without it."""

import time
from collections.abc import Mapping, Sequence

from seal_jax.continual import ask as continual_ask
from seal_jax.continual.entries import Answers, Scores
from seal_jax.deploy.entries import BaseEntry, DayEntry, MorningEntry
from seal_jax.deploy.stint import Stint
from seal_jax.generation import generate
from seal_jax.models import lora
from seal_jax.tasks import quiz
from seal_jax.tasks.passage import Passage


def base(stint: Stint) -> BaseEntry:
    """What the un-edited model answers about all sessions."""
    begin = time.monotonic()
    streams, setting = stint.streams, stint.setting
    own = [streams.all(s) for s in range(len(streams.days))]
    sizes = list(map(len, own))
    flat = [session for sessions in own for session in sessions]
    contexts = [session.context for session in flat]
    setting.run.say(f"un-edited: ask about {len(flat)} sessions")
    kinds = [
        contexts,
        [session.rephrased for session in flat],
        [session.unasked for session in flat],
        list(setting.probes),
    ]
    together = [passage for kind in kinds for passage in kind]
    (closed,), (scores,) = continual_ask.ask(setting, None, [together], 0)
    asked, rephrased, unasked, general = _cut(scores, list(map(len, kinds)))
    (answers,), (viewed,) = _in_view(stint, None, [contexts], 0)
    return {
        "answers": _cut(answers, sizes),
        "viewed": _cut(viewed, sizes),
        "asked": _cut(asked, sizes),
        "rephrased": _cut(rephrased, sizes),
        "unasked": _cut(unasked, sizes),
        "general": general,
        "questions": _count([closed]) + _count([answers]),
        "seconds": time.monotonic() - begin,
    }


def day(stint: Stint, stack: lora.Tree, t: int) -> DayEntry:
    """The current models' answers on day t, the context in view.

    Kept adapters are for questions without it: there the base answers.
    """
    begin = time.monotonic()
    groups = [[session.context for session in own] for own in stint.sessions(t)]
    if "keep" in stint.setting.controls:
        sizes = list(map(len, groups))
        together = [passage for group in groups for passage in group]
        (flat,), (found,) = _in_view(stint, None, [together], t)
        answers, scores = _cut(flat, sizes), _cut(found, sizes)
    else:
        answers, scores = _in_view(stint, stack, groups, t)
    return {
        "answers": answers,
        "viewed": scores,
        "questions": _count(answers),
        "seconds": time.monotonic() - begin,
    }


def _in_view(
    stint: Stint,
    adapters: lora.Tree | None,
    groups: Sequence[Sequence[Passage]],
    t: int,
) -> tuple[list[Answers], list[Scores]]:
    """Answers to the users' questions, and their scores, by session.

    An answer is the first line of what is written: a model that goes on to ask the next
    question would learn to do so.
    """
    written = continual_ask.answers(stint.viewed, adapters, groups, t)
    flat = [list(map(quiz.first_line, texts)) for texts in written]
    return continual_ask.graded(stint.viewed, groups, flat)


def morning(
    stint: Stint,
    stack: lora.Tree,
    t: int,
    learned: Sequence[Mapping[int, Sequence[str]]],
) -> MorningEntry:
    """What each stream's model answers after night t.

    Args:
      stint: the arm.
      stack: what each stream has learned.
      t: the night before.
      learned: what each stream was told, by night from 0 on, to send questions to kept
        adapters by.
    """
    begin = time.monotonic()
    setting = stint.setting
    before = [
        list(contexts[: setting.upto(s, t)])
        for s, contexts in enumerate(setting.sequences)
    ]
    today = stint.sessions(t)
    kinds: list[Sequence[Sequence[Passage]]] = [
        before,
        [[session.rephrased for session in own] for own in today],
        [[session.unasked for session in own] for own in today],
        [list(setting.probes) for _ in today],
    ]
    groups = [[p for kind in kinds for p in kind[s]] for s in range(len(today))]
    if "keep" in setting.controls:
        answers, scores = continual_ask.ask_routed(setting, stack, groups, learned, t)
    else:
        answers, scores = continual_ask.ask(setting, stack, groups, t)
    parts = [
        _cut(found, [len(kind[s]) for kind in kinds]) for s, found in enumerate(scores)
    ]
    return {
        "answers": [
            found[: len(own)] for found, own in zip(answers, before, strict=True)
        ],
        "asked": [part[0] for part in parts],
        "rephrased": [part[1] for part in parts],
        "unasked": [part[2] for part in parts],
        "general": [part[3] for part in parts],
        "drift": drift(stint, stack),
        "questions": _count(answers),
        "seconds": time.monotonic() - begin,
    }


def drift(stint: Stint, stack: lora.Tree) -> list[float]:
    """How far each stream's model is from the base, in nats a token, about.

    The mean of log p(token) - log q(token) over texts that the base p wrote: an
    estimate, without bias, of the forward divergence of q from it, on any text. No
    night trains on these texts. A model whose adapters are kept apart is the base on
    what none of them is about.
    """
    setting = stint.setting
    count = len(setting.sequences)
    if "keep" in setting.controls:
        return [0.0] * count
    policy = setting.base
    # The texts begin with what they were written from.
    start = () if policy.begin else (policy.eos,)
    texts = [(*start, *ids) for ids in stint.unseen]
    given = len(start) or len(policy.begin)

    def totals(adapters: lora.Tree | None, owners: Sequence[int]) -> list[float]:
        return generate.log_likelihoods(
            policy.params,
            adapters,
            [generate.Request(ids, owner) for owner in owners for ids in texts],
            [given] * len(texts) * len(owners),
            arch=policy.arch,
            batch=stint.exp.answer.batch,
            prompt_multiple=stint.exp.answer.prompt_multiple,
        )

    tokens = sum(len(ids) - given for ids in texts)
    if not tokens:
        return [0.0] * count
    own = sum(totals(None, [generate.NO_ADAPTER]))
    edited, size = totals(stack, range(count)), len(texts)
    return [
        (own - sum(edited[s * size : (s + 1) * size])) / tokens for s in range(count)
    ]


def _cut[T](flat: Sequence[T], sizes: Sequence[int]) -> list[list[T]]:
    """The list in pieces of these sizes."""
    rest = iter(flat)
    return [[next(rest) for _ in range(size)] for size in sizes]


def _count(answers: Sequence[Answers] | Sequence[Scores]) -> int:
    return sum(len(passage) for group in answers for passage in group)
