"""The choice of ReST-EM: which self-edits of an item the policy shall imitate.

SEAL's rule: of each passage the one edit with the highest mean accuracy, the first one
where several share it, without a threshold.

Nothing in that rule asks for new text, and with the rounds the edits of a passage grow
alike. Three options ask for it: a bonus in the ranking, and limits on what is copied
from the passage and on what two chosen edits share.

`report.commands.select` applies the rule to the reference's result files.
"""

import dataclasses
import math
import random
from collections.abc import Sequence

from seal_jax.analysis import ngrams
from seal_jax.rounds.graded import Graded, by_item
from seal_jax.training.settings import IMITATE_DATA

TIES = ("first", "shortest", "random")
BASELINE = "baseline"

# `Rule.digits` of our own rounds. A mean of grades is a quotient, and two that are
# equal as fractions may differ in the last bit; without rounding that bit would decide.
SHARE_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One edit, as far as the choice looks at it.

    `reward`: the mean over its seeds; None, not scored, is never chosen. `length`: of
    its text, for ties. `words`: of its text, to compare it with other edits. `novelty`:
    share of its trigrams that its passage lacks; None where there is no passage, or the
    text has fewer than three words.
    """

    reward: float | None
    length: int = 0
    words: tuple[str, ...] = ()
    novelty: float | None = None

    def overlap(self, other: "Candidate") -> float | None:
        """Jaccard index of the two edits' trigrams.

        With an edit of fewer than three words it is 1 if both have the same words, else
        it is not known: None.
        """
        trigrams, others = (
            set(zip(w, w[1:], w[2:], strict=False)) for w in (self.words, other.words)
        )
        if trigrams and others:
            return ngrams.index(trigrams, others)
        return 1.0 if self.words == other.words else None


@dataclasses.dataclass(frozen=True)
class Rule:
    """How edits are chosen.

    `k_best`: at most so many. `ties`: which of equally good edits comes first: the
    "first" drawn, the "shortest", or one at "random". `threshold`: an edit must reach
    this reward; "baseline": it must exceed what the item's questions give without any
    adapter. None chooses regardless.

    Edits are ranked by reward + `bonus` * novelty, while thresholds are for the reward;
    a novelty that is not known has no bonus. `digits`: decimals to which that sum is
    rounded first, so that what differs by less is a tie; None ranks it as it is, as the
    reference does with the means in its files.

    An edit of which more than `max_copied` is in its passage is never chosen; one that
    overlaps by more than `max_overlap` with a better one that is chosen already is
    passed over. What is not known passes; None is
    no limit.

    Raises:
      ValueError: an option out of its range.
    """

    k_best: int = 1
    ties: str = "first"
    threshold: float | str | None = None
    bonus: float = 0.0
    max_copied: float | None = None
    max_overlap: float | None = None
    digits: int | None = None

    def __post_init__(self):
        if self.k_best < 1:
            raise ValueError(f"k_best={self.k_best} must be at least 1")
        if self.ties not in TIES:
            raise ValueError(f"ties={self.ties!r} must be one of {', '.join(TIES)}")
        if isinstance(self.threshold, str):
            if self.threshold != BASELINE:
                raise ValueError(
                    f"threshold={self.threshold!r} must be a number, {BASELINE!r} or "
                    "None"
                )
        elif self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(
                f"threshold={self.threshold} must be finite; None is no threshold"
            )
        if not (math.isfinite(self.bonus) and self.bonus >= 0):
            raise ValueError(
                f"bonus={self.bonus} must be at least 0 and finite; 0 is none"
            )
        if self.digits is not None and not 0 <= self.digits <= 15:
            raise ValueError(
                f"digits={self.digits} must be between 0 and 15; None rounds nothing"
            )
        for name in ("max_copied", "max_overlap"):
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit <= 1:
                raise ValueError(
                    f"{name}={limit} must be between 0 and 1; None is no limit"
                )

    @property
    def reads_passage(self) -> bool:
        """Whether it asks what an edit adds to its passage, or to other edits."""
        limits = (self.max_copied, self.max_overlap)
        return bool(self.bonus) or any(limit is not None for limit in limits)


def candidates(
    rewards: Sequence[float | None], texts: Sequence[str], passage: str | None
) -> list[Candidate]:
    """The edits `texts` of one item; without a passage nothing is copied from it."""
    return [
        Candidate(
            reward,
            len(text),
            tuple(ngrams.words(text)),
            None if passage is None else ngrams.novel_share(passage, text),
        )
        for reward, text in zip(rewards, texts, strict=True)
    ]


def best(
    edits: Sequence[Candidate],
    rule: Rule,
    *,
    baseline: float | None = None,
    rng: random.Random | None = None,
) -> list[int]:
    """Indices of the edits of one item to imitate, best first.

    Args:
      edits: all of the item's.
      rule: how to choose.
      baseline: reward without any adapter, for `threshold="baseline"`.
      rng: for `ties="random"`.

    Returns:
      at most `k_best` indices; none where no edit was scored or passed.

    Raises:
      ValueError: baseline or rng is missing, or a reward is not finite.
    """
    least = _least(edits, rule, baseline, rng)
    order = list(range(len(edits)))
    if rule.ties == "shortest":
        order.sort(key=lambda e: edits[e].length)
    if rule.ties == "random" and rng is not None:
        rng.shuffle(order)
    scored = []
    for e in order:
        reward, novelty = edits[e].reward, edits[e].novelty
        copied = None if novelty is None else 1 - novelty
        if reward is None or reward < least or _above(copied, rule.max_copied):
            continue
        if rule.threshold == BASELINE and reward == least:
            continue
        value = reward + rule.bonus * (novelty or 0.0)
        scored.append((value if rule.digits is None else round(value, rule.digits), e))
    # Stable: ties stay in `order`.
    scored.sort(key=lambda s: s[0], reverse=True)
    chosen: list[int] = []
    for _, e in scored:
        limit = rule.max_overlap
        if limit is None or not any(
            _above(edits[e].overlap(edits[c]), limit) for c in chosen
        ):
            chosen.append(e)
        if len(chosen) == rule.k_best:
            break
    return chosen


def choose(
    graded: Sequence[Graded],
    passages: Sequence[str | None],
    baseline: Sequence[float | None],
    *,
    rule: Rule,
    ties_seed: str,
) -> list[int]:
    """Indices of the edits to imitate: the best of each item (SEAL's filter).

    Args:
      graded: edits of all items; one that was refused or left a race is never chosen.
      passages: what each item's edits are about; None: nothing to compare them with.
      baseline: of each item, its mean score without any adapter.
      rule: how to choose.
      ties_seed: with the item's place it seeds the draw among equals.
    """
    chosen, places_of = [], by_item(g.edit.item for g in graded)
    for p, (passage, score) in enumerate(zip(passages, baseline, strict=True)):
        if rule.threshold == BASELINE and score is None:
            continue  # Nobody knows whether its edits are better than none.
        places = places_of[p]
        tried = [graded[i].edit.imitable and not graded[i].out for i in places]
        rewards = [
            graded[i].reward if ok else None
            for i, ok in zip(places, tried, strict=True)
        ]
        texts = [graded[i].edit.text for i in places]
        picks = best(
            candidates(rewards, texts, passage),
            rule,
            baseline=score,
            rng=random.Random(f"ties {ties_seed} {p}"),
        )
        chosen += [places[e] for e in picks]
    return chosen


def training_set[T](
    past: Sequence[Sequence[T]], new: Sequence[T], data: str
) -> list[T]:
    """What to train on in this round, in the order in which it came to be.

    A model that is trained on its own output alone drifts: in linear regression its
    error grows with every generation. If each generation's data are added to those
    before, the error stays bounded (Gerstgrasser et al. 2024, arXiv 2404.01413, theorem
    1).

    Args:
      past: what earlier rounds brought, a sequence each, the first round first.
      new: what this round brought.
      data: "replace" takes the new data alone, "accumulate" all of them.

    Raises:
      ValueError: unknown `data`.
    """
    if data not in IMITATE_DATA:
        raise ValueError(f"data={data!r} must be one of {', '.join(IMITATE_DATA)}")
    if data == "replace":
        return list(new)
    return [edit for edits in (*past, new) for edit in edits]


def threshold(text: str) -> float | str:
    """A threshold of `Rule` written as text: "baseline", or a number.

    Raises:
      ValueError: neither.
    """
    return text if text == BASELINE else float(text)


def _least(
    edits: Sequence[Candidate],
    rule: Rule,
    baseline: float | None,
    rng: random.Random | None,
) -> float:
    """The reward to reach, or with "baseline" to exceed; refuses what cannot be."""
    if rule.ties == "random" and rng is None:
        raise ValueError("ties='random' needs rng; give a random.Random with a seed")
    for edit in edits:
        if edit.reward is not None and not math.isfinite(edit.reward):
            raise ValueError(
                f"reward={edit.reward} must be finite; give None for an edit not scored"
            )
    if rule.threshold is None:
        return -math.inf
    if not isinstance(rule.threshold, str):
        return rule.threshold
    if baseline is None:
        raise ValueError(
            "threshold='baseline' needs the accuracy without an adapter; give baseline"
        )
    return baseline


def _above(value: float | None, limit: float | None) -> bool:
    """Whether a value is known and above a limit that is set."""
    return value is not None and limit is not None and value > limit
