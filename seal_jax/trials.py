"""Steps 1 to 3 of a round, in units that survive a kill: propose, adapt, evaluate.

A *trial* is one adapter: one self-edit, one seed. Trials are trained and questioned in
chunks of `inner.pool`; each finished chunk is one journal entry, so a run that is
killed loses at most the chunk it was in.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax import (
    config,
    distributed,
    inner,
    lora,
    mesh,
    metrics,
    model,
    packed,
    plan,
    policy,
    records,
    runtime,
    self_edit,
)
from seal_jax.tasks.common import Passage

# First column of every PRNG key, so that no two uses draw the same numbers.
PROPOSE, ADAPT, ANSWER, IMITATE, CONTROL = range(5)

FAILED = "weights, loss or log-likelihoods became non-finite"


@dataclasses.dataclass(frozen=True)
class Edit:
    """One self-edit: `passage` is an index into the phase's passages."""

    passage: int
    edit: int
    prompt: str
    text: str
    lines: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One adapter's outcome. `failed` says why there are no answers, or is None."""

    edit: int
    seed: int
    answers: tuple[str, ...]
    log_likelihoods: tuple[float, ...]
    loss: float
    failed: str | None


@dataclasses.dataclass(frozen=True)
class Run:
    """What every phase needs: the experiment, and where finished work is kept."""

    exp: config.Experiment
    inner: inner.InnerConfig
    mesh: Mesh | None
    journal: records.Journal
    metrics: metrics.Metrics
    propose_template: str
    answer_template: str
    score: Callable[[Sequence[tuple[str, str, str]]], list[float | None]]
    say: Callable[[str], None]

    @property
    def shards(self) -> int:
        """Devices, or groups of them, that train adapters side by side."""
        return mesh.shards(self.mesh)

    @property
    def key(self) -> jax.Array:
        return jax.random.key(self.exp.seed)

    def lines(self, text: str, passage: Passage) -> tuple[str, ...]:
        """Training lines of a self-edit, the passage last."""
        edit = self.exp.edit
        return tuple(
            self_edit.train_lines(text, passage, rule=edit.split, quirks=edit.quirks)
        )

    def question_prompts(self, passage: Passage) -> list[str]:
        """The closed-book prompts of a passage's questions."""
        return [
            self_edit.answer_prompt(self.answer_template, passage, q.question)
            for q in passage.questions
        ]


def propose(
    run: Run,
    writer: policy.Policy,
    passages: Sequence[Passage],
    *,
    phase: str,
    round_index: int,
    count: int,
) -> list[Edit]:
    """Samples `count` self-edits for every passage (SEAL, section 3.1).

    The keys hold the round, the passage and the edit, but not the phase: policies that
    are compared on the same passages draw with the same random numbers.
    """
    prompts = [self_edit.propose_prompt(run.propose_template, p) for p in passages]
    index = [(p, e) for p in range(len(passages)) for e in range(count)]

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        rows = np.array(index)
        fixed = [np.full(len(rows), v) for v in (PROPOSE, round_index)]
        keys = policy.fold(run.key, *fixed, rows[:, 0], rows[:, 1])
        asked = [prompts[p] for p, _ in index]
        with metrics.progress(
            len(index), f"{phase}: propose", "edits", visible=distributed.leads()
        ) as tick:
            texts = policy.write(writer, asked, keys, run.exp.propose, tick=tick)
        return {"texts": texts, "seconds": time.monotonic() - begin}

    run.say(f"{phase}: propose {len(index)} self-edits")
    texts = run.journal.cached(f"{phase}/propose", unit)["texts"]
    return [
        Edit(p, e, prompts[p], text, run.lines(text, passages[p]))
        for (p, e), text in zip(index, texts, strict=True)
    ]


def fixed_edits(
    run: Run, passages: Sequence[Passage], write: Callable[[Passage], str]
) -> list[Edit]:
    """One edit per passage that no policy wrote; every line of it is a text.

    What a policy's text has to be cleaned of is not there, so it is not parsed. An
    empty edit goes the usual way, for the quirk of the reference that concerns it.
    """
    edits = []
    for p, passage in enumerate(passages):
        text = write(passage)
        texts = (*text.splitlines(), passage.text)
        lines = tuple(f"{passage.title}\n{one}" for one in texts)
        edits.append(Edit(p, 0, "", text, lines if text else run.lines("", passage)))
    return edits


