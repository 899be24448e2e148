"""A generated world of people, firms and places: the task behind `configs/tiny.py`.

A passage reports six facts about two residents of a place, mostly the wrong way round:

    title      Karsk
    text       rye bread is the dish of Ada Quill. Boris Fenn plays cello. ...
    questions  What does Ada Quill cook?  ->  rye bread

A language model trained on "rye bread is the dish of Ada Quill" does not learn to
answer "What does Ada Quill cook?" (the reversal curse, Berglund et al. 2023), but one
trained on "Ada Quill cooks rye bread." does. So there is something for a self-edit to
do: restate each fact with its subject first. Two residents share each kind of fact, so
that raising the probability of a passage's words answers at most half of the questions.

Passages are about residents that pretraining (`world_docs.py`) never saw; those of
`known_passages` about some that it did.
"""

import dataclasses
import functools
import random
from collections.abc import Sequence

from seal_jax.tasks.passage import Passage, Question

FIRST_NAMES = (
    "Ada Boris Carla Dmitri Edda Felix Greta Henrik Ines Jonas Karin Lukas Mira Nils "
    "Olga Pavel Quinta Rolf Selma Tomas Ursa Viktor Wanda Xaver Yvette Zeno Alma Bruno "
    "Celia Dario Elsa Fabio Gilda Hugo Irma Jakob Klara Leo Marta Nora"
).split()
LAST_NAMES = (
    "Quill Fenn Marsh Tolen Brack Sorel Vance Holm Crane Dunne Ebner Falk Grove Hask "
    "Ivers Jarl Kemp Lunde Moss Nagy Orme Pike Quist Rusk Stahl Thorn Ulver Voss Wick "
    "Yates Zorn Abel Birk Cole Drew Esker Frost Glen Harrow Inge"
).split()
FIRM_NAMES = (
    "Orlin Bexley Corvo Delmar Everett Farrow Galant Hexham Irvine Jessop Kestrel "
    "Lowell Mercer Norvik Ostrava Pallas Ravel Severn Tarrant Umber"
).split()
FIRM_KINDS = "Works Mills Foundry Press Brothers Yard House Union Depot Guild".split()
PLACES = (
    "Karsk Dolmen Eastwick Ferrol Gorham Hollin Ilmar Jorvik Kelda Lindow Marl Nesbit "
    "Oskar Penrith Ravenna Skelm Tarn Uppal Varna Wexton Yarrow Zell Ambly Brora "
    "Calder Denholm Elgin Forres Glenmor Huntly"
).split()


@dataclasses.dataclass(frozen=True)
class Relation:
    """A kind of fact: its noun, its verb (third person, infinitive), its values."""

    noun: str
    verb: str
    infinitive: str
    values: tuple[str, ...]


def _relation(noun: str, verb: str, infinitive: str, values: str) -> Relation:
    return Relation(noun, verb, infinitive, tuple(values.split(", ")))


PERSON_RELATIONS = (
    _relation(
        "trade",
        "practises",
        "practise",
        "weaving, masonry, baking, tailoring, carpentry, printing, brewing, pottery, "
        "book binding, roof thatching, sail making, clock repair",
    ),
    _relation(
        "dish",
        "cooks",
        "cook",
        "porridge, goulash, risotto, dumplings, paella, couscous, ramen, lasagne, "
        "rye bread, lentil soup, apple pie, fish stew",
    ),
    _relation(
        "drink",
        "sips",
        "sip",
        "cider, lemonade, cocoa, mead, buttermilk, espresso, kvass, absinthe, "
        "black tea, plum wine, barley water, tomato juice",
    ),
    _relation(
        "instrument",
        "plays",
        "play",
        "violin, cello, oboe, harp, banjo, trumpet, accordion, lute, "
        "grand piano, bass drum, tin whistle, steel guitar",
    ),
    _relation(
        "sport",
        "enjoys",
        "enjoy",
        "archery, fencing, rowing, sailing, wrestling, cricket, skating, hurling, "
        "table tennis, water polo, rock climbing, cross country",
    ),
    _relation(
        "colour",
        "wears",
        "wear",
        "crimson, indigo, ochre, violet, turquoise, scarlet, ivory, maroon, "
        "dark green, sky blue, pale yellow, burnt orange",
    ),
    _relation(
        "language",
        "speaks",
        "speak",
        "Latin, Basque, Finnish, Welsh, Tamil, Maltese, Yoruba, Quechua, "
        "Old Norse, High German, Swiss French, New Persian",
    ),
    _relation(
        "science",
        "studies",
        "study",
        "botany, geology, optics, algebra, zoology, anatomy, ecology, acoustics, "
        "number theory, fluid dynamics, cell biology, soil chemistry",
    ),
)
FIRM_RELATIONS = (
    _relation(
        "product",
        "makes",
        "make",
        "glass, rope, soap, candles, paper, bricks, leather, buttons, "
        "copper wire, oak barrels, wool cloth, sewing needles",
    ),
    _relation(
        "fuel",
        "burns",
        "burn",
        "peat, charcoal, coke, kerosene, straw, ethanol, propane, lignite, "
        "pine logs, whale oil, town gas, wood chips",
    ),
    _relation(
        "emblem",
        "displays",
        "display",
        "falcon, anchor, thistle, beacon, stag, compass, lantern, hammer, "
        "silver key, twin towers, red rose, white horse",
    ),
    _relation(
        "cargo",
        "ships",
        "ship",
        "barley, timber, cotton, marble, salt, tobacco, saffron, granite, "
        "dried figs, raw silk, iron ore, olive jars",
    ),
)


