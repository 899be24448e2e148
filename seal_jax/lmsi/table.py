"""What a run without labels found, as rows of summary.json; no jax."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from seal_jax.analysis import stats
from seal_jax.lmsi import votes
from seal_jax.lmsi.settings import GOLD, MAJORITY, RANDOM, Lmsi
from seal_jax.lmsi.votes import Vote
from seal_jax.rounds import ladder_rows
from seal_jax.runtime import formatting
from seal_jax.tasks import chains
from seal_jax.tasks.chains import Question
from seal_jax.tasks.questions import TRAIN

DIRECT, CHAIN, CONSISTENCY = WAYS = ("direct", "chain", "consistency")
BASE = "base"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A policy after a round of an arm; `index` 0 is the base.

    It was trained in `steps` steps, on `rows` rows that were made of `chains` chains
    about `questions` questions, and on those of earlier rounds if they accumulate.
    """

    arm: str = ""
    index: int = 0
    questions: int = 0
    chains: int = 0
    rows: int = 0
    steps: int = 0

    @property
    def name(self) -> str:
        """What its rows and units are called."""
        if not self.index:
            return BASE
        if self.arm == MAJORITY:
            return ladder_rows.round_name(self.index)
        return f"{self.arm}_{self.index}"


class Side(NamedTuple):
    """Questions with their gold answers, if there are any: `questions.TRAIN` or not."""

    name: str
    asked: Sequence[Question]


@dataclasses.dataclass(frozen=True)
class Looked:
    """What a policy says about one side's questions; completions as they were written.

    `direct` and `chain` are greedy, without a chain and with one.
    """

    stage: Stage
    side: Side
    direct: list[str]
    chain: list[str]
    votes: list[Vote]

    def answers(self, way: str) -> list[str | None]:
        """The answer to each question; None: there is none to be read."""
        if way == CONSISTENCY:
            return [vote.winner for vote in self.votes]
        read = map(chains.read, self.direct if way == DIRECT else self.chain)
        return [one and one.answer for one in read]

    def values(self, way: str) -> list[float | None]:
        """1 or 0 for each question; None where there is no gold answer."""
        return [
            None
            if question.answer is None
            else float(chains.right(said, question.answer))
            for question, said in zip(self.side.asked, self.answers(way), strict=True)
        ]

    @property
    def sampled(self) -> float | None:
        """Of all chains of questions with a gold answer, those that reach it."""
        return stats.mean(
            vote.share_of(question.answer)
            for question, vote in zip(self.side.asked, self.votes, strict=True)
            if question.answer is not None
        )


def line(one: Looked) -> str:
    """What came out, for people."""
    scores = [f"{way} {formatting.number(stats.mean(one.values(way)))}" for way in WAYS]
    sure = stats.mean(vote.share for vote in one.votes)
    return (
        f"{one.stage.name}, {one.side.name}: {', '.join(scores)}; the majority has "
        f"{formatting.percent(sure)} of the chains"
    )


def shown(found: Sequence[Looked]) -> list[dict[str, Any]]:
    """Every question in every row, for reading: rows of heldout.jsonl."""
    return [
        {
            "arm": one.stage.name,
            "side": one.side.name,
            "question": question.question,
            "gold": question.answer,
            "direct": direct,
            "chain": chain,
            "majority": vote.winner,
            "share": vote.share,
            "answers": [c and c.answer for c in vote.chains],
        }
        for one in found
        for question, direct, chain, vote in zip(
            one.side.asked, one.direct, one.chain, one.votes, strict=True
        )
    ]