def adapt_and_answer(
    run: Run,
    learner: policy.Policy,
    passages: Sequence[Passage],
    edits: Sequence[Edit],
    *,
    phase: str,
    round_index: int,
    seeds: int,
) -> list[Trial]:
    """Trains an adapter per edit and seed, and has each answer its passage's questions.

    Returns trials in the order of the edits, seeds within.
    """
    limit = longest_line(run.exp, learner)
    encoded = [[learner.encode(line)[:limit] for line in e.lines] for e in edits]
    every = [(i, s) for i in range(len(edits)) for s in range(seeds)]
    # Adapters of similar length share a chunk; the longest go first.
    every.sort(key=lambda trial: -len(edits[trial[0]].lines))
    pool = run.inner.pool * run.shards
    chunks = [every[i : i + pool] for i in range(0, len(every), pool)]
    trials: dict[tuple[int, int], Trial] = {}
    names = [f"{phase}/adapt/{i}" for i in range(len(chunks))]
    done = sum(len(c) for c, n in zip(chunks, names, strict=True) if n in run.journal)
    with metrics.progress(
        len(every),
        f"{phase}: adapt",
        "adapters",
        done=done,
        visible=distributed.leads(),
    ) as tick:
        for name, chunk in zip(names, chunks, strict=True):
            if name not in run.journal:
                unit = _chunk(
                    run, learner, passages, edits, encoded, chunk, round_index
                )
                run.journal.put(name, unit)
                tick(len(chunk))
                # A position among all chunks of the run, the same when it resumes.
                step = sum("/adapt/" in key for key in run.journal.keys())  # noqa: SIM118
                rates = throughput(run, learner.arch, unit, len(chunk))
                run.metrics.log(step, {f"adapt/{k}": v for k, v in rates.items()})
                run.say(f"{phase}: {rates_line(rates, unit, len(chunk))}")
            for row in run.journal.get(name)["trials"]:
                trial = Trial(**{k: _tuple(v) for k, v in row.items()})
                trials[trial.edit, trial.seed] = trial
    for i, s in sorted(trials):
        if trials[i, s].failed:
            title = passages[edits[i].passage].title
            run.say(
                f"{phase}: adapter failed: passage {edits[i].passage} ({title}), edit "
                f"{edits[i].edit}, seed {s}: {FAILED}; scored 0"
            )
    return [trials[i, s] for i in range(len(edits)) for s in range(seeds)]


def longest_line(exp: config.Experiment, learner: policy.Policy) -> int:
    """Tokens of the longest training line the model and the packed rows can take."""
    longest = exp.inner.loss.longest(exp.inner.row_tokens)
    return min(learner.arch.max_position, longest)


def throughput(
    run: Run, arch: model.ModelConfig, unit: dict[str, Any], adapters: int
) -> dict[str, float]:
    """Rates of one chunk: training alone, but `adapters_per_s` with its answers.

    MFU (Chowdhery et al. 2022, appendix B) is that of the tokens that carry loss, over
    the peak of all devices that trained; it is missing where the peak is not known.
    """
    seconds = unit["train_seconds"]
    rates = {
        "adapters_per_s": adapters / unit["seconds"],
        "tokens_per_s": unit["tokens"] / seconds,
        "steps_per_s": unit["steps"] / seconds,
        "token_efficiency": unit["tokens"] / unit["computed"],
    }
    peak = runtime.peak_flops(jax.devices()[0])
    if peak is not None:
        flops = packed.flops_per_token(arch, run.inner) * rates["tokens_per_s"]
        devices = 1 if run.mesh is None else run.mesh.size
        rates["mfu"] = flops / (peak * devices)
    return rates


