"""The phases of round.py's round, and what each took; arc_round.py shares parts."""

import contextlib
import dataclasses
import random
import time
from collections.abc import Iterator, Sequence

import jax
import round_task
import workload

from seal_jax.generation import generate, policies
from seal_jax.generation.settings import Decoding
from seal_jax.models import lora
from seal_jax.rounds import select
from seal_jax.runtime import backend
from seal_jax.training import imitate, inner, packed, plan
from seal_jax.training.settings import ImitateConfig

PHASES = ("propose", "adapt", "evaluate", "select", "imitate")


class Clock:
    """Seconds by phase, and those of them that went into compiling."""

    def __init__(self, phases: Sequence[str] = PHASES):
        self.seconds = dict.fromkeys(phases, 0.0)
        self.compiling = dict.fromkeys(phases, 0.0)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Counts the block, which must wait for the device itself."""
        begin = time.perf_counter()
        with backend.compile_times() as times:
            yield
        self.seconds[phase] += time.perf_counter() - begin
        self.compiling[phase] += times.cold + times.warm


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a round took and did.

    `written` is by phase, the base's answers last; `kept` are the lengths of prompt and
    text of each imitated edit.
    """

    clock: Clock
    written: dict[str, list[generate.Generated]]
    trained: list[packed.TrainedAdapters]
    kept: list[tuple[int, int]]
    losses: list[float]


def run_round(
    policy: policies.Policy,
    task: round_task.Task,
    cfg: inner.EngineConfig,
    *,
    warm_up: bool = False,
) -> Outcome:
    """Runs a round; to warm up, with empty answers and one step of each adapter.

    Proposals are whole then too: the last of them move to fewer rows, and when they do
    decides which programs there are.
    """
    clock, trained, answered = Clock(), [], []
    with clock("propose"):
        proposed = propose(policy, task)
    for first in range(0, len(task.trials), cfg.pool):
        chunk = task.trials[first : first + cfg.pool]
        with clock("adapt"):
            done = adapt(policy, task, chunk, cfg, warm_up=warm_up)
        with clock("evaluate"):
            answered.append(
                evaluate(policy, task, chunk, done.adapters, warm_up=warm_up)
            )
        # Only the counts: the next chunk's adapters need the memory.
        trained.append(done._replace(adapters={}))
        del done
    with clock("evaluate"):
        answered.append(answer_base(policy, task, warm_up=warm_up))
    with clock("select"):
        kept = choose(task)
    texts = iter(proposed.tokens)
    written = {
        (p, e): next(texts)
        for p, article in enumerate(task.articles)
        for e in range(len(article.edits))
    }
    if warm_up:  # As long as they will be, for the same program.
        written = {
            (p, e): [workload.EOS] * task.articles[p].edits[e].tokens for p, e in kept
        }
    pairs = [(task.prompts[p], written[p, e]) for p, e in kept]
    with clock("imitate"):
        _, losses = learn(policy, task.exp.imitate, pairs)
    return Outcome(
        clock,
        {"propose": [proposed], "evaluate": answered},
        trained,
        [(len(prompt), len(text)) for prompt, text in pairs],
        losses,
    )


def write(
    policy: policies.Policy,
    adapters: lora.Tree | None,
    asked: Sequence[tuple[generate.Request, int]],
    decoding: Decoding,
    *,
    warm_up: bool,
) -> generate.Generated:
    """Continues each request for so many tokens; to warm up, for none."""
    return generate.run(
        policy.params,
        adapters,
        [request for request, _ in asked],
        jax.random.split(jax.random.key(round_task.SEED), len(asked)),
        arch=policy.arch,
        cfg=policies.sample_config(decoding, policy),
        batch=decoding.batch,
        per_page=policies.PER_PAGE,
        prompt_multiple=decoding.prompt_multiple,
        limits=[0 if warm_up else limit for _, limit in asked],
    )


