"""ReST-EM over self-edits: the round, and the control without a reward.

    for round in 1 .. rounds:
        edits   = propose(policy, items)             sample E self-edits per item
        rewards = evaluate(policy, edits)            train an adapter per edit and seed;
                                                     share of questions it answers
        kept    = keep(rewards)                      the best edits of each item
        policy  = learn(policy, kept)                fine-tune on (prompt, edit), merge

An item is a passage (`knowledge`) or a few-shot task (`few_shot`).

SEAL (arXiv 2506.10943), algorithm 1 and section 3.1; ReST-EM is Singh et al. 2023.
"""

import dataclasses
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from seal_jax import (
    checkpoint,
    choice,
    config_rounds,
    distributed,
    evaluate,
    hf,
    imitate,
    lora,
    novelty,
    policy,
    proposals,
    reward,
    rounds_data,
    run_view,
    select,
    trials,
)
from seal_jax.reward import Graded, mean
from seal_jax.trials import Edit, Run


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a round leaves: the next policy, what it kept, and what there is to read.

    `rows` are those of edits.jsonl, `line` the round's of the summary.
    """

    policy: policy.Policy
    kept: list[Edit]
    rows: list[dict]
    line: dict


def one_round(
    run: Run,
    handed: list[policy.Policy],
    items: Sequence[Any],
    *,
    base: policy.Policy | None,
    past: Sequence[Sequence[Edit]],
    round_index: int,
    workdir: Path,
) -> Outcome:
    """One round of ReST-EM.

    Args:
      run: the experiment.
      handed: holds the policy that writes the edits and is adapted, and is emptied:
        beside the next policy's weights there is no room for one that nobody needs.
      items: of this round.
      base: the policy the run began with, if `imitate.start` asks for it.
      past: what each of the rounds before kept.
      round_index: from 1 on.
      workdir: where checkpoints go.
    """
    phase, exp, pupil = f"round_{round_index}", run.exp, handed.pop()
    edits = proposals.propose(
        run,
        pupil,
        items,
        phase=phase,
        round_index=round_index,
        count=exp.scale.edits,
    )
    graded = evaluate.evaluate(
        run, pupil, items, edits, phase=phase, round_index=round_index
    )
    baseline = reward.baselines(run, pupil, items, phase=phase)
    kept = keep(run, items, graded, baseline, round_index=round_index)
    chosen = [graded[i].edit for i in kept]
    if chosen:
        examples = rounds_data.training_set(past, chosen, exp.imitate.data)
        pupil = pupil if base is None else base
        pupil = learn(run, pupil, examples, round_index, workdir, "policy")
    else:
        run.say(nothing_kept(phase, graded))
    rows = [
        reward.edit_row(run, g, items, round=round_index, kept=i in kept)
        for i, g in enumerate(graded)
    ]
    line = round_summary(graded, kept, baseline, round_index)
    return Outcome(pupil, chosen, rows, line | looks(run, items, graded))


def nothing_kept(phase: str, graded: Sequence[Graded]) -> str:
    """Why a round changes nothing, for people."""
    made = reward.counts(graded)
    scored = sum(g.reward is not None for g in graded)
    return (
        f"{phase}: none of {made['edits']} self-edits is kept (refused: "
        f"{made['refused'] or 'none'}; with a reward: {scored}); the policy stays as "
        "it is; raise scale.edits, or loosen select.threshold and the other limits"
    )


def keep(
    run: Run,
    items: Sequence[Any],
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
        texts = [graded[i].edit.text for i in own]
        best = select.best(
            [None if graded[i].out else graded[i].reward for i in own],
            k_best=cfg.k_best,
            ties=cfg.ties,
            threshold=threshold,
            baseline=base,
            lengths=list(map(len, texts)),
            rng=random.Random(f"ties {run.exp.seed} {round_index} {p}"),
            **looked_at(cfg, run.task.text(items[p]), texts),
        )
        kept += [own[i] for i in best]
    return kept


def looked_at(
    cfg: config_rounds.SelectConfig, passage: str | None, texts: Sequence[str]
) -> dict[str, Any]:
    """What `select.best` has to know of an item's edits as texts."""
    new = select.novelties(passage or "", texts)
    known: dict[str, Any] = {"overlap": new.overlap, "max_overlap": cfg.max_overlap}
    if passage is not None:
        known |= {"novelty": new.novelty, "bonus": cfg.novelty_bonus}
        known |= {"copied": new.copied, "max_copied": cfg.max_copied}
    return known


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
    cfg = exp.imitate
    stage = trials.IMITATE if name == "policy" else trials.CONTROL
    key = policy.fold(run.key, [stage], [round_index])[0]
    unit = f"{name}/imitate/{round_index}"
    if distributed.share(lambda: checkpoint.latest(directory) or 0) < round_index:
        run.say(f"round_{round_index}: imitate {len(kept)} self-edits ({name})")
        begin = time.monotonic()
        examples = [(pupil.encode(e.prompt), pupil.encode(e.text)) for e in kept]
        tuned = imitate.train(
            pupil.params,
            examples,
            key,
            arch=pupil.arch,
            cfg=cfg,
            eos=pupil.eos,
            on=run.mesh,
        )
        seconds = time.monotonic() - begin
        meta = {"seconds": seconds, "losses": tuned.losses}
        meta |= {
            "trained_tokens": tuned.tokens,
            "computed_tokens": tuned.computed_tokens,
        }
        delta = distributed.readable(tuned.delta)
        if distributed.leads():
            checkpoint.save(directory, round_index, delta, meta)
    like = jax.eval_shape(
        lambda: lora.init(key, pupil.arch, targets=cfg.lora.targets, rank=cfg.lora.rank)
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
    pupil, past = base, []
    for round_index, items in enumerate(rounds, start=1):
        phase = f"round_{round_index}"
        edits = proposals.propose(
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
        examples = rounds_data.training_set(past, kept, run.exp.imitate.data)
        pupil = base if run.exp.imitate.start == "base" else pupil
        pupil = learn(run, pupil, examples, round_index, workdir, "random_kept")
        past.append(kept)
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
        # What left a race early was measured by fewer seeds.
        if g.reward is not None and not g.out:
            p = g.edit.item
            best[p] = max(best.get(p, g.reward), g.reward)
    return {
        "round": round_index,
        "baseline_mean": mean(baseline),
        "sampled_mean": mean([g.reward for g in graded]),
        "best_mean": mean(list(best.values())),
        "kept_mean": mean([graded[i].reward for i in kept]),
        "kept": len(kept),
        "trainings": sum(len(g.trials) for g in graded),
        "failed_adapters": sum(bool(t.failed) for g in graded for t in g.trials),
        "missing_judgements": sum(
            s is None for g in graded for row in g.scores for s in row
        ),
        "empty_rate": reward.empty_rate(
            [a for g in graded for t in g.trials for a in t.answers]
        ),
    }


def looks(run: Run, items: Sequence[Any], graded: Sequence[Graded]) -> dict[str, Any]:
    """A round's line on the texts themselves, and on its other rewards."""
    line: dict[str, Any] = {}
    sources = [run.task.text(item) for item in items]
    if all(source is not None for source in sources):
        measures = [
            novelty.measure(
                str(source), [g.edit.text for g in graded if g.edit.item == p]
            )
            for p, source in enumerate(sources)
        ]
        line["novelty"] = {
            name: mean([own[name] for own in measures]) for name in measures[0]
        }
    names = [name for name in run.exp.select.measured if name != "grade"]
    if names and run.exp.select.trains:
        true, *others = (
            [
                [known(g, name) for g in graded if g.edit.item == p]
                for p in range(len(items))
            ]
            for name in ("grade", *names)
        )
        found = [choice.agree(true, other) for other in others]
        line["agreement"] = [
            {"reward": name, **dataclasses.asdict(own)}
            for name, own in zip(names, found, strict=True)
            if own is not None
        ]
    return line


def known(graded: Graded, name: str) -> float | None:
    """The mean of one reward over the seeds that measured it."""
    values = graded.measured.get(name, ())
    return mean([None if v == run_view.FLOOR else v for v in values])


def save_policy(
    run: Run, pupil: policy.Policy, workdir: Path, *, round_index: int
) -> None:
    """Writes the policy in Hugging Face format, once per round."""

    def unit() -> None:
        params = distributed.readable(pupil.params)
        if distributed.leads():
            hf.save(workdir / "policy", pupil.arch, params, source=pupil.source)

    run.journal.cached(f"policy/saved/{round_index}", unit)
