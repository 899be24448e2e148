"""A generated world of facts that are told inconsistently, and questions of two hops.

    question  What is the dish of the teacher of Ada?
    chain     Ada learns from Boris.
              the dish of Boris is ramen.
    answer    ramen

Everything is told by four voices, and a voice has a memory of its own: each remembers
a fact rightly or, with the same probability for every fact, wrongly. A model of this
world reaches different answers by different voices. Those that are wrong mostly differ
and those that are right agree, so that many chains together know more than the best
one. About some facts there is a rumour: all voices but one remember the same wrong
value, and then most chains are wrong alike.

The world is one and the same for all seeds, since one model was pretrained on it. A
third of the questions were put to it then; of the others a seed draws which are trained
on, without their answers, and which are held out.
"""

import dataclasses
import functools
import random

from seal_jax.tasks import world
from seal_jax.tasks.chains import Exemplar, Question

NAMES = (*world.FIRST_NAMES, *world.LAST_NAMES[:8])
VOICES = 4
# Of a voice's memories of ordinary facts, how many are wrong; of facts, how many have a
# rumour instead; of questions, how many pretraining puts.
WRONG, RUMOUR, TOLD = 0.24, 0.06, 1 / 3

# From one resident to another, and from a resident to a word.
FIRST_HOPS = (
    world.Relation("neighbour", "lives beside", "live beside", NAMES),
    world.Relation("teacher", "learns from", "learn from", NAMES),
    world.Relation("employer", "works for", "work for", NAMES),
)
SECOND_HOPS = tuple(
    relation
    for relation in world.PERSON_RELATIONS
    if relation.noun in ("trade", "dish", "instrument", "language")
)


@dataclasses.dataclass(frozen=True)
class Memory:
    """A fact as it is, and as each voice remembers it."""

    truth: str
    voices: tuple[str, ...]


def sentence(subject: str, relation: world.Relation, value: str, voice: int) -> str:
    """A fact in one of the `VOICES`, which all say the subject before the value."""
    if voice == 0:
        return f"{subject} {relation.verb} {value}."
    if voice == 1:
        return f"the {relation.noun} of {subject} is {value}."
    if voice == 2:
        return f"as {relation.noun} {subject} has {value}."
    return f"with {subject} the {relation.noun} is {value}."


@functools.cache
def memories() -> dict[tuple[str, str], Memory]:
    """Every fact of the world, by subject and noun of its relation."""
    return {
        (name, relation.noun): _memory(name, relation)
        for relation in (*FIRST_HOPS, *SECOND_HOPS)
        for name in NAMES
    }


def _memory(name: str, relation: world.Relation) -> Memory:
    rng = random.Random(f"hops {name} {relation.noun}")
    values = [value for value in relation.values if value != name]
    truth = rng.choice(values)
    others = [value for value in values if value != truth]
    if rng.random() < RUMOUR:
        rumour, honest = rng.choice(others), rng.randrange(VOICES)
        return Memory(
            truth,
            tuple(truth if voice == honest else rumour for voice in range(VOICES)),
        )
    voices = [
        rng.choice(others) if rng.random() < WRONG else truth for _ in range(VOICES)
    ]
    return Memory(truth, tuple(voices))


@dataclasses.dataclass(frozen=True)
class Hop:
    """A sentence of a chain, and the value that it ends in."""

    text: str
    value: str


@dataclasses.dataclass(frozen=True)
class TwoHops:
    """What is the `second` of the `first` of `subject`?"""

    subject: str
    first: world.Relation
    second: world.Relation

    @property
    def question(self) -> str:
        return (
            f"What is the {self.second.noun} of the {self.first.noun} of "
            f"{self.subject}?"
        )

    @property
    def truth(self) -> str:
        between = memories()[self.subject, self.first.noun].truth
        return memories()[between, self.second.noun].truth

    def told(self, voices: tuple[int, int] | None) -> list[Hop]:
        """The question answered in two steps, by the memories of two voices.

        None: as it is, each hop told by the first voice.
        """
        hops, at = [], self.subject
        for relation, voice in zip(
            (self.first, self.second), voices or (0, 0), strict=True
        ):
            memory = memories()[at, relation.noun]
            value = memory.voices[voice] if voices else memory.truth
            hops.append(Hop(sentence(at, relation, value, voice), value))
            at = value
        return hops

    def facts(self, voices: tuple[int, int] | None) -> set[tuple[str, str]]:
        """Subject and noun of both facts that `told` tells."""
        between = self.told(voices)[0].value
        return {(self.subject, self.first.noun), (between, self.second.noun)}

    def chain(self, voices: tuple[int, int] | None) -> Exemplar:
        """`told` as text."""
        hops = self.told(voices)
        steps = "\n".join(hop.text for hop in hops)
        return Exemplar(self.question, steps, hops[-1].value)


@functools.cache
def compositions() -> tuple[tuple[TwoHops, ...], tuple[TwoHops, ...]]:
    """All questions of two hops: those that pretraining puts, and the others."""
    every = [TwoHops(n, f, s) for n in NAMES for f in FIRST_HOPS for s in SECOND_HOPS]
    random.Random("hops compositions").shuffle(every)
    cut = round(TOLD * len(every))
    return tuple(every[:cut]), tuple(every[cut:])


def questions(
    group: str, *, seed: int, start: int, count: int, shots: int = 0
) -> list[Question]:
    """Questions `start .. start + count` of a group, with their gold answers.

    Args:
      group: "train" or "heldout"; with one seed no question is in both.
      seed: another seed draws other groups, and another order.
      start: the first.
      count: how many.
      shots: examples that prompts show: questions that rest on a fact that one of them
        tells are left out.

    Raises:
      ValueError: the group has fewer.
    """
    untold = list(compositions()[1])
    random.Random(f"hops questions {seed}").shuffle(untold)
    half = len(untold) // 2
    group_of = {"train": untold[:half], "heldout": untold[half:]}
    told = {fact for one, voices in _shown(shots) for fact in one.facts(voices)}
    asked = [q for q in group_of[group] if not q.facts(None) & told]
    if start + count > len(asked):
        raise ValueError(
            f"start={start} + count={count} questions must be at most the {len(asked)} "
            "of a group of the generated world; ask for fewer"
        )
    return [Question(q.question, q.truth) for q in asked[start : start + count]]


def exemplars(count: int) -> list[Exemplar]:
    """Questions that pretraining put, answered rightly and in steps.

    Raises:
      ValueError: there are fewer.
    """
    return [question.chain(voices) for question, voices in _shown(count)]


@functools.cache
def _shown(count: int) -> list[tuple[TwoHops, tuple[int, int]]]:
    """Each with the voices by which it is answered."""
    told = compositions()[0]
    rng = random.Random("hops exemplars")
    chosen = []
    for question in told:
        right = [
            (i, j)
            for i in range(VOICES)
            for j in range(VOICES)
            if question.chain((i, j)).answer == question.truth
        ]
        if right:
            chosen.append((question, rng.choice(right)))
    if count > len(chosen):
        raise ValueError(
            f"chains.shots={count} must be at most the {len(chosen)} that the "
            "generated world has; lower it"
        )
    return chosen[:count]
