"""Cells of `inner_rules.py`: adapters of one rule at one rate, trained and asked.

A cell is one entry of its seed's journal, so a command that was killed goes on where it
was. Single cells train an adapter for each passage on the base alone; cells of streams
train passage after passage, each adapter on the frozen stack of those before it.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import eight_rounds
import jax
import jax.numpy as jnp
import numpy as np

from seal_jax import experiment
from seal_jax.continual import stack as continual_stack
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import grading, pools, proposals, trials
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import backend, metrics, prng, records
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import knowledge, quiz, wordwise, world
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training import capacity, inner
from seal_jax.training.inner_rules import EDITS, QUIZ, RULES, RatesConfig

# Passages of a stream, each learned on top of those before it.
LENGTH = 8
# The column "round" of keys, so that single passages and streams draw apart.
SINGLE, STREAMS = range(2)
# Tokens of a global step for each adapter: a line, with its padding to tiles.
POSITIONS = 24
NO_RATES = RatesConfig(**dict.fromkeys(RULES, 0.0))

type Scores = list[float | None]
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
    exp = experiment.read(values)
    assert isinstance(exp, PassageRounds)
    _, passages = knowledge.load(exp)
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
    task = knowledge.make_rounds(exp, blank, [], everything)
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
        phase=f"{'streams' if streams else 'single'}/{kind}",
        round_index=STREAMS if streams else SINGLE,
        count=1,
    )


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


class Learned(NamedTuple):
    """A row of `adapters` for each of the `items`, with what training them cost."""

    items: list[int]
    adapters: lora.Tree
    finite: np.ndarray
    cost: Json


def learn(
    seed: Seed,
    arm: Arm,
    items: Sequence[Passage],
    edits: Sequence[Edit],
    ids: Sequence[tuple[int, int, int, int]],
    *,
    stack: lora.Tree | None = None,
) -> Learned | None:
    """An adapter for each edit that was not refused, packed; None if all were.

    `stack`: row i lies beneath the adapter of edit i, which practises on top of it.
    Teachers are the base.
    """
    run = seed.under(arm)
    rows = [i for i, edit in enumerate(edits) if not edit.refused]
    if not rows:
        return None
    own = [ids[i] for i in rows]
    jobs = [run.task.job(items[i], edits[i], ()) for i in rows]
    practise = [(items[i], edits[i]) for i in rows]
    waves = trials.waves_of(run.exp, run.task, seed.base, practise, own)
    cfg, frozen = run.inner, None
    if stack is not None:
        cfg = _on_stack(run.exp, adapters=len(edits))
        frozen = jax.tree.map(lambda leaf: leaf[:, : cfg.frozen_rank], stack)
        waves = waves and _on_top(
            waves, jax.tree.map(lambda x: x[np.array(rows)], stack), cfg
        )
    work = dataclasses.replace(
        trials.work_of(run.exp.seed, jobs, own),
        waves=waves,
        frozen=frozen,
        frozen_of=None if frozen is None else rows,
    )
    begin = time.process_time(), time.monotonic()
    (pool,) = pools.train(
        seed.base,
        work,
        pools.Held(),
        key=run.key,
        cfg=cfg,
        mesh=None,
        phase=arm.name,
        say=run.say,
    )
    jax.block_until_ready(pool.trained.adapters)
    sampled = sum(len(edits[i].pairs) for i in rows)
    practises, mixes = RULES[arm.rule].practises, RULES[arm.rule].mixes
    cost = {
        "tokens": pool.trained.tokens,
        "teacher_tokens": pool.trained.teacher_tokens,
        "optimizer_steps": sum(job.total for job in jobs),
        "sampled": sampled * (arm.waves * practises + mixes),
        "train_cpu_seconds": time.process_time() - begin[0],
        "train_seconds": time.monotonic() - begin[1],
    }
    return Learned(rows, pool.adapters, np.asarray(pool.trained.finite_A), cost)


def _on_stack(exp: PassageRounds, *, adapters: int) -> inner.EngineConfig:
    """The engine of adapters that lie on the stacks of all passages but the last."""
    return dataclasses.replace(
        engine(exp, adapters=adapters),
        frozen_rank=(LENGTH - 1) * exp.inner.lora.rank,
        frozen_rows=adapters,
    )


def _on_top(
    waves: pools.Waves, stack: lora.Tree, cfg: inner.EngineConfig
) -> pools.Waves:
    """Waves whose adapters answer on top of their rows of `stack`."""

    def jobs(wave: int, rows: range, adapters: lora.Tree | None) -> Any:
        below = jax.tree.map(lambda leaf: leaf[rows.start : rows.stop], stack)
        if adapters is not None:
            mine = jax.tree.map(lambda leaf: leaf[: len(rows)], adapters)
            # The last block is the room of the last passage, and empty until then.
            below = lora.write(below, mine, cfg.frozen_rank)
        return waves.jobs(wave, rows, below)

    return pools.Waves(waves.count, jobs)


# What is asked


def ask(
    seed: Seed, adapters: lora.Tree | None, groups: Sequence[Sequence[Passage]]
) -> list[list[Scores]]:
    """The score of each question of the passages of `groups[a]` under adapter a."""
    task = seed.run.task
    prompts = [[text for p in group for text in task.prompts(p)] for group in groups]
    keys_A = prng.fold(seed.run.key, np.arange(len(groups)))  # Not used: it is greedy.
    answers = policies.answer(
        seed.base, adapters, prompts, keys_A, seed.run.exp.answer, room=task.room
    )
    made = []
    for group, texts in zip(groups, answers, strict=True):
        rest = iter(texts)
        pairs = [(p, [next(rest) for _ in p.questions]) for p in group]
        flat = iter(task.score(pairs))
        made.append([[next(flat) for _ in p.questions] for p in group])
    return made


def exam(seed: Seed, passages: Sequence[Passage]) -> list[Passage]:
    """What a model is asked that has learned these passages.

    Their own questions, the same in other words, and the probes.
    """
    other = [dataclasses.replace(p, questions=p.rephrased) for p in passages]
    return [*passages, *other, *seed.probes]


def split(scores: Sequence[Scores], count: int) -> Json:
    """The scores of an `exam` about `count` passages."""
    return {
        "own": list(scores[:count]),
        "rephrased": list(scores[count : 2 * count]),
        "general": list(scores[2 * count :]),
    }


def unedited(seed: Seed) -> Json:
    """The base: closed-book, and with each passage in view; by passage."""
    (scores,) = ask(seed, None, [exam(seed, seed.passages)])
    shown = dataclasses.replace(
        seed, run=dataclasses.replace(seed.run, task=seed.run.task.in_view()), probes=[]
    )
    (seen,) = ask(shown, None, [exam(shown, seed.passages)])
    count = len(seed.passages)
    return {"base": split(scores, count), "in_context": split(seen, count)}


def _zeros(scores: Sequence[Scores]) -> list[Scores]:
    """What an adapter answers that is not finite: nothing."""
    return [[0.0] * len(own) for own in scores]


def single(seed: Seed, arm: Arm) -> Json:
    """The cell of an adapter for each passage: the `split` of each.

    A passage whose edit was refused is asked of the base.
    """
    edits = drawn(seed, arm)
    ids = [(SINGLE, p, 0, 0) for p in range(len(edits))]
    learned = learn(seed, arm, seed.passages, edits, ids)
    before = cell_base(seed)["base"]
    made = [
        {part: before[part][p : p + 1] for part in ("own", "rephrased")}
        | {"general": before["general"]}
        for p in range(len(edits))
    ]
    if learned is None:
        return {"passages": made, "refused": len(edits), "failed": 0, "cost": {}}
    begin = time.process_time(), time.monotonic()
    groups = [exam(seed, [seed.passages[p]]) for p in learned.items]
    asked = ask(seed, learned.adapters, groups)
    cost = learned.cost | {
        "ask_cpu_seconds": time.process_time() - begin[0],
        "ask_seconds": time.monotonic() - begin[1],
    }
    for p, scores, finite in zip(learned.items, asked, learned.finite, strict=True):
        made[p] = split(scores if finite else _zeros(scores), 1)
    return {
        "passages": made,
        "refused": len(edits) - len(learned.items),
        "failed": int((~learned.finite).sum()),
        "cost": cost,
    }


def streams(seed: Seed, arm: Arm) -> Json:
    """The cell of all streams: each learns its passages one after the other.

    `after`: of each stream and passage the scores right after it was learned; `end`:
    the `split` of each stream after the last one.
    """
    edits = drawn(seed, arm, streams=True)
    count, cfg = len(seed.streams), seed.run.inner
    stack = lora.empty(
        seed.base.arch,
        targets=cfg.targets,
        rank=LENGTH * cfg.rank,
        adapters=count,
        dtype=seed.base.arch.dtype,
    )
    stacks = []  # After each passage.
    failed = refused = 0
    for t in range(LENGTH):
        places = [s * LENGTH + t for s in range(count)]
        items = [stream[t] for stream in seed.streams]
        own = [edits[place] for place in places]
        ids = [(STREAMS, place, 0, 0) for place in places]
        learned = learn(seed, arm, items, own, ids, stack=stack)
        refused += count - (len(learned.items) if learned else 0)
        if learned is not None:
            failed += int((~learned.finite).sum())
            stack = _written(stack, learned, t * cfg.rank)
        stacks.append(stack)
    # All at once: rows that decode together cost the same whether they are used.
    groups = [[stream[t]] for t in range(LENGTH) for stream in seed.streams]
    groups += [exam(seed, stream) for stream in seed.streams]
    together = jax.tree.map(lambda *x: jnp.concatenate(x), *stacks, stack)
    asked = ask(seed, together, groups)
    ends = asked[LENGTH * count :]
    after = [[asked[t * count + s][0] for t in range(LENGTH)] for s in range(count)]
    return {
        "after": after,
        "end": [split(scores, LENGTH) for scores in ends],
        "refused": refused,
        "failed": failed,
    }


def _written(stack: lora.Tree, learned: Learned, at: int) -> lora.Tree:
    """The stacks with what was learned in its place; what is not finite is left out."""
    finite = jnp.asarray(learned.finite, jnp.float32)
    block = continual_stack.weakened(learned.adapters, finite)
    rows = np.array(learned.items)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[rows, at : at + new.shape[1]].set(new.astype(old.dtype))

    return jax.tree.map(put, stack, block)


# Cells


def cell_base(seed: Seed) -> Json:
    return seed.cached("base", functools.partial(unedited, seed))


def cell_quizzes(seed: Seed, arm: Arm) -> Json:
    """`quizzes`, by any arm that asks."""
    return seed.cached("quizzes", lambda: quizzes(seed, drawn(seed, arm)))


def cell_single(seed: Seed, arm: Arm) -> Json:
    return seed.cached(f"cells/{arm.name}", functools.partial(single, seed, arm))


def cell_streams(seed: Seed, arm: Arm) -> Json:
    return seed.cached(f"in_streams/{arm.name}", functools.partial(streams, seed, arm))
