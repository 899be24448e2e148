"""Step 5 of a round: the policy is fine-tuned on the kept edits, and saved."""

import time
from collections.abc import Sequence
from pathlib import Path

import jax

from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import ladder_rows, select, trials
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import checkpoint, distributed, prng, progress
from seal_jax.tasks.base import Edit
from seal_jax.training import imitate as sft

# Whose fine-tuning it is: names of checkpoints and of units of work.
POLICY, CONTROL = "policy", "random_kept"
_STAGES = {POLICY: trials.IMITATE, CONTROL: trials.CONTROL}


def imitate[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    kept: Sequence[Edit],
    *,
    start: policies.Policy | None,
    past: Sequence[Sequence[Edit]],
    round_index: int,
    workdir: Path,
    name: str = POLICY,
) -> policies.Policy:
    """The policy after a round; it consumes `policy`, unless that is `start`.

    Where nothing was kept that is `policy`, as it was: nothing is consumed then.

    Args:
      run: the experiment.
      policy: the policy that wrote the edits.
      kept: the edits of this round.
      start: the policy to fine-tune in place of `policy`; it is not consumed.
      past: what each of the rounds before kept.
      round_index: from 1 on.
      workdir: where checkpoints go.
      name: `POLICY` or `CONTROL`.
    """
    if not kept:
        return policy
    examples = select.training_set(past, kept, run.exp.imitate.data)
    if start is None:
        return finetuned(
            run, policy, examples, round_index, workdir, name, consume=True
        )
    if policy.params is not start.params:
        # Beside the start and what comes of it there is no room for a third set.
        policy.freed()
    return finetuned(run, start, examples, round_index, workdir, name, consume=False)


def finetuned[Item](
    run: Run[Rounds, Item],
    policy: policies.Policy,
    examples: Sequence[Edit],
    round_index: int,
    workdir: Path,
    name: str,
    *,
    consume: bool,
) -> policies.Policy:
    """Fine-tunes the policy on edits and merges the result into it.

    The delta is checkpointed: a later run merges it again instead of training it.
    `consume`: see `Policy.merged`.
    """
    cfg, directory = run.exp.imitate, workdir / "checkpoints" / name
    key = prng.take(prng.fold(run.key, [_STAGES[name]], [round_index]), 0)
    units = [UnitKey(name, "imitate", r) for r in range(1, round_index + 1)]
    if distributed.share(lambda: checkpoint.latest(directory) or 0) < round_index:
        phase = ladder_rows.round_name(round_index)
        run.say(f"{phase}: imitate {len(examples)} self-edits ({name})")
        begin = time.monotonic()
        pairs = [(policy.sequence(e.prompt), policy.encode(e.text)) for e in examples]
        steps = cfg.epochs * -(-len(pairs) // cfg.batch)
        with progress.progress(
            steps, f"{phase}: imitate", "steps", visible=distributed.leads()
        ) as tick:
            tuned = sft.train(
                policy.params,
                pairs,
                key,
                arch=policy.arch,
                cfg=cfg,
                eos=policy.eos,
                mesh=run.mesh,
                tick=tick,
            )
        meta = {
            "seconds": time.monotonic() - begin,
            "losses": tuned.losses,
            "trained_tokens": tuned.tokens,
            "computed_tokens": tuned.computed_tokens,
        }
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


def save_policy[Item](
    run: Run[Rounds, Item], policy: policies.Policy, workdir: Path, *, round_index: int
) -> None:
    """Writes the policy in Hugging Face format, once per round."""

    key = str(UnitKey("policy", "saved", round_index))
    run.journal.cached(key, lambda: policy.save(workdir / "policy"))