def summary(exp: Lmsi, found: Sequence[Looked]) -> dict[str, Any]:
    """The summary of a run.

    `ladder` and `paired` are of held-out questions, or of those that were learned from
    where nothing is held out; `sides` has both. `direct_steps`: the share of answers
    without a chain that have one all the same; what these rows are then is no longer
    what their name says.
    """
    sides = list(dict.fromkeys(one.side.name for one in found))
    by_side = {s: [one for one in found if one.side.name == s] for s in sides}
    tables = {s: rows(own) for s, own in by_side.items()}
    paired = [pair for own in by_side.values() for pair in pairs(own)]
    return {
        "kind": "lmsi",
        "ladder": tables[sides[-1]],
        "paired": paired,
        "sides": tables,
        "items": [],
        "rounds": [],
        "samples": exp.chains.samples,
        "votes": [
            {
                "name": one.stage.name,
                "side": one.side.name,
                "share": stats.mean(vote.share for vote in one.votes),
                "sampled": one.sampled,
                "unreadable": stats.mean(
                    float(c is None) for vote in one.votes for c in vote.chains
                ),
                "direct_steps": stats.mean(map(_stepped, one.direct)),
                "bins": votes.calibration(one.votes, one.side.asked),
            }
            for one in found
        ],
        "growth": [g for own in by_side.values() for g in growths(own)],
        "learned": [
            {
                "name": one.stage.name,
                "questions": one.stage.questions,
                "chains": one.stage.chains,
                "rows": one.stage.rows,
                "steps": one.stage.steps,
            }
            for one in found
            if one.stage.index and one.side.name == TRAIN
        ],
    }


def _stepped(text: str) -> float:
    """1 of a completion that takes steps before its answer, else 0."""
    chain = chains.read(text)
    return float(bool(chain and chain.steps))


def rows(found: Sequence[Looked]) -> list[dict[str, Any]]:
    """Means over questions with a standard error and a bootstrap interval of 95 %."""
    lines = []
    for way, one in itertools.product(WAYS, found):
        values, said = one.values(way), one.answers(way)
        mean, se = stats.mean_se_of_any(values)
        known = [value for value in values if value is not None]
        low, high = stats.interval(known) if known else (None, None)
        lines.append(
            {
                "name": f"{one.stage.name} {way}",
                "mean": mean,
                "se": se,
                "low": low,
                "high": high,
                "n": len(known),
                "empty_rate": sum(answer is None for answer in said) / len(said),
                "missing": 0,
                "failed": 0,
            }
        )
    return lines


def pairs(found: Sequence[Looked]) -> list[dict[str, Any]]:
    """Paired differences over the questions of a side.

    Ways of the base and of each arm's last round; each stage and the base, and the
    round before it; rounds of the same number of different arms.
    """
    named = {one.stage.name: one for one in found}
    last = {one.stage.arm: one for one in found}
    wanted: list[tuple[Looked, str, Looked, str]] = []
    for one in last.values():
        wanted += [(one, CHAIN, one, DIRECT), (one, CONSISTENCY, one, CHAIN)]
    for one in found:
        stage = one.stage
        against = [BASE] * bool(stage.index)
        if stage.index > 1:
            before = dataclasses.replace(stage, index=stage.index - 1)
            against.append(before.name)
        if stage.arm in (MAJORITY, GOLD):
            other = RANDOM if stage.arm == MAJORITY else MAJORITY
            against.append(Stage(other, stage.index).name)
        for name, way in itertools.product(against, WAYS):
            if name in named:
                wanted.append((one, way, named[name], way))
    lines = []
    for high, way, low, other in wanted:
        a, b = high.values(way), low.values(other)
        diffs = [
            x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None
        ]
        if not diffs:
            continue
        diff, se, z = stats.paired(a, b)
        least, most = stats.interval(diffs)
        lines.append(
            {
                "a": f"{high.stage.name} {way}",
                "b": f"{low.stage.name} {other}",
                "what": high.side.name,
                "n": len(diffs),
                "diff": diff,
                "se": se,
                "z": z,
                "low": least,
                "high": most,
            }
        )
    return lines


def growths(found: Sequence[Looked]) -> list[dict[str, Any]]:
    """What became of wrong majorities: by each round, and from the base on."""
    named = {one.stage.name: one for one in found}
    lines = []
    for one in found:
        stage = one.stage
        if not stage.index:
            continue
        before = dataclasses.replace(stage, index=stage.index - 1)
        for name in dict.fromkeys((before.name, BASE)):
            old = named[name]
            lines.append(
                {
                    "name": stage.name,
                    "since": name,
                    "side": one.side.name,
                    **votes.growth(old.votes, one.votes, one.side.asked),
                }
            )
    return lines