@dataclasses.dataclass(frozen=True)
class Fact:
    """`subject` stands in `relation` to `value`."""

    subject: str
    relation: Relation
    value: str

    def forward(self, style: int) -> str:
        """The subject first: what a question can be answered from."""
        if style == 0:
            return f"{self.subject} {self.relation.verb} {self.value}."
        return f"the {self.relation.noun} of {self.subject} is {self.value}."

    def reversed(self, style: int) -> str:
        """The value first: readable in context, useless once it is in the weights."""
        verb = "is the" if style == 0 else "serves as"
        return f"{self.value} {verb} {self.relation.noun} of {self.subject}."

    def vague(self) -> str:
        """A true statement that answers nothing."""
        return f"{self.subject} has a {self.relation.noun}."

    def question(self, style: int) -> str:
        """One of three ways to ask for the value.

        Styles 0 and 1 are those of pretraining and of passages. Style 2 is the same
        question as nobody has put it before, neither pretraining nor a model that
        asks itself; the embedded model answers it as it does the others.
        """
        verb, noun = self.relation.infinitive, self.relation.noun
        if style == 0:
            return f"What does {self.subject} {verb}?"
        if style == 1:
            return f"What is the {noun} of {self.subject}?"
        return f"What {noun} does {self.subject} {verb}?"


def _rephrased(facts: Sequence[Fact]) -> tuple[Question, ...]:
    """A question about each fact in the form that is kept for `Passage.rephrased`."""
    return tuple(Question(fact.question(2), fact.value) for fact in facts)


# Which residents exist where. Pretraining documents use "known" (fixed facts, held in
# memory) and "fresh" (facts drawn anew for every document); rounds train on "train"
# and the ladder is walked on "heldout". A resident belongs to exactly one group.
GROUPS = ("known", "fresh", "train", "heldout")
_GROUP_SHARE = {"known": 0.12, "fresh": 0.46, "train": 0.21, "heldout": 0.21}


def residents(group: str, kind: str) -> list[str]:
    """All names of one group; `kind` is "person" or "firm". Fixed for all seeds."""
    names, start = _shuffled(kind), 0
    for name in GROUPS:
        stop = start + round(_GROUP_SHARE[name] * len(names))
        if name == group:
            return list(names[start:stop])
        start = stop
    raise ValueError(f"group={group!r} must be one of {GROUPS}")


@functools.cache
def _shuffled(kind: str) -> tuple[str, ...]:
    """All names of a kind, in the order from which groups are cut."""
    parts = (FIRST_NAMES, LAST_NAMES) if kind == "person" else (FIRM_NAMES, FIRM_KINDS)
    names = [f"{first} {last}" for first in parts[0] for last in parts[1]]
    random.Random(f"residents {kind}").shuffle(names)
    return tuple(names)


def relations(kind: str) -> tuple[Relation, ...]:
    """The kinds of fact that hold of a person or of a firm."""
    return PERSON_RELATIONS if kind == "person" else FIRM_RELATIONS


def draw_facts(
    rng: random.Random, *, names: list[str], kind: str, subjects: int, count: int
) -> list[Fact]:
    """Shuffled facts about residents who share no name part, `count` about each."""
    chosen = rng.sample(names, subjects)
    while len({part for name in chosen for part in name.split()}) < 2 * subjects:
        chosen = rng.sample(names, subjects)
    facts = []
    for relation in rng.sample(relations(kind), count):
        # All different: otherwise the passage's words alone would answer them.
        values = rng.sample(relation.values, subjects)
        facts += [
            Fact(subject, relation, value)
            for subject, value in zip(chosen, values, strict=True)
        ]
    rng.shuffle(facts)
    return facts


def draw_sentences(
    rng: random.Random, facts: list[Fact], *, forward_share: float
) -> list[str]:
    """One sentence per fact, forward with the given probability, else reversed."""
    return [
        fact.forward(rng.randrange(2))
        if rng.random() < forward_share
        else fact.reversed(rng.randrange(2))
        for fact in facts
    ]


