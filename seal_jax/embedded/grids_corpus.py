"""Documents that the model of `configs/arc.py:tiny` is pretrained on.

Grids and their copies, as tasks are shown to the model when it answers (`arc_text`);
and self-edits by an author who knows their form and little else. The model imitates
that author, so it writes configurations of every kind, among them some that are not
valid. That is the policy SEAL starts from.
"""

import json
import random
import re

import numpy as np

from seal_jax.tasks.arc import augment as arc_augment
from seal_jax.tasks.arc import examples as arc_data
from seal_jax.tasks.arc import generated
from seal_jax.tasks.arc import puzzles as arc
from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.tasks.arc import text as arc_text
from seal_jax.tasks.passage import Corpus, Pieces

# The tokenizer's units: the marks of a grid, a key in quotes, a number, a word.
WORDS = re.compile(r'\]\n ?\[|\[\[|\]\]|->|-+|"\w+"|\d+\.\d+|\w+|[^\w\s]|\n')

VALUE, ANSWER, GUESS, PROMPT = 1.0, 0.99, 0.1, 0.02

# What the author draws from, whatever the task.
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
EPOCHS = (1, 2, 3, 4, 5, 6, 8, 10)
REMARKS = ("Here is the configuration:", "Sure, a configuration:")
SLIPS = ("remark", "cut", "key", "strategy", "text")

# An output grid, after the arrow or at the head of the assistant's turn.
_OUTPUT = re.compile(r"((?<=-> )|(?<=assistant\n))(\[\[.*?\]\]#)", re.DOTALL)


def corpus() -> Corpus:
    """The corpus, for `pretrain`."""
    return Corpus(vocabulary(), WORDS, document, probes, VALUE)


def vocabulary() -> list[str]:
    """Every word of the documents, sorted."""
    task = generated.tasks("train", seed=0, start=0, count=1)[0]
    texts = [" ".join(map(str, (*range(10), *RATES, *EPOCHS))), *REMARKS, ",\n"]
    texts.append(_propose_prompt(task))
    texts += [_solve_text(arc_data.Example(task.train[:1], task.tests[0]))]
    rng = random.Random("vocabulary")
    texts += [_written(rng, slip) for slip in (None, *SLIPS) for _ in range(50)]
    return sorted({word for text in texts for word in WORDS.findall(text)})


def document(rng: random.Random, progress: float) -> Pieces:
    """Draws one document; late in the run (`progress` in 0..1) more are self-edits."""
    if rng.random() < 0.1 + 0.2 * progress:
        return edit_document(rng)
    return solve_document(rng)


def solve_document(rng: random.Random) -> Pieces:
    """Up to three grids with their copies, and one to copy."""
    pairs = generated.random_pairs(rng, {}, rng.choice((1, 2, 3, 3, 4)))
    if rng.random() < 0.3:
        pairs = _resized(rng, pairs)
    return solve_pieces(arc_data.Example(tuple(pairs[:-1]), pairs[-1]))


def _resized(rng: random.Random, pairs: list[arc.Pair]) -> list[arc.Pair]:
    """The pairs as a size or repeat augmentation shows them."""
    families = arc_augment.FAMILIES
    name = rng.choice((*families["size"], *families["repeat"]))

    def changed(grid: arc.Grid) -> arc.Grid:
        # None of these is random.
        rng, array = np.random.RandomState(0), arc_augment.as_array(grid)
        return arc_augment.as_grid(arc_augment.AUGMENTERS[name](array, rng))

    return [arc.Pair(changed(p.input), changed(p.output)) for p in pairs]


def solve_pieces(example: arc_data.Example) -> Pieces:
    """An example with the loss on outputs: little on the first, which is a guess."""
    text, weights = _solve_text(example), [ANSWER] * len(example.context) + [VALUE]
    weights[0] = weights[0] if len(weights) == 1 else GUESS
    pieces: Pieces = []
    at = 0
    for match, weight in zip(_OUTPUT.finditer(text), weights, strict=True):
        pieces += [(text[at : match.start()], PROMPT), (match[0], weight)]
        at = match.end()
    return [*pieces, (None, ANSWER)]


def _solve_text(example: arc_data.Example) -> str:
    chat = arc_text.CHATS["plain"]
    instruction = arc_text.INSTRUCTIONS["plain"]
    prompt = arc_text.example_prompt(example, chat=chat, instruction=instruction)
    return prompt + arc_text.example_answer(example)


def edit_document(rng: random.Random) -> Pieces:
    """A task's self-edit prompt and what the author writes, sometimes with a slip."""
    pairs = tuple(
        generated.random_pairs(rng, generated.random_rule(rng), rng.choice((3, 4)))
    )
    prompt = _propose_prompt(arc.Task("", pairs, pairs[:1]))
    slip = rng.choice(SLIPS) if rng.random() < 0.15 else None
    # No loss on the prompt: its colours change, which is not to be learned here.
    return [(prompt, 0.0), (_written(rng, slip), ANSWER), (None, ANSWER)]


def _propose_prompt(task: arc.Task) -> str:
    return arc_text.propose_prompt(
        task, chat=arc_text.CHATS["plain"], template=arc_text.load_propose("plain")
    )


def _written(rng: random.Random, slip: str | None) -> str:
    """A configuration drawn at random, spoilt as `slip` says."""
    edit = arc_edit.SelfEdit(
        switches=arc_data.Switches(*(rng.random() < 0.5 for _ in range(4))),
        output_only=rng.random() < 0.5,
        learning_rate=rng.choice(RATES),
        epochs=rng.choice(EPOCHS),
    )
    text = edit.json()
    if slip == "remark":
        return f"{rng.choice(REMARKS)} {text}"
    if slip == "cut":
        return text.removesuffix("}}")
    if slip == "key":
        switch = rng.choice(("basic", "size", "chain", "repeat"))
        return re.sub(rf'"use_{switch}_augmentations": \w+,? ?', "", text)
    if slip == "strategy":
        return re.sub(r'"train_using\w+"', '"train_using_all_examples"', text)
    if slip == "text":
        rate = json.dumps(edit.learning_rate)
        return text.replace(f": {rate}", f': "{rate}"')
    return text


def probes(rng: random.Random) -> dict:
    """Kinds of documents whose answers `pretraining.probe` looks at, by name.

    After three demonstrations: grids that are copied, and that change colours, which is
    what pretraining does not teach.
    """

    def make(rule: generated.Rule) -> Pieces:
        pairs = generated.random_pairs(rng, rule, 4)
        return solve_pieces(arc_data.Example(tuple(pairs[:-1]), pairs[-1]))

    return {
        "copy": lambda: make({}),
        "recolour": lambda: make(generated.random_rule(rng)),
    }
