"""The steps of a pooled run, in units that survive a kill: propose, train, ask."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from seal_jax.generation import policies
from seal_jax.generation.settings import ModelSource
from seal_jax.models import lora
from seal_jax.pooled import texts as pooled_texts
from seal_jax.pooled.settings import Pooled
from seal_jax.rounds import pools, proposals, trials
from seal_jax.rounds.graded import mean
from seal_jax.rounds.trials import Run
from seal_jax.runtime import checkpoint, distributed, prng
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training import finetune, plan

type PooledRun = Run[Pooled, Passage]

# Passages that are written about, or asked about, in one unit of work.
CHUNK = 256


def writer_source(exp: Pooled) -> ModelSource:
    """The model that writes, to be opened."""
    path = exp.writer.path
    if not path:
        return exp.model
    return dataclasses.replace(exp.model, path=path, random_weights=False)


def self_edits(
    run: PooledRun, base: policies.Policy, passages: Sequence[Passage]
) -> list[Edit]:
    """`pool.edits` self-edits of every passage: written, or those of the file.

    The keys hold the chunk and the place in it, so that a chunk is a unit of work.

    Raises:
      ValueError: the file, or a writer with chunks to write, is another than at first.
    """
    exp = run.exp
    if exp.pool.edits_file:
        edits = pooled_texts.read_edits(
            exp.pool.edits_file,
            passages,
            count=exp.pool.edits,
            rule=exp.edit.split,
            quirks=exp.edit.quirks,
        )
        texts = json.dumps([e.text for e in edits]).encode()
        digest = hashlib.sha256(texts).hexdigest()
        same_as_before(run, digest, name="pool.edits_file", path=exp.pool.edits_file)
        return edits
    starts = range(0, len(passages), CHUNK)
    phases = [
        f"pooled/{i}" if len(starts) > 1 else "pooled" for i in range(len(starts))
    ]
    writer = base
    if exp.writer.path and any(f"{p}/propose" not in run.journal for p in phases):
        run.say(f"pooled: load the writer {exp.writer.path}")
        source = writer_source(exp)
        blank = policies.describe(source)
        digest = distributed.share(lambda: model_digest(blank.source))
        same_as_before(run, digest, name="writer.path", path=exp.writer.path)
        writer = policies.load(
            source, blank, seed=exp.seed, mesh=run.mesh, merges=False
        )
    edits = []
    for i, (phase, start) in enumerate(zip(phases, starts, strict=True)):
        chunk = proposals.propose(
            run,
            writer,
            passages[start : start + CHUNK],
            phase=phase,
            round_index=i,
            count=exp.pool.edits,
        )
        edits += [dataclasses.replace(e, item=e.item + start) for e in chunk]
    return edits


def same_as_before(run: PooledRun, digest: str, *, name: str, path: str) -> None:
    """Refuses what is no longer what the workdir began with; notes it at first.

    The config has paths alone: what is behind them may change between two runs.

    Raises:
      ValueError: see above.
    """
    if run.journal.cached(f"pooled/{name}", lambda: digest) != digest:
        raise ValueError(
            f"{name}={path!r}: its contents are not those that this workdir began "
            "with; put them back, or give another --workdir"
        )


def model_digest(folder: Path) -> str:
    """SHA-256 of a model's JSON files and weights, with their names."""
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name} {digest}\n".encode())
    return total.hexdigest()


class Outcome(NamedTuple):
    """What a training gave: answers about each passage; None if it failed."""

    answers: list[list[str]] | None
    loss: float | None


def answers(
    run: PooledRun,
    policy: policies.Policy,
    adapter: lora.Tree | None,
    asked: Sequence[Passage],
    *,
    name: str,
) -> list[list[str]]:
    """Closed-book answers to all questions; `adapter` is a stack of one, or None."""
    by_passage = []
    for i, start in enumerate(range(0, len(asked), CHUNK)):
        unit = f"{name}/answers/{i}"
        groups = [run.task.prompts(passage) for passage in asked[start : start + CHUNK]]
        if unit not in run.journal:
            begin = time.monotonic()
            flat = [prompt for group in groups for prompt in group]
            run.say(f"{name}: ask {len(flat)} questions")
            keys = prng.fold(run.key, [trials.ANSWER], [i])
            texts = policies.answer(policy, adapter, [flat], keys, run.exp.answer)[0]
            seconds = time.monotonic() - begin
            run.journal.put(unit, {"answers": texts, "seconds": seconds})
        rest = iter(run.journal.get(unit)["answers"])
        by_passage += [[next(rest) for _ in group] for group in groups]
    return by_passage


