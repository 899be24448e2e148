"""ReST-EM over self-edits: the round, and the control without a reward.

    for round in 1 .. rounds:
        edits   = propose(policy, items)             sample E self-edits per item
        trials  = adapt_and_answer(policy, edits)    train an adapter per edit and seed
        rewards = reward(trials)                     share of questions it answers
        kept    = select(rewards)                    the best edits of each item
        policy  = imitate(policy, kept)              fine-tune on (prompt, edit), merge

An item is a passage (`knowledge`) or a few-shot task (`few_shot`).

SEAL (arXiv 2506.10943), algorithm 1 and section 3.1; ReST-EM is Singh et al. 2023.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from seal_jax import (
    checkpoint,
    distributed,
    hf,
    imitate,
    lora,
    policy,
    reward,
    select,
    trials,
)
from seal_jax.reward import Graded, mean
from seal_jax.trials import Edit, Run


def one_round(
    run: Run,
    pupil: policy.Policy,
    items: Sequence[Any],
    *,
    round_index: int,
    workdir: Path,
) -> tuple[policy.Policy, list[dict], dict]:
    """One round of ReST-EM.

    Returns:
      The next policy, the rows of edits.jsonl, and the round's line of the summary.
    """
    phase, exp = f"round_{round_index}", run.exp
    edits = trials.propose(
        run,
        pupil,
        items,
        phase=phase,
        round_index=round_index,
        count=exp.scale.edits,
    )
    outcomes = trials.adapt_and_answer(
        run,
        pupil,
        items,
        edits,
        phase=phase,
        round_index=round_index,
        seeds=exp.scale.seeds,
    )
    graded = reward.reward(run, items, edits, outcomes, phase=phase, final=True)
    baseline = reward.baselines(run, pupil, items, phase=phase)
    kept = keep(run, graded, baseline, round_index=round_index)
    if kept:
        pupil = learn(
            run, pupil, [graded[i].edit for i in kept], round_index, workdir, "policy"
        )
    else:
        made = reward.counts(graded)
        run.say(
            f"{phase}: of {made['edits']} self-edits {made['trained']} were trained "
            f"and none is kept (refused: {made['refused'] or 'none'}); the policy "
            "stays as it is; raise scale.edits, or lower select.threshold"
        )
    rows = [
        reward.edit_row(run, g, items, round=round_index, kept=i in kept)
        for i, g in enumerate(graded)
    ]
    return pupil, rows, round_summary(graded, kept, baseline, round_index)


def keep(
    run: Run,
    graded: Sequence[Graded],
    baseline: Sequence[float | None],
    *,
    round_index: int,
) -> list[int]:
    """Indices of the edits to imitate: the best of each item (SEAL's filter)."""
    cfg = run.exp.select
    threshold = (
        None if cfg.threshold == "none" else select.number_or_baseline(cfg.threshold)
    )
    kept = []
    for p, base in enumerate(baseline):
        if threshold == select.BASELINE and base is None:
            continue  # Nobody knows whether its edits are better than none.
        own = [i for i, g in enumerate(graded) if g.edit.item == p]
        best = select.best(
            [graded[i].reward for i in own],
            k_best=cfg.k_best,
            ties=cfg.ties,
            threshold=threshold,
            baseline=base,
            lengths=[len(graded[i].edit.text) for i in own],
            rng=random.Random(f"ties {run.exp.seed} {round_index} {p}"),
        )
        kept += [own[i] for i in best]
    return kept


def learn(
    run: Run,
    pupil: policy.Policy,
    kept: Sequence[Edit],
    round_index: int,
    workdir: Path,
    name: str,
) -> policy.Policy:
    """Fine-tunes the policy on the kept edits and merges the result into it.

    The delta is checkpointed: a later run merges it again instead of training it.
    """
    exp, directory = run.exp, workdir / "checkpoints" / name
    c = exp.imitate
    cfg = imitate.ImitateConfig(
        targets=c.lora.targets,
        rank=c.lora.rank,
        alpha=c.lora.alpha,
        learning_rate=c.learning_rate,
        epochs=c.epochs,
        batch=c.batch,
        micro_batch=c.micro_batch,
        clip=c.clip,
        length_multiple=c.length_multiple,
        schedule=c.schedule,
    )
    stage = trials.IMITATE if name == "policy" else trials.CONTROL
    key = policy.fold(run.key, [stage], [round_index])[0]
    unit = f"{name}/imitate/{round_index}"
    if distributed.share(lambda: checkpoint.latest(directory) or 0) < round_index:
        run.say(f"round_{round_index}: imitate {len(kept)} self-edits ({name})")
        begin = time.monotonic()
        examples = [(pupil.encode(e.prompt), pupil.encode(e.text)) for e in kept]
        delta, losses = imitate.train(
            pupil.params, examples, key, arch=pupil.arch, cfg=cfg, eos=pupil.eos
        )
        seconds = time.monotonic() - begin
        meta = {"seconds": seconds, "losses": losses}
        delta = distributed.readable(delta)
        if distributed.leads():
            checkpoint.save(directory, round_index, delta, meta)
    like = jax.eval_shape(
        lambda: lora.init(key, pupil.arch, targets=cfg.targets, rank=cfg.rank)
    )
    # Read back even if it was just written: both ways must give the same bits.
    delta, meta = distributed.share_arrays(
        lambda: checkpoint.restore(directory, round_index, like), like
    )
    run.journal.cached(unit, lambda: meta)
    # Rounds may differ in how many edits they keep, and so in steps.
    before = [f"{name}/imitate/{r}" for r in range(1, round_index)]
    done = [run.journal.get(key) for key in before if key in run.journal]
    start = sum(len(unit["losses"]) for unit in done)
    for i, loss in enumerate(meta["losses"]):
        run.metrics.log(start + i, {f"imitate/{name}_loss": loss})
    return pupil.merged(delta)


def control(
    run: Run, base: policy.Policy, rounds: Sequence[Sequence[Any]], workdir: Path
) -> policy.Policy:
    """The same rounds with a random edit kept: what imitation alone does.

    It needs no rewards, so nothing is adapted. Its first proposals are round 1's.
    """
    pupil = base
    for round_index, items in enumerate(rounds, start=1):
        phase = f"round_{round_index}"
        edits = trials.propose(
            run,
            pupil,
            items,
            phase=phase if round_index == 1 else f"control/{phase}",
            round_index=round_index,
            count=run.exp.scale.edits,
        )
        kept = []
        for p in range(len(items)):
            rng = random.Random(f"control {run.exp.seed} {round_index} {p}")
            own = [e for e in edits if e.item == p]
            kept += rng.sample(own, min(run.exp.select.k_best, len(own)))
        pupil = learn(run, pupil, kept, round_index, workdir, "random_kept")
    return pupil


def round_summary(
    graded: Sequence[Graded],
    kept: Sequence[int],
    baseline: Sequence[float | None],
    round_index: int,
) -> dict[str, Any]:
    """A round in numbers: what was sampled, the best of each item, what was kept."""
    best: dict[int, float] = {}
    for g in graded:
        if g.reward is not None:
            p = g.edit.item
            best[p] = max(best.get(p, g.reward), g.reward)
    return {
        "round": round_index,
        "baseline_mean": mean(baseline),
        "sampled_mean": mean([g.reward for g in graded]),
        "best_mean": mean(list(best.values())),
        "kept_mean": mean([graded[i].reward for i in kept]),
        "kept": len(kept),
        "failed_adapters": sum(bool(t.failed) for g in graded for t in g.trials),
        "missing_judgements": sum(
            s is None for g in graded for row in g.scores for s in row
        ),
        "empty_rate": reward.empty_rate(
            [a for g in graded for t in g.trials for a in t.answers]
        ),
    }


def save_policy(
    run: Run, pupil: policy.Policy, workdir: Path, *, round_index: int
) -> None:
    """Writes the policy in Hugging Face format, once per round."""

    def unit() -> None:
        params = distributed.readable(pupil.params)
        if distributed.leads():
            hf.save(workdir / "policy", pupil.arch, params, source=pupil.source)

    run.journal.cached(f"policy/saved/{round_index}", unit)
