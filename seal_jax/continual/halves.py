"""Which questions of a passage choose, and which report.

An arm that takes the best of several self-edits, or an adapter's largest harmless
scale, asks questions to do so. The same questions cannot tell afterwards what that was
worth: the best of three equal edits looks better than one by chance alone. So where any
arm of a run chooses, each passage's questions are drawn into two halves. One chooses,
by rewards and gates; the other reports, in all arms, un-edited and merging among them.
"""

import dataclasses
import random
from collections.abc import Iterable, Sequence

from seal_jax.continual.entries import BaseEntry, Scores, StepEntry
from seal_jax.tasks.passage import Passage


@dataclasses.dataclass(frozen=True)
class Halves:
    """Places of one passage's questions, each in order; no place is in both."""

    choosing: tuple[int, ...]
    reporting: tuple[int, ...]

    def choosing_among(self, places: Iterable[int]) -> "Halves":
        """The halves where no question but those at `places` can choose."""
        there = set(places)
        return Halves(tuple(i for i in self.choosing if i in there), self.reporting)

    def chooses(self, passage: Passage) -> Passage:
        """The passage with those of its questions that choose."""
        kept = tuple(passage.questions[i] for i in self.choosing)
        return dataclasses.replace(passage, questions=kept)


# By sequence, then by passage.
type AllHalves = Sequence[Sequence[Halves]]


def undivided(passage: Passage) -> Halves:
    """All questions report: where nothing is chosen."""
    return Halves((), tuple(range(len(passage.questions))))


def drawn(passage: Passage, *, seed: int) -> Halves:
    """The halves of a passage, the same whatever sequence it stands in.

    Of an odd number either half may have one more; a passage with one question only
    reports, and then its first self-edit is taken.
    """
    rng = random.Random(f"halves {seed} {passage.id} {passage.title}")
    count = len(passage.questions)
    places = rng.sample(range(count), count)
    size = min((count + rng.randrange(2)) // 2, count - 1)
    return Halves(tuple(sorted(places[:size])), tuple(sorted(places[size:])))


def of_scores(scores: Scores, halves: Sequence[Halves], half: str) -> Scores:
    """One sequence's scores, of its first passages, on one half of their questions.

    Args:
      scores: by passage, then by question; perhaps of fewer passages than there are.
      halves: of the sequence's passages.
      half: "choosing" or "reporting".
    """
    parts = (h.choosing if half == "choosing" else h.reporting for h in halves)
    return [
        [row[i] for i in places] for row, places in zip(scores, parts, strict=False)
    ]


def reported_base(entry: BaseEntry, halves: AllHalves) -> BaseEntry:
    """The un-edited model's scores, on the reporting half."""
    return {**entry, "scores": _reported(entry["scores"], halves)}


def reported_step(entry: StepEntry, halves: AllHalves) -> StepEntry:
    """A step's scores, on the reporting half; the probes all report."""
    return {**entry, "scores": _reported(entry["scores"], halves)}


def _reported(scores: Sequence[Scores], halves: AllHalves) -> list[Scores]:
    return [
        of_scores(rows, parts, "reporting")
        for rows, parts in zip(scores, halves, strict=True)
    ]
