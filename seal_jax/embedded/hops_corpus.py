"""Documents that the model of `configs/lmsi.py:tiny` is pretrained on.

Single facts as each voice remembers them; questions of one hop; and questions of two
hops, answered in steps or at once, in the four formats of `tasks.chains`. Their author
goes by whichever voices come to mind, and so is often wrong. The model imitates that
author.
"""

import random
import re

from seal_jax.tasks import chains, hops
from seal_jax.tasks.passage import Corpus, Pieces

WORDS = re.compile(r"\n|\w+|[^\w\s]")

VALUE, STEP, PROMPT = 1.0, 0.3, 0.03
TEMPLATE = chains.TEMPLATES["plain"]


def corpus() -> Corpus:
    """The corpus, for `pretrain`."""
    return Corpus(vocabulary(), WORDS, document, probes, VALUE)


def vocabulary() -> list[str]:
    """Every word of the documents, sorted."""
    texts = ["\n", TEMPLATE.question, TEMPLATE.chain, TEMPLATE.direct]
    texts = [text.replace("{question}", "") for text in texts]
    for question in (*hops.compositions()[0], *hops.compositions()[1]):
        texts += [question.question, chains.completion("", "", chains.ZERO_DIRECT)]
    for relation in (*hops.FIRST_HOPS, *hops.SECOND_HOPS):
        values = " ".join(relation.values)
        texts += [
            hops.sentence("", relation, values, voice) for voice in range(hops.VOICES)
        ]
    return sorted({word for text in texts for word in WORDS.findall(text)})


def document(rng: random.Random, progress: float) -> Pieces:
    """Draws one document; the run begins on single facts (`progress` in 0..1)."""
    early = max(0.0, 1.0 - progress / 0.25)
    kinds = ("line", "single", *chains.FORMATS)
    shares = (0.45 + early, 0.10, 0.12, 0.10, 0.13, 0.10)
    kind = rng.choices(kinds, shares)[0]
    if kind == "line":
        return line_document(rng)
    if kind == "single":
        return single_document(rng)
    return question_document(rng, kind)


def _fact(rng: random.Random) -> tuple:
    relation = rng.choice((*hops.FIRST_HOPS, *hops.SECOND_HOPS))
    return rng.choice(hops.NAMES), relation, rng.randrange(hops.VOICES)


def _value_last(text: str, value: str, weight: float) -> Pieces:
    head, _, tail = text.rpartition(value)
    return [(head, weight), (value, VALUE), (tail, weight)]


def line_document(rng: random.Random) -> Pieces:
    """One fact as one voice remembers it."""
    name, relation, voice = _fact(rng)
    value = hops.memories()[name, relation.noun].voices[voice]
    text = hops.sentence(name, relation, value, voice)
    return [*_value_last(text, value, PROMPT), (None, PROMPT)]


def single_document(rng: random.Random) -> Pieces:
    """A question of one hop, answered at once by some voice's memory."""
    name, relation, voice = _fact(rng)
    value = hops.memories()[name, relation.noun].voices[voice]
    asked = f"What is the {relation.noun} of {name}?"
    prompt = chains.prompt(TEMPLATE, (), asked, chains.ZERO_DIRECT)
    text = chains.completion("", value, chains.ZERO_DIRECT)
    return [(prompt, PROMPT), *_value_last(text, value, STEP), (None, STEP)]


def question_document(rng: random.Random, form: str, *, told: bool = True) -> Pieces:
    """A question of two hops, after one to three others in formats that show some."""
    shots = rng.randint(1, 3) if form in chains.SHOWN else 0
    group = hops.compositions()[0 if told else 1]
    drawn = [*rng.sample(hops.compositions()[0], shots), rng.choice(group)]
    pieces: Pieces = []
    for question in drawn:
        voices = rng.randrange(hops.VOICES), rng.randrange(hops.VOICES)
        steps = question.told(voices)
        if pieces:
            pieces.append(("\n\n", STEP))
        pieces.append((chains.prompt(TEMPLATE, (), question.question, form), PROMPT))
        for hop in steps if form in chains.CHAINED else ():
            pieces += [*_value_last(hop.text, hop.value, STEP), ("\n", STEP)]
        answer = steps[-1].value
        text = chains.completion("", answer, form)
        pieces += _value_last(text, answer, STEP)
    return [*pieces, (None, STEP)]


def probes(rng: random.Random) -> dict:
    """Kinds of documents whose answers `pretraining.probe` looks at, by name.

    `memory`: single facts. `chain`, `few_chain`: steps and answers of questions that
    pretraining does not put. `direct_told`, `direct`: answers without steps, which are
    drawn anew, so that none knows them all.
    """
    return {
        "memory": lambda: line_document(rng),
        "chain": lambda: question_document(rng, chains.ZERO_CHAIN, told=False),
        "few_chain": lambda: question_document(rng, chains.FEW_CHAIN, told=False),
        "direct_told": lambda: question_document(rng, chains.ZERO_DIRECT),
        "direct": lambda: question_document(rng, chains.ZERO_DIRECT, told=False),
    }
