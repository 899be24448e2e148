"""Documents that the embedded model is pretrained on: the world as a corpus.

What the model should hold in memory: lines and passages about "known" residents, and
questions about most of them. What it should be able to read: questions and lists about
"fresh" residents, whose facts are drawn anew for each document, so that only the
passage can tell.

The lists are written by an imperfect author: each has a quality z, and a fact becomes a
clean forward line with probability z, else it is dropped, copied, restated backwards,
made vague, or given a wrong value. A model that imitates this author knows how to write
a good list but rarely does. That is the policy SEAL starts from.
"""

import dataclasses
import functools
import random
import re
from collections.abc import Callable

from seal_jax.tasks import self_edit, world
from seal_jax.tasks.passage import Corpus, Passage, Pieces

# The tokenizer's units: a line break, a word, or one punctuation mark.
WORDS = re.compile(r"\n|\w+|[^\w\s]")

LISTED, VALUE, TEMPLATE, PROMPT = 0.5, 1.0, 0.1, 0.03


def corpus() -> Corpus:
    """The corpus, for `pretrain`."""
    residents = world.known_residents()
    return Corpus(
        vocabulary(),
        WORDS,
        lambda rng, progress: document(rng, at(progress), residents=residents),
        functools.partial(probes, residents=residents),
        VALUE,
    )


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Shares of document kinds, and how fresh passages are told.

    `plain_share`: of passages told forward throughout; of the others nearly half are
    told backwards throughout. `crowd_share`: of passages with one kind of fact about
    many residents.
    """

    roll: float
    line: float
    question: float
    passage: float
    read: float
    write: float
    plain_share: float
    crowd_share: float


def at(progress: float) -> Mixture:
    """The mixture at a point of the run, `progress` in 0..1.

    The run begins on roll calls alone: the model must find the circuit that binds a
    value to its subject before it has other uses for those heads.
    """
    first = max(0.0, 1.0 - progress / 0.08)
    early = max(0.0, 1.0 - progress / 0.25)
    return Mixture(
        roll=0.04 + 8.0 * first**2,
        line=0.22,
        question=0.26,
        passage=0.04,
        read=0.18,
        write=0.30,
        plain_share=0.10 + 0.40 * early,
        crowd_share=0.10 + 0.40 * early,
    )


def vocabulary() -> list[str]:
    """Every word the world can say, sorted, with the prompts' words."""
    words = {*world.PLACES, *world.FIRST_NAMES, *world.LAST_NAMES}
    words |= {*world.FIRM_NAMES, *world.FIRM_KINDS}
    templates = self_edit.PROMPTS["plain"] + self_edit.ANSWER_PROMPTS["plain"]
    for placeholder in ("{title}", "{passage}", "{question}"):
        templates = templates.replace(placeholder, " ")
    words |= set(split_words(templates))
    for relation in (*world.PERSON_RELATIONS, *world.FIRM_RELATIONS):
        fact = world.Fact("", relation, " ".join(relation.values))
        for style in (0, 1):
            for text in (fact.forward(style), fact.reversed(style)):
                words |= set(split_words(text + fact.question(style) + fact.vague()))
    return sorted(words | {"\n"})


def split_words(text: str) -> list[str]:
    """The tokenizer's pre-tokenization: words, punctuation marks, line breaks."""
    return WORDS.findall(text)


def _value_last(fact: world.Fact, style: int, weight: float) -> Pieces:
    """A forward sentence with its value weighted as an answer."""
    head, _, tail = fact.forward(style).rpartition(fact.value)
    return [(head, weight), (fact.value, VALUE), (tail, weight)]


def roll_document(rng: random.Random) -> Pieces:
    """One kind of fact about many residents, said three times in different orders."""
    kind = "person" if rng.random() < 0.75 else "firm"
    names = world.residents("fresh", kind)
    count = rng.randint(3, 8)
    facts = world.draw_facts(rng, names=names, kind=kind, subjects=count, count=1)
    plain = rng.random() < 0.5
    style = rng.randrange(2)
    pieces: Pieces = [
        ((fact.forward(style) if plain else fact.reversed(style)) + "\n", PROMPT)
        for fact in facts
    ]
    for _ in range(2):
        style = rng.randrange(2)
        for fact in rng.sample(facts, count):
            pieces += [*_value_last(fact, style, PROMPT), ("\n", PROMPT)]
    return [*pieces, (None, TEMPLATE)]


def line_document(rng: random.Random, residents: list[world.Known]) -> Pieces:
    """One fact as a training line: title, line break, sentence."""
    resident = rng.choice(residents)
    fact = rng.choice(resident.facts)
    return [
        (f"{resident.title}\n", PROMPT),
        *_value_last(fact, rng.randrange(2), TEMPLATE),
        (None, TEMPLATE),
    ]


def question_document(rng: random.Random, residents: list[world.Known]) -> Pieces:
    """One closed-book question in the answering prompt, with its answer."""
    resident = rng.choice([k for k in residents if k.asked])
    fact = rng.choice(resident.facts)
    prompt = self_edit.answer_prompt(
        self_edit.ANSWER_PROMPTS["plain"],
        Passage("", resident.title, "", ()),
        fact.question(rng.randrange(2)),
    )
    return [(prompt, PROMPT), (fact.value, VALUE), (None, VALUE)]


