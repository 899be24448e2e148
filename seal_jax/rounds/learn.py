"""Step 5 of a round: the policy is fine-tuned on its lessons, and saved."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh

from seal_jax.generation import policies
from seal_jax.generation.settings import Decoding
from seal_jax.models import lora
from seal_jax.rounds import ladder_rows, select, trials
from seal_jax.rounds.experiment import Experiment, Imitates
from seal_jax.rounds.graded import mean
from seal_jax.rounds.lessons import Lesson
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import checkpoint, distributed, prng, progress
from seal_jax.tasks.base import Edit
from seal_jax.training import imitate as sft
from seal_jax.training import prefer
from seal_jax.training.outer_rules import RULES
from seal_jax.training.settings import ImitateConfig

# Whose fine-tuning it is: names of checkpoints and of units of work.
POLICY, CONTROL = "policy", "random_kept"
_STAGES = {POLICY: trials.IMITATE, CONTROL: trials.CONTROL}


def imitate[Item](
    run: Run[Imitates, Item],
    policy: policies.Policy,
    new: Sequence[Lesson],
    *,
    start: policies.Policy | None,
    past: Sequence[Sequence[Lesson]],
    round_index: int,
    workdir: Path,
    name: str = POLICY,
) -> policies.Policy:
    """The policy after a round; it consumes `policy`, unless that is `start`.

    Where there is no lesson that is `policy`, as it was: nothing is consumed then.

    Args:
      run: the experiment.
      policy: the policy that wrote the edits.
      new: the lessons of this round.
      start: the policy to fine-tune in place of `policy`; it is not consumed.
      past: those of each of the rounds before.
      round_index: from 1 on.
      workdir: where checkpoints go.
      name: `POLICY` or `CONTROL`, or that of another arm, which draws as `POLICY` does.
    """
    if not new:
        return policy
    examples = select.training_set(past, new, run.exp.imitate.data)
    if start is None:
        return finetuned(
            run, policy, examples, round_index, workdir, name, consume=True
        )
    if policy.params is not start.params:
        # Beside the start and what comes of it there is no room for a third set.
        policy.freed()
    return finetuned(run, start, examples, round_index, workdir, name, consume=False)


def finetuned[Item](
    run: Run[Imitates, Item],
    policy: policies.Policy,
    lessons: Sequence[Lesson],
    round_index: int,
    workdir: Path,
    name: str,
    *,
    consume: bool,
) -> policies.Policy:
    """Fine-tunes the policy on lessons and merges the result into it.

    The delta is checkpointed: a later run merges it again instead of training it.
    `consume`: see `Policy.merged`.
    """
    cfg, directory = run.exp.imitate, workdir / "checkpoints" / name
    if name == POLICY:
        cfg = cfg.by_rule
    weighed = name == POLICY and RULES[cfg.rule].weighed
    pairs = weighed and RULES[cfg.rule].pairs
    stage = _STAGES.get(name, trials.IMITATE)
    key = prng.take(prng.fold(run.key, [stage], [round_index]), 0)
    units = [UnitKey(name, "imitate", r) for r in range(1, round_index + 1)]
    if distributed.share(lambda: checkpoint.latest(directory) or 0) < round_index:
        phase = ladder_rows.round_name(round_index)
        what = f"pairs of {run.task.called}" if pairs else run.task.called
        run.say(f"{phase}: imitate {len(lessons)} {what} ({name})")
        begin = time.monotonic()
        steps = cfg.epochs * -(-len(lessons) // cfg.batch)
        with progress.progress(
            steps, f"{phase}: imitate", "steps", visible=distributed.leads()
        ) as tick:
            tuned = trained(
                *(policy, lessons, key),
                cfg=cfg,
                writing=run.task.writing if weighed else None,
                mesh=run.mesh,
                tick=tick,
            )
        meta = {
            "seconds": time.monotonic() - begin,
            "losses": tuned.losses,
            "trained_tokens": tuned.tokens,
            "computed_tokens": tuned.computed_tokens,
        }
        if isinstance(tuned, prefer.Preferred):
            meta["learned"] = learned(policy, lessons, tuned, pairs=pairs)
        delta = distributed.readable(tuned.delta)
        if distributed.leads():
            checkpoint.save(directory, round_index, delta, meta)
    like = jax.eval_shape(
        lambda: lora.init(
            key, policy.arch, targets=cfg.lora.targets, rank=cfg.lora.rank
        )
    )
    # Read back even if it was just written: both ways must give the same bits.
    delta, meta = distributed.share_arrays(
        lambda: checkpoint.restore(directory, round_index, like), like
    )
    run.journal.cached(str(units[-1]), lambda: meta)
    # Rounds may differ in how many edits they keep, and so in steps.
    before = [str(unit) for unit in units[:-1] if str(unit) in run.journal]
    first = sum(len(run.journal.get(unit)["losses"]) for unit in before)
    for i, loss in enumerate(meta["losses"]):
        run.metrics.log(first + i, {f"imitate/{name}_loss": loss})
    return policy.merged(delta, consume=consume)


def trained(
    policy: policies.Policy,
    lessons: Sequence[Lesson],
    key: Array,
    *,
    cfg: ImitateConfig,
    writing: Decoding | None,
    mesh: Mesh | None,
    tick: Callable[[int], None],
) -> sft.TunedAdapter | prefer.Preferred:
    """An adapter that learned the lessons: weighed by the rule, or all imitated.

    `writing`: how the edits were drawn, which says of weighed ones whether they ended
    themselves; None: they are imitated, each to an end.
    """
    common = {"arch": policy.arch, "cfg": cfg, "eos": policy.eos}
    if writing is None:
        # Many edits may be of one prompt.
        sequence = functools.cache(policy.sequence)
        texts = [
            (sequence(one.edit.prompt), policy.encode(one.edit.text)) for one in lessons
        ]
        return sft.train(policy.params, texts, key, mesh=mesh, tick=tick, **common)

    def text(edit: Edit) -> prefer.Text:
        ids = policy.encode(edit.text)
        return prefer.Text(
            policy.sequence(edit.prompt), ids, policies.was_cut(ids, writing)
        )

    examples = [
        prefer.Example(
            tuple(text(edit) for edit in (one.edit, one.other) if edit is not None),
            one.advantage,
        )
        for one in lessons
    ]
    return prefer.train(policy.params, examples, key, mesh=mesh, tick=tick, **common)


def learned(
    policy: policies.Policy,
    lessons: Sequence[Lesson],
    tuned: prefer.Preferred,
    *,
    pairs: bool,
) -> dict[str, Any]:
    """What pairs or groups came to, as the round's line has it.

    `lessons`, and the mean tokens of the edits that gained and of those that lost by
    them; the rule's `figures` of each epoch's steps, means over the last one.
    """
    won = [lesson.edit for lesson in lessons if lesson.kept]
    lost = [one.other for one in lessons if one.other is not None]
    if not pairs:
        lost = [one.edit for one in lessons if one.advantage < 0]
    return {
        "lessons": len(lessons),
        "won_tokens": mean([float(len(policy.encode(e.text))) for e in won]),
        "lost_tokens": mean([float(len(policy.encode(e.text))) for e in lost]),
        "first_loss": tuned.losses[0],
        "last": {name: mean(tuned.last(name)) for name in tuned.figures},
    }


def figures[Item](run: Run[Experiment, Item], round_index: int) -> dict[str, Any]:
    """What the round's line says of pairs or groups; nothing where there were none."""
    unit = str(UnitKey(POLICY, "imitate", round_index))
    meta = run.journal.get(unit) if unit in run.journal else {}
    return {"learned": meta["learned"]} if "learned" in meta else {}


def save_policy[Item](
    run: Run[Experiment, Item],
    policy: policies.Policy,
    workdir: Path,
    *,
    round_index: int,
) -> None:
    """Writes the policy in Hugging Face format, once per round."""

    key = str(UnitKey("policy", "saved", round_index))
    run.journal.cached(key, lambda: policy.save(workdir / "policy"))