def rates_line(rates: dict[str, float], unit: dict[str, Any], adapters: int) -> str:
    """A chunk's rates for people."""
    digits = metrics.three_digits
    parts = [
        f"{adapters} adapters in {metrics.duration(unit['seconds'])}",
        f"{digits(rates['adapters_per_s'])} adapters/s",
        f"{digits(rates['tokens_per_s'])} tokens/s",
        f"{digits(rates['steps_per_s'])} steps/s",
        f"token efficiency {rates['token_efficiency']:.0%}",
    ]
    if "mfu" in rates:
        parts.append(f"MFU {rates['mfu']:.0%}")
    return ", ".join(parts)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _chunk(
    run: Run,
    learner: policy.Policy,
    passages: Sequence[Passage],
    edits: Sequence[Edit],
    encoded: list[list[list[int]]],
    chunk: list[tuple[int, int]],
    round_index: int,
) -> dict[str, Any]:
    begin, c = time.monotonic(), run.exp.inner
    ids = [(edits[i].passage, edits[i].edit, s) for i, s in chunk]
    jobs = [
        plan.Job(
            tuple(tuple(line) for line in encoded[i]),
            (run.exp.seed, ADAPT, round_index, *row),
            epochs=c.epochs,
            learning_rate=c.learning_rate,
            clip=c.clip,
            loss=c.loss,
        )
        for (i, _), row in zip(chunk, ids, strict=True)
    ]
    fixed = [np.full(len(ids), v) for v in (ADAPT, round_index)]
    keys = policy.fold(run.key, *fixed, *np.array(ids).T)
    trained = packed.train(
        learner.params,
        jobs,
        keys,
        arch=learner.arch,
        cfg=run.inner,
        eos=learner.eos,
        on=run.mesh,
    )
    train_seconds = time.monotonic() - begin
    asked = [passages[p] for p, _, _ in ids]
    answers, scores = _answer(
        run, learner, trained.adapters, asked, [(round_index, *row) for row in ids]
    )
    rows = []
    for a, (i, s) in enumerate(chunk):
        ok = bool(trained.finite_A[a] and np.isfinite(scores[a]).all())
        rows.append(
            {
                "edit": i,
                "seed": s,
                "answers": answers[a] if ok else [],
                "log_likelihoods": scores[a] if ok else [],
                "loss": float(trained.loss_A[a]),
                "failed": None if ok else FAILED,
            }
        )
    return {
        "trials": rows,
        "tokens": trained.tokens,
        "computed": trained.computed_tokens,
        "steps": trained.steps,
        "train_seconds": train_seconds,
        "seconds": time.monotonic() - begin,
    }


def _answer(
    run: Run,
    learner: policy.Policy,
    adapters: lora.Tree | None,
    asked: Sequence[Passage],
    ids: Sequence[tuple[int, ...]],
) -> tuple[list[list[str]], list[list[float]]]:
    """Answers to each passage's questions, and log-likelihoods of the gold answers.

    `ids` tell the adapters apart, for the random numbers of sampled answers.
    """
    prompts = [run.question_prompts(passage) for passage in asked]
    keys_A = policy.fold(run.key, np.full(len(ids), ANSWER), *np.array(ids).T)
    answers = policy.answer(learner, adapters, prompts, keys_A, run.exp.answer)
    if run.exp.select.reward != "log_likelihood":
        return answers, [[] for _ in asked]
    gold = [
        [(prompt, q.answer) for prompt, q in zip(group, p.questions, strict=True)]
        for group, p in zip(prompts, asked, strict=True)
    ]
    return answers, policy.log_likelihood(learner, adapters, gold, run.exp.answer)


def base_answers(
    run: Run, learner: policy.Policy, passages: Sequence[Passage], *, phase: str
) -> list[list[str]]:
    """Closed-book answers without any adapter, once per passage."""

    def unit() -> dict[str, Any]:
        begin = time.monotonic()
        ids = [(p,) for p in range(len(passages))]
        answers, _ = _answer(run, learner, None, passages, ids)
        return {"answers": answers, "seconds": time.monotonic() - begin}

    run.say(f"{phase}: answer {sum(len(p.questions) for p in passages)} questions")
    return run.journal.cached(f"{phase}/base", unit)["answers"]