def propose(policy: policies.Policy, task: round_task.Task) -> generate.Generated:
    """A text for every edit, by article."""
    asked = [
        (generate.Request(prompt), edit.tokens)
        for prompt, article in zip(task.prompts, task.articles, strict=True)
        for edit in article.edits
    ]
    return write(policy, None, asked, task.exp.propose, warm_up=False)


def adapt(
    policy: policies.Policy,
    task: round_task.Task,
    chunk: Sequence[round_task.Trial],
    cfg: inner.EngineConfig,
    *,
    warm_up: bool,
) -> packed.TrainedAdapters:
    """Trains an adapter for every trial.

    Raises:
      ValueError: one does not stay finite.
    """
    jobs = [task.job(trial, first_step_only=warm_up) for trial in chunk]
    return train(policy, jobs, chunk, cfg, what="article, edit, seed")


def train(
    policy: policies.Policy,
    jobs: Sequence[plan.Job],
    names: Sequence[tuple[int, ...]],
    cfg: inner.EngineConfig,
    *,
    what: str,
) -> packed.TrainedAdapters:
    """Trains an adapter for every job.

    Raises:
      ValueError: one does not stay finite; `names` and `what` they are say which.
    """
    trained = packed.train(
        policy.params,
        jobs,
        jax.random.split(jax.random.key(round_task.SEED), len(jobs)),
        arch=policy.arch,
        cfg=cfg,
        eos=workload.EOS,
    )
    jax.block_until_ready(trained.adapters)
    if not trained.finite_A.all():
        pairs = zip(names, trained.finite_A, strict=True)
        bad = [tuple(name) for name, finite in pairs if not finite]
        raise ValueError(
            f"adapters ({what}) {bad} must stay finite; use "
            "--dtype=float32 or lower inner.learning_rate with --set"
        )
    return trained


def evaluate(
    policy: policies.Policy,
    task: round_task.Task,
    chunk: Sequence[round_task.Trial],
    adapters: lora.Tree,
    *,
    warm_up: bool,
) -> generate.Generated:
    """Every adapter answers its article's questions."""
    asked = []
    for number, (p, e, s) in enumerate(chunk):
        limits = task.articles[p].edits[e].answers[s]
        for prompt, limit in zip(task.questions[p], limits, strict=True):
            asked.append((generate.Request(prompt, number), limit))
    return write(policy, adapters, asked, task.exp.answer, warm_up=warm_up)


def answer_base(
    policy: policies.Policy, task: round_task.Task, *, warm_up: bool
) -> generate.Generated:
    """The base answers every question, once."""
    asked = [
        (generate.Request(prompt), limit)
        for prompts, article in zip(task.questions, task.articles, strict=True)
        for prompt, limit in zip(prompts, article.base_answers, strict=True)
    ]
    return write(policy, None, asked, task.exp.answer, warm_up=warm_up)


def choose(task: round_task.Task) -> list[tuple[int, int]]:
    """(article, edit) of what is kept, by rewards made up the same way every time."""
    rng, cfg = random.Random(round_task.SEED), task.exp.select
    return [
        (p, e)
        for p, article in enumerate(task.articles)
        for e in select.best(
            [select.Candidate(rng.random(), edit.tokens) for edit in article.edits],
            select.Rule(k_best=cfg.k_best, ties=cfg.ties),
            rng=rng,
        )
    ]


def learn(
    policy: policies.Policy,
    wanted: ImitateConfig,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> tuple[policies.Policy, list[float]]:
    """Fine-tunes on the pairs and merges; the policy that comes of it, and losses."""
    tuned = imitate.train(
        policy.params,
        pairs,
        jax.random.key(round_task.SEED),
        arch=policy.arch,
        cfg=wanted,
        eos=workload.EOS,
    )
    merged = policy.merged(tuned.delta)
    jax.block_until_ready(merged.params)
    return merged, tuned.losses
