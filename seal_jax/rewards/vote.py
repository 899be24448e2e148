"""Majority vote: what many adapters answer alike is taken for right, without labels.

Answers to one question by many adapters of a passage elect a winner, and an adapter
earns what share of its answers won (Huang et al. 2022, arXiv 2210.11610; as a reward:
Zuo et al. 2025, arXiv 2504.16084). Votes are compared as graders compare words: case,
punctuation and articles do not count. An error that all adapters share wins as well.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from seal_jax.tasks import wordwise


def ballot_of(answer: str) -> str:
    """What a vote is counted as; empty for a blank answer."""
    # "+" and "The" are answers, though no word of them is left.
    return wordwise.normalize(answer) or " ".join(answer.lower().split())


def majority(
    answers: Sequence[str | None], *, ballot: Callable[[str], str] = ballot_of
) -> tuple[str | None, float]:
    """The answer that most give, as it was first written, and its share of the votes.

    A blank answer is a vote for nobody: it cannot win, but lowers the winner's share.
    None (an answer that could not be had) is no vote at all. Of answers with as many
    votes the first one given wins. `ballot` says what an answer is counted as.

    Returns:
      (winner, share of all votes in 0..1); (None, 0.0) if nobody said anything.
    """
    cast = [answer for answer in answers if answer is not None]
    votes = Counter(counted for counted in map(ballot, cast) if counted)
    if not votes:
        return None, 0.0
    # Counter keeps the order of first votes, and max the first of equals.
    winner, count = max(votes.items(), key=lambda item: item[1])
    first = next(answer for answer in cast if ballot(answer) == winner)
    return first.strip(), count / len(cast)


def rewards(
    answers_by_adapter: Sequence[Sequence[str | None]],
    *,
    leave_own_out: bool = False,
    blocs: Sequence[Hashable] | None = None,
) -> list[float | None]:
    """Per adapter, the share of questions at which its answer is the majority's.

    Args:
      answers_by_adapter: [adapter][question], all about the same questions in the same
        order.
      leave_own_out: an adapter is held against the majority of the others, so that it
        does not win by its own vote. It matters where voters are few, and so does then
        that the first of equal answers wins: shuffle the adapters once for all.
      blocs: a label per adapter, e.g. its self-edit. With `leave_own_out` no vote of
        its bloc counts for an adapter: seeds of one edit make the same errors. None:
        each adapter is a bloc of its own.

    Returns:
      a reward in 0..1 per adapter. A blank answer agrees with nobody, and neither does
      any answer where nobody else said anything. An answer of None is left out of its
      adapter's mean; a mean of nothing is None.

    Raises:
      ValueError: adapters with other numbers of questions, `blocs` of another length,
        or `leave_own_out` with fewer than two blocs.
    """
    counts = sorted({len(answers) for answers in answers_by_adapter})
    if len(counts) > 1:
        raise ValueError(
            f"adapters answered {counts} questions: a vote needs the same questions of "
            "all; give None for an answer that is missing"
        )
    labels = range(len(answers_by_adapter)) if blocs is None else blocs
    if len(labels) != len(answers_by_adapter):
        raise ValueError(
            f"blocs has {len(labels)} labels for {len(answers_by_adapter)} adapters; "
            "give one to each"
        )
    if leave_own_out and len(answers_by_adapter) and len(set(labels)) < 2:
        raise ValueError(
            f"leave_own_out leaves nobody to vote among {len(answers_by_adapter)} "
            "adapters of one bloc; sample more edits or set it to False"
        )
    agreed: list[list[float]] = [[] for _ in answers_by_adapter]
    for votes in zip(*answers_by_adapter, strict=True):
        winners = {
            label: _winner(votes, labels, label if leave_own_out else None)
            for label in set(labels)
        }
        for agreements, vote, label in zip(agreed, votes, labels, strict=True):
            if vote is not None:
                ballot = ballot_of(vote)
                agreements.append(float(bool(ballot) and ballot == winners[label]))
    return [
        sum(agreements) / len(agreements) if agreements else None
        for agreements in agreed
    ]


def _winner(
    votes: Sequence[str | None], labels: Sequence[Hashable], without: Hashable | None
) -> str | None:
    """The ballot that wins among adapters of other blocs than `without`."""
    counted = [
        vote
        for vote, label in zip(votes, labels, strict=True)
        if without is None or label != without
    ]
    winner, _ = majority(counted)
    return None if winner is None else ballot_of(winner)
