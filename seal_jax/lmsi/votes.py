"""From chains to votes, and from votes to what is kept; texts and numbers, no jax.

Nothing here reads a gold answer but `gold_kept` and the two measures of what a vote is
worth, `calibration` and `growth`.
"""

import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from seal_jax.rewards import vote
from seal_jax.tasks import chains
from seal_jax.tasks.chains import Chain, Question

BINS = 5


class Vote(NamedTuple):
    """A question's chains as they were drawn, and what most of them answer.

    `chains`: None for one without an answer, which votes for nobody and counts.
    `winner`: None if no chain has an answer. `share`: of all chains, those that reach
    it; of answers with as many votes the first one drawn wins.
    """

    chains: tuple[Chain | None, ...]
    winner: str | None
    share: float

    def share_of(self, answer: str) -> float:
        """Of all chains, those that reach an answer."""
        return len(reaching(self, answer)) / len(self.chains) if self.chains else 0.0

    def right(self, gold: str) -> bool:
        """Whether the majority's answer is the gold one."""
        return chains.right(self.winner, gold)


def of_texts(texts: Sequence[str]) -> Vote:
    """The vote of completions."""
    return of_chains(tuple(chains.read(text) for text in texts))


def of_chains(drawn: tuple[Chain | None, ...]) -> Vote:
    """The vote of chains that were read."""
    said = ["" if chain is None else chain.answer for chain in drawn]
    winner, share = vote.majority(said, ballot=chains.ballot)
    return Vote(drawn, winner, share)


def reaching(of: Vote, answer: str) -> list[Chain]:
    """The chains that reach an answer, in the order in which they were drawn."""
    ballot = chains.ballot(answer)
    return [c for c in of.chains if c and chains.ballot(c.answer) == ballot]


def kept(of: Vote, *, threshold: float, cap: int) -> list[Chain]:
    """All chains that reach the majority's answer, or the first `cap` of them.

    None where the majority is less than `threshold` of all chains.
    """
    if of.winner is None or of.share < threshold:
        return []
    return reaching(of, of.winner)[: cap or None]


def random_kept(of: Vote, rng: random.Random, count: int) -> list[Chain]:
    """`count` chains, or as many as there are, drawn from all that have an answer."""
    readable = [chain for chain in of.chains if chain]
    return rng.sample(readable, min(count, len(readable)))


def made_up(
    kept: Sequence[list[Chain]], voted: Sequence[Vote], rng: random.Random, count: int
) -> list[list[Chain]]:
    """What is kept of each question, and `count` chains more, or as many as there are.

    They are drawn from all chains with an answer that are not kept yet.
    """
    left = [
        (i, chain)
        for i, (own, one) in enumerate(zip(kept, voted, strict=True))
        for chain in one.chains
        # Of equal texts each is a chain of its own.
        if chain and not any(chain is taken for taken in own)
    ]
    found = [list(own) for own in kept]
    for i, chain in rng.sample(left, min(count, len(left))):
        found[i].append(chain)
    return found


def gold_kept(of: Vote, question: Question, *, cap: int) -> list[Chain]:
    """The chains that reach the gold answer; none without one."""
    if question.answer is None:
        return []
    return reaching(of, question.answer)[: cap or None]


# What votes are worth


def calibration(
    voted: Sequence[Vote], questions: Sequence[Question]
) -> list[dict[str, Any]]:
    """Votes by their share, in bins of equal width: how many, how sure, how right.

    Questions without a gold answer are left out, and so are votes for nobody.
    """
    found: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for one, question in zip(voted, questions, strict=True):
        if one.winner is None or question.answer is None:
            continue
        # A share of exactly a bin's upper end is in it.
        place = max(0, math.ceil(round(one.share * BINS, 9)) - 1)
        found[place].append((one.share, one.right(question.answer)))
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "n": len(inside),
            "share": sum(s for s, _ in inside) / len(inside) if inside else None,
            "accuracy": sum(r for _, r in inside) / len(inside) if inside else None,
        }
        for i, inside in enumerate(found)
    ]


def growth(
    before: Sequence[Vote], after: Sequence[Vote], questions: Sequence[Question]
) -> dict[str, Any]:
    """What became of the majorities that were wrong, and of those that were right.

    The first half of a question's chains before elects its majority, and all else is
    measured on the other half, before and after. The chains that elected an answer
    have too many of it: measured by them, an unchanged policy would seem to give it up.

    Of questions with a gold answer: `wrong`, the share whose majority was wrong; of
    those `grown` and `shrunk`, the share of which more, or fewer, chains reach that
    very answer after, with its mean share before and after; `turned`, the share for
    which the other half's majority is right after, beside `turned_before`. Of those
    that were right `right_before` and `right_after`; `lost` and `lost_before`, the
    share for which the other half's majority is wrong. A policy that did not change
    grows about as many as it shrinks. A question with one chain is left out.
    """
    wrong, right = [], []
    for old, new, question in zip(before, after, questions, strict=True):
        gold = question.answer
        elects, held = halves(old)
        _, drawn = halves(new)
        if gold is None or elects.winner is None or not held.chains:
            continue
        shares = (
            held.share_of(elects.winner),
            drawn.share_of(elects.winner),
            held.right(gold),
            drawn.right(gold),
        )
        (right if elects.right(gold) else wrong).append(shares)

    def mean(values: Sequence[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return {
        "n": len(wrong) + len(right),
        "wrong": mean([1.0] * len(wrong) + [0.0] * len(right)),
        "grown": mean([float(b > a) for a, b, _, _ in wrong]),
        "shrunk": mean([float(b < a) for a, b, _, _ in wrong]),
        "wrong_before": mean([a for a, _, _, _ in wrong]),
        "wrong_after": mean([b for _, b, _, _ in wrong]),
        "turned_before": mean([float(r) for _, _, r, _ in wrong]),
        "turned": mean([float(r) for _, _, _, r in wrong]),
        "right_before": mean([a for a, _, _, _ in right]),
        "right_after": mean([b for _, b, _, _ in right]),
        "lost_before": mean([float(not r) for _, _, r, _ in right]),
        "lost": mean([float(not r) for _, _, _, r in right]),
    }


def halves(of: Vote) -> tuple[Vote, Vote]:
    """The votes of the first half of the chains, the larger, and of the others."""
    cut = (len(of.chains) + 1) // 2
    return of_chains(of.chains[:cut]), of_chains(of.chains[cut:])