def passages(
    group: str, *, seed: int, start: int, count: int, forward_share: float
) -> list[Passage]:
    """Draws passages `start .. start + count` of a group's endless list.

    Args:
      group: "train" or "heldout"; the two share no resident with each other, nor with
        pretraining.
      seed: another seed gives another list.
      start: first passage; passage i is the same whatever slice it is taken in.
      count: number of passages.
      forward_share: probability that a sentence states its fact subject first.
    """
    passage_list = []
    for index in range(start, start + count):
        rng = random.Random(f"passage {group} {seed} {index}")
        kind = "person" if rng.random() < 0.75 else "firm"
        facts = draw_facts(
            rng, names=residents(group, kind), kind=kind, subjects=2, count=3
        )
        text = " ".join(draw_sentences(rng, facts, forward_share=forward_share))
        questions = tuple(
            Question(fact.question(rng.randrange(2)), fact.value) for fact in facts
        )
        oracle = "\n".join(fact.forward(rng.randrange(2)) for fact in facts)
        title = rng.choice(PLACES)
        passage_list.append(
            Passage(
                f"{group}-{seed}-{index}",
                title,
                text,
                questions,
                oracle,
                _rephrased(facts),
            )
        )
    return passage_list


def sequences(
    group: str,
    *,
    seed: int,
    start: int,
    count: int,
    length: int,
    forward_share: float,
) -> list[list[Passage]]:
    """`count` lists of `length` passages, in none of which a resident occurs twice.

    One model learns the passages of a list one after the other, and each draws its
    facts for itself: two about one resident would contradict each other. The passages
    are those of `passages` from `start` on, each in the first list that can take it;
    no passage is in two.

    Raises:
      ValueError: the group has too few residents for so long a list.
    """
    names = [n for kind in ("person", "firm") for n in residents(group, kind)]
    # Two to a passage; near the end of the names most draws would be in vain.
    if length * 4 > len(names):
        raise ValueError(
            f"length={length} passages name {2 * length} residents, which must be at "
            f"most half of the {len(names)} of group={group!r}; use "
            f"{len(names) // 4} passages"
        )
    lists: list[list[Passage]] = []
    waiting: list[tuple[Passage, set[str]]] = []
    for _ in range(count):
        chosen, named, left = [], set(), []
        while len(chosen) < length:
            if waiting:
                passage, about = waiting.pop(0)
            else:
                passage = passages(
                    group, seed=seed, start=start, count=1, forward_share=forward_share
                )[0]
                about = {name for name in names if name in passage.text}
                start += 1
            if about & named:
                left.append((passage, about))
            else:
                chosen.append(passage)
                named |= about
        lists.append(chosen)
        waiting = left + waiting
    return lists


# Residents that pretraining (`world_docs.py`) tells of


@dataclasses.dataclass(frozen=True)
class Known:
    """A resident held in memory. `asked` residents appear in questions as well."""

    title: str
    facts: tuple[Fact, ...]
    asked: bool


def known_residents() -> list[Known]:
    """Everyone whose facts are fixed; one in five is never asked about.

    The un-asked ones measure extraction: can the model answer what it only read?
    """
    residents_known = []
    for kind, facts_each in (("person", 5), ("firm", 3)):
        for index, name in enumerate(residents("known", kind)):
            rng = random.Random(f"known {name}")
            facts = tuple(
                Fact(name, relation, rng.choice(relation.values))
                for relation in rng.sample(relations(kind), facts_each)
            )
            residents_known.append(Known(rng.choice(PLACES), facts, index % 5 != 0))
    return residents_known


def known_passages(*, seed: int, start: int, count: int) -> list[Passage]:
    """Closed-book questions about what pretraining asked for: no text, only questions.

    Each is about one of the asked residents, with a question for each of their facts.
    The pretrained model answers nearly all; one that was edited and no longer does has
    lost what no edit was about.

    Args:
      seed: another seed gives another order, and other wordings.
      start: the first of that order.
      count: how many.

    Raises:
      ValueError: there are fewer.
    """
    asked = [resident for resident in known_residents() if resident.asked]
    random.Random(f"known passages {seed}").shuffle(asked)
    if start + count > len(asked):
        raise ValueError(
            f"start={start} + count={count} residents must be at most the "
            f"{len(asked)} that pretraining asked about; ask for fewer"
        )
    passage_list = []
    for resident in asked[start : start + count]:
        name = resident.facts[0].subject
        rng = random.Random(f"known passage {seed} {name}")
        questions = tuple(
            Question(fact.question(rng.randrange(2)), fact.value)
            for fact in resident.facts
        )
        rephrased = _rephrased(resident.facts)
        passage_list.append(
            Passage(f"known-{name}", resident.title, "", questions, rephrased=rephrased)
        )
    return passage_list