def train_adapters(
    run: PooledRun,
    base: policies.Policy,
    jobs: Sequence[plan.Job],
    seeds: Sequence[int],
    workdir: Path,
) -> list[tuple[lora.Tree, "Fit"]]:
    """An adapter for each job, as a stack of one, and how its training ended.

    They train side by side, `inner.pool` at a time, and are checkpointed. Adapters of
    the same seed begin alike, so that rows differ in their texts alone.
    """
    count = sum(len(job.lines) for job in jobs)
    store = Checkpointed(run, base, workdir / "checkpoints" / "pooled")
    if (len(jobs) - 1) // (run.inner.pool * run.shards) not in store:
        run.say(
            f"pooled: train {len(jobs)} adapters on {count} texts, the longest for "
            f"{max(job.total for job in jobs)} steps"
        )
    units = pools.train(
        base,
        pools.Work(jobs, [(trials.ADAPT, seed) for seed in seeds]),
        store,
        key=run.key,
        cfg=run.inner,
        mesh=run.mesh,
        phase="pooled",
        say=run.say,
        whole=run.whole,
    )
    return [
        (jax.tree.map(lambda x, a=a: x[a : a + 1], stack), outcome)
        for stack, outcomes in units
        for a, outcome in enumerate(outcomes)
    ]


class Fit(NamedTuple):
    """How an adapter's training ended: its mean loss, and whether all is finite."""

    loss: float
    finite: bool


@dataclasses.dataclass(frozen=True)
class Checkpointed:
    """Pools as checkpoints 1, 2, ..., each with an entry of the journal."""

    run: Run
    base: policies.Policy
    directory: Path

    def __contains__(self, index: int) -> bool:
        return distributed.share(lambda: checkpoint.latest(self.directory) or 0) > index

    def put(self, index: int, pool: pools.Pool) -> None:
        count = len(pool.rows)
        meta = {
            "seconds": pool.seconds,
            **pool.cost(),
            "adapters": count,
            "loss": pool.trained.loss_A[:count].tolist(),
            "finite": pool.trained.finite_A[:count].tolist(),
        }
        stack = distributed.readable(pool.adapters)
        if distributed.leads():
            checkpoint.save(self.directory, index + 1, stack, meta)

    def get(self, index: int, rows: range) -> tuple[lora.Tree, list[Fit]]:
        """The pool's adapters as a stack, and how each ended."""
        cfg, arch, step = self.run.inner, self.base.arch, index + 1
        like = jax.eval_shape(
            lambda: lora.empty(
                arch,
                targets=cfg.targets,
                rank=cfg.rank,
                adapters=len(rows),
                dtype=arch.dtype,
            )
        )
        # Read back even if it was just written: both ways must give the same bits.
        stack, meta = distributed.share_arrays(
            lambda: checkpoint.restore(self.directory, step, like), like
        )
        # A kill may have come between the checkpoint and its entry.
        meta = self.run.journal.cached(f"pooled/train/{step}", lambda: meta)
        return stack, list(map(Fit, meta["loss"], meta["finite"]))


def finetuned(
    run: PooledRun,
    blank: policies.Policy,
    job: plan.Job,
    asked: Sequence[Passage],
    *,
    name: str,
    seed: int,
) -> Outcome:
    """Trains all weights and asks; a run that was stopped in it begins it again.

    The weights are loaded for this training alone: there may not be memory for two sets
    of them beside AdamW's.
    """
    exp = run.exp
    unit = f"{name}/train"
    units = [f"{name}/answers/{i}" for i in range(-(-len(asked) // CHUNK))]
    policy = blank
    finite = unit not in run.journal or run.journal.get(unit)["finite"]
    if finite and any(u not in run.journal for u in units):
        run.say(
            f"{name}: train all weights on {len(job.lines)} texts, {job.total} steps"
        )
        if job.cut:
            run.say(
                f"{name}: {len(job.cut)} of {len(job.lines)} texts are longer than "
                "inner.row_tokens and end there"
            )
        begin = time.monotonic()
        trained = finetune.train(
            policies.load(exp.model, blank, seed=exp.seed, mesh=run.mesh).params,
            job,
            prng.take(prng.fold(run.key, [trials.ADAPT], [seed]), 0),
            arch=blank.arch,
            micro_batch=exp.full.micro_batch,
            length_multiple=exp.full.length_multiple,
            eos=blank.eos,
            mesh=run.mesh,
        )
        policy = dataclasses.replace(blank, params=trained.params)
        meta = {
            "seconds": time.monotonic() - begin,
            "tokens": trained.tokens,
            "computed": trained.computed_tokens,
            "steps": job.total,
            "adapters": 0,
            "losses": trained.losses,
            "finite": trained.finite,
        }
        meta = run.journal.cached(unit, lambda: meta)
        for i, loss in enumerate(meta["losses"]):
            run.metrics.log(i, {f"{name}_loss": loss})
    meta = run.journal.get(unit)
    loss = mean(meta["losses"])
    if not meta["finite"]:
        return Outcome(None, loss)
    return Outcome(answers(run, policy, None, asked, name=name), loss)
