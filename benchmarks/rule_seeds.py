"""Seeds of `inner_rules.py`: passages, the base, and what it writes to learn from."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import eight_rounds

from seal_jax.experiment import kinds
from seal_jax.generation import policies
from seal_jax.rounds import grading, proposals, trials
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import backend, metrics, records
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import knowledge, knowledge_setup, quiz, wordwise, world
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training import capacity, inner
from seal_jax.training.inner_rules import EDITS, QUIZ, RULES, RatesConfig

# Passages of a stream, each learned on top of those before it.
LENGTH = 8
# The column "round" of keys, so that single passages and streams draw apart.
SINGLE, STREAMS = range(2)
SINGLE_PHASE = "single"
# Tokens of a global step for each adapter: a line, with its padding to tiles.
POSITIONS = 24
NO_RATES = RatesConfig(**dict.fromkeys(RULES, 0.0))

type Json = dict[str, Any]


class Arm(NamedTuple):
    """What a cell trains by; `divergence` and `waves` count where a rule reads them."""

    rule: str
    rate: float
    divergence: str
    waves: int

    @property
    def name(self) -> str:
        parts = [self.rule, f"{self.rate:g}"]
        if RULES[self.rule].taught:
            parts.append(self.divergence)
        if RULES[self.rule].practises:
            parts.append(f"waves{self.waves}")
        return "/".join(parts)


class Sizes(NamedTuple):
    """Of a seed: held-out passages, streams of `LENGTH` more, residents that probe."""

    passages: int
    streams: int
    probes: int


@dataclasses.dataclass(frozen=True)
class Seed:
    """One seed: its passages, the base, and where finished cells are."""

    run: trials.Run[PassageRounds, Passage]
    base: policies.Policy
    passages: list[Passage]
    streams: list[list[Passage]]
    probes: list[Passage]

    def under(self, arm: Arm) -> trials.Run[PassageRounds, Passage]:
        """The run whose adapters are trained as the arm says."""
        exp, task = self.run.exp, self.run.task
        assert exp.inner.teach is not None and isinstance(task, knowledge.Knowledge)
        teach = dataclasses.replace(
            exp.inner.teach,
            rates=NO_RATES,
            divergence=arm.divergence,
            waves=arm.waves,
        )
        own = dataclasses.replace(exp.inner, learning_rate=arm.rate, teach=teach)
        exp = dataclasses.replace(exp, inner=own)
        task = dataclasses.replace(task, exp=exp).under(arm.rule)
        cfg = dataclasses.replace(self.run.inner, teach=arm.divergence)
        return dataclasses.replace(self.run, exp=exp, inner=cfg, task=task)

    def cached(self, key: str, make: Callable[[], Json]) -> Any:
        """The cell of that key, made if it is not there; says so."""
        if key not in self.run.journal:
            begin = time.monotonic()
            made = make()
            self.run.journal.put(key, made)
            took = time.monotonic() - begin
            self.run.say(f"seed {self.run.exp.seed}: {key}: {took:.1f} s")
        return self.run.journal.get(key)


@contextlib.contextmanager
def opened(
    seed: int, workdir: Path, sizes: Sizes, *, say: Callable[[str], None]
) -> Iterator[Seed]:
    """A seed and its journal in `workdir`/seedN.

    Raises:
      ValueError, OSError: the folder is of other sizes, or cannot be used.
    """
    changes = {"scale.heldout_passages": sizes.passages}
    values = eight_rounds.settings("rules", changes, seed=seed)
    exp = kinds.read(values)
    assert isinstance(exp, PassageRounds)
    _, passages = knowledge_setup.load(exp)
    streams = world.sequences(
        "heldout",
        seed=seed,
        start=sizes.passages,
        count=sizes.streams,
        length=LENGTH,
        forward_share=exp.task.forward_share,
    )
    probes = world.known_passages(seed=seed, start=0, count=sizes.probes)
    blank = policies.describe(exp.model)
    everything = [*passages, *(p for stream in streams for p in stream)]
    task = knowledge_setup.make_rounds(exp, blank, [], everything)
    folder = records.open_workdir(
        workdir / f"seed{seed}", {"config": values, "sizes": sizes._asdict()}
    )
    backend.cache_programs()
    with Journal(folder / "journal.jsonl", summed=True) as journal:
        run = trials.Run(
            exp=exp,
            inner=engine(exp, adapters=sizes.passages),
            mesh=None,
            journal=journal,
            metrics=metrics.NullMetrics(),
            task=grading.connect_rounds(exp, task, folder),
            say=say,
        )
        base = policies.load(exp.model, blank, seed=seed, merges=False)
        yield Seed(run, base, passages, streams, probes)


def engine(exp: PassageRounds, *, adapters: int) -> inner.EngineConfig:
    """One program for all rules and rates, in which all adapters step together."""
    row = exp.inner.row_tokens
    step = -(-max(adapters * POSITIONS, 2 * row) // row) * row
    sizes = dataclasses.replace(
        exp.inner, step_tokens=step, slots=adapters, active=adapters, pool=adapters
    )
    built = capacity.build(sizes, step_tokens=step, adapters=adapters)
    return dataclasses.replace(built, **dataclasses.asdict(exp.engine))


# What is learned


def drawn(seed: Seed, arm: Arm, *, streams: bool = False) -> list[Edit]:
    """An edit for each passage, the same for all rules that read its kind."""
    kind = QUIZ if RULES[arm.rule].asks else EDITS
    items = seed.passages
    if streams:
        items = [passage for stream in seed.streams for passage in stream]
    return proposals.propose(
        seed.under(arm),
        seed.base,
        items,
        phase=f"{'streams' if streams else SINGLE_PHASE}/{kind}",
        round_index=STREAMS if streams else SINGLE,
        count=1,
    )


def writing(seed: Seed, arm: Arm) -> Json:
    """What the edits of the single passages cost before an adapter is trained on them.

    `written_tokens`: drawn for the texts, for the second answers to a quiz's questions,
    and for mixed answers, by the `parts` of these names; `write_seconds` of the clock,
    in which programs compile.
    """
    drawn(seed, arm)
    rule, exp = RULES[arm.rule], seed.run.exp
    parts = [("propose", "texts", seed.under(arm).task.writing)]
    parts += [("again", "answers", exp.answer)] * rule.asks
    parts += [("mix", "answers", exp.answer)] * rule.mixes
    made: Json = {"parts": {}, "written_tokens": 0, "write_seconds": 0.0}
    for name, key, decoding in parts:
        unit = f"{SINGLE_PHASE}/{QUIZ if rule.asks else EDITS}/{name}"
        if unit not in seed.run.journal:
            continue  # No question was left to be put again.
        entry = seed.run.journal.get(unit)
        texts = [[x] if isinstance(x, str) else x for x in entry[key]]
        flat = [text for own in texts for text in own]
        tokens = policies.drawn(seed.base, flat, decoding)
        made["parts"][name] = tokens
        made["written_tokens"] += tokens
        made["write_seconds"] += entry["seconds"]
    return made


def facts(passage: Passage) -> list[world.Fact]:
    """The facts that a passage of the world is asked about, in their order.

    Raises:
      ValueError: a question in no form of the world.
    """
    made = []
    for question in passage.rephrased:
        found = [
            world.Fact(name, relation, question.answer)
            for relation in (*world.PERSON_RELATIONS, *world.FIRM_RELATIONS)
            for group in world.GROUPS
            for kind in ("person", "firm")
            for name in world.residents(group, kind)
            if world.Fact(name, relation, "").question(2) == question.question
        ]
        if len(found) != 1:
            raise ValueError(
                f"passage {passage.id}: {question.question!r} must be a question of "
                "the world; give passages of task.name='world'"
            )
        made += found
    return made


def quizzes(seed: Seed, edits: Sequence[Edit]) -> Json:
    """What the quizzes of the single passages ask.

    `asked`: of each passage's facts, whether its quiz asks for it in any form;
    `same_words`: ... as the passage's own question does. `copied`: questions in the
    form of `Passage.rephrased`. `written` and `kept`: questions of each quiz, and those
    that were answered alike twice.
    """
    most = seed.run.exp.label_free.questions if seed.run.exp.label_free else 0
    made: Json = {"asked": [], "same_words": [], "written": [], "kept": []}
    copied = 0
    for passage, edit in zip(seed.passages, edits, strict=True):
        put = {wordwise.normalize(question) for question, _ in edit.pairs}

        def is_put(text: str, put: set[str] = put) -> bool:
            return wordwise.normalize(text) in put

        known = facts(passage)
        made["asked"].append(
            [any(is_put(fact.question(style)) for style in range(3)) for fact in known]
        )
        made["same_words"].append([is_put(q.question) for q in passage.questions])
        copied += sum(is_put(q.question) for q in passage.rephrased)
        made["written"].append(len(quiz.parse(edit.text, most)))
        made["kept"].append(len(edit.pairs))
    return made | {"copied": copied}