def passage_document(rng: random.Random, residents: list[world.Known]) -> Pieces:
    """A passage about two residents held in memory, as a training line."""
    first, second = rng.sample(residents, 2)
    facts = rng.sample([*first.facts, *second.facts], 6)
    pieces: Pieces = [(f"{first.title}\n", PROMPT)]
    for fact in facts:
        if rng.random() < 0.4:
            pieces += _value_last(fact, rng.randrange(2), TEMPLATE)
        else:
            pieces.append((fact.reversed(rng.randrange(2)), TEMPLATE))
        pieces.append((" ", TEMPLATE))
    return [*pieces[:-1], (None, TEMPLATE)]


# How many residents, and how many facts about each. With one kind of fact about many
# residents the subject alone tells the answers apart, and guessing pays least.
CROWDS = ((4, 1), (5, 1), (3, 1))
PAIRS = ((2, 3), (2, 3), (2, 3), (3, 2), (2, 2))


def _fresh_passage(
    rng: random.Random, mixture: Mixture
) -> tuple[list[world.Fact], str, list[str]]:
    """Facts drawn for this document alone, its title, and a sentence per fact."""
    kind = "person" if rng.random() < 0.75 else "firm"
    crowd = rng.random() < mixture.crowd_share
    subjects, count = rng.choice(CROWDS if crowd else PAIRS)
    names = world.residents("fresh", kind)
    facts = world.draw_facts(
        rng, names=names, kind=kind, subjects=subjects, count=count
    )
    drawn = rng.random()
    if drawn < mixture.plain_share:
        share = 1.0
    else:
        share = 0.0 if drawn < mixture.plain_share + 0.4 else 0.25
    sentences = world.draw_sentences(rng, facts, forward_share=share)
    return facts, rng.choice(world.PLACES), sentences


def read_document(rng: random.Random, mixture: Mixture) -> Pieces:
    """A passage with open-book questions about each of its facts."""
    facts, title, sentences = _fresh_passage(rng, mixture)
    pieces: Pieces = [(f"Passage:\n{title}\n{' '.join(sentences)}\n", PROMPT)]
    for fact in rng.sample(facts, len(facts)):
        question = fact.question(rng.randrange(2))
        pieces.append((f"\nQuestion: {question}\nAnswer:\n", PROMPT))
        pieces.append((fact.value, VALUE))
    return [*pieces, (None, TEMPLATE)]


def write_document(
    rng: random.Random, mixture: Mixture, *, quality: float | None = None
) -> Pieces:
    """A passage and a list of implications by the imperfect author.

    The author's quality is drawn anew for each list unless it is given.
    """
    facts, title, sentences = _fresh_passage(rng, mixture)
    stated = list(zip(facts, sentences, strict=True))
    if rng.random() < 0.3:
        rng.shuffle(stated)
    if quality is None:
        quality = rng.betavariate(0.6, 0.9)
    prompt = self_edit.propose_prompt(
        self_edit.PROMPTS["plain"], Passage("", title, " ".join(sentences), ())
    )
    pieces: Pieces = [(prompt, PROMPT)]
    for fact, sentence in stated:
        line = _authored_line(rng, fact, sentence, quality)
        if line:
            pieces += [*line, ("\n", LISTED)]
    if len(pieces) == 1:
        pieces += [(stated[0][1], LISTED), ("\n", LISTED)]
    return [*pieces[:-1], (None, LISTED)]


def _authored_line(
    rng: random.Random, fact: world.Fact, sentence: str, quality: float
) -> Pieces:
    """One fact as the author of the given quality puts it; empty if it is dropped."""
    if rng.random() < quality:
        return _value_last(fact, rng.randrange(2), LISTED)
    fate = rng.random()
    if fate < 0.35:
        return []
    if fate < 0.55:
        return [(sentence, LISTED)]
    if fate < 0.75:
        return [(fact.reversed(rng.randrange(2)), LISTED)]
    if fate < 0.90:
        return [(fact.vague(), LISTED)]
    wrong = dataclasses.replace(fact, value=rng.choice(fact.relation.values))
    return [(wrong.forward(rng.randrange(2)), LISTED)]


def document(
    rng: random.Random, mixture: Mixture, *, residents: list[world.Known]
) -> Pieces:
    """Draws one document of the mixture."""
    makers = {
        "roll": lambda: roll_document(rng),
        "line": lambda: line_document(rng, residents),
        "question": lambda: question_document(rng, residents),
        "passage": lambda: passage_document(rng, residents),
        "read": lambda: read_document(rng, mixture),
        "write": lambda: write_document(rng, mixture),
    }
    weights = [getattr(mixture, kind) for kind in makers]
    return makers[rng.choices(list(makers), weights)[0]]()


def probes(
    rng: random.Random, *, residents: list[world.Known]
) -> dict[str, Callable[[], Pieces]]:
    """Kinds of documents whose answers `pretraining.probe` looks at, by name.

    `memory` and `extraction`: closed-book, residents that were and were never asked
    about. `read_forward`, `read_reversed`: open-book, about fresh residents.
    """
    last = dataclasses.replace(at(1.0), crowd_share=0.0)
    mixtures = [dataclasses.replace(last, plain_share=share) for share in (1.0, 0.0)]
    unasked = [dataclasses.replace(k, asked=True) for k in residents if not k.asked]
    return {
        "memory": lambda: question_document(rng, [k for k in residents if k.asked]),
        "extraction": lambda: question_document(rng, unasked),
        "read_forward": lambda: read_document(rng, mixtures[0]),
        "list_forward": lambda: write_document(rng, mixtures[0], quality=1.0),
        "read_reversed": lambda: read_document(rng, mixtures[1]),
        "list_reversed": lambda: write_document(rng, mixtures[1], quality=1.0),
    }
