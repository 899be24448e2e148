"""The programs that rounds will run, as far as the config and the items tell.

They are compiled beside the inner loop's, which takes as long as all of them together
(`compiling`). What is told is what each phase begins with: to how few rows its last
texts move is seen when they are there. A guess that does not come true costs a program
that nobody runs, and the right one is compiled when it is needed, as without a guess.
"""

from collections.abc import Sequence

import jax

from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import gold
from seal_jax.rounds.experiment import Rounds
from seal_jax.rounds.ladder_rows import BASE, IN_CONTEXT
from seal_jax.runtime import compiling
from seal_jax.tasks.base import Task
from seal_jax.training import imitate, prefer
from seal_jax.training.outer_rules import RULES


def expect[Item](
    exp: Rounds,
    blank: policies.Policy,
    task: Task[Item],
    train: Sequence[Sequence[Item]],
    heldout: Sequence[Item],
    call: compiling.Call,
) -> None:
    """Calls the programs of `loop.walk` in the order in which it comes to them.

    Args:
      exp: the experiment.
      blank: the base, without weights.
      task: what it is about; nothing is graded.
      train: items of each round.
      heldout: of the ladder.
      call: what compiles them.
    """
    policy, items = policies.shapes(blank), train[0]
    heldout = gold.measurable(task, heldout)
    arms = exp.ladder if heldout else ()
    shown = {BASE: task, IN_CONTEXT: task.in_view()}
    for name in (arm for arm in shown if arm in arms):
        _asked(policy, shown[name], heldout, exp, call)
    if any(task.fixed(arm, heldout[0]) is not None for arm in arms):
        _adapted(policy, task, heldout, exp, call)
    counts = exp.select.written(exp.scale.edits), exp.scale.heldout_edits
    for group, count in zip((items, heldout), counts, strict=True):
        written = [[task.propose_prompt(item)] * count for item in group]
        policies.expect(policy, None, written, task.writing, call=call)
    prompts = [task.propose_prompt(item) for item in items]
    policies.expect_surprise(policy, prompts, task.writing, call=call)
    if exp.select.trains:
        _adapted(policy, task, items, exp, call)
    _asked(policy, task, items, exp, call)
    # Last: it takes longest, and a config that cannot run is not to wait for it.
    lengths = [len(policy.sequence(task.propose_prompt(item))) for item in items]
    # One of the edits goes on to its end, more likely than not.
    longest = max(lengths) + task.writing.max_tokens
    weighed = RULES[exp.imitate.rule].weighed
    tuning = prefer.expect if weighed else imitate.expect
    tuning(
        policy.params,
        longest,
        arch=policy.arch,
        cfg=exp.imitate.by_rule,
        eos=policy.eos,
        call=call,
    )


def _asked[Item](
    policy: policies.Policy,
    task: Task[Item],
    items: Sequence[Item],
    exp: Rounds,
    call: compiling.Call,
) -> None:
    """Answers without an adapter (`trials.base_answers`)."""
    prompts = [task.prompts(item) for item in items]
    policies.expect(policy, None, prompts, exp.answer, room=task.room, call=call)


def _adapted[Item](
    policy: policies.Policy,
    task: Task[Item],
    items: Sequence[Item],
    exp: Rounds,
    call: compiling.Call,
) -> None:
    """Answers under the adapters of a pool (`trials.adapt_and_answer`)."""
    inner = exp.inner
    pool = inner.pool or exp.adapters

    def like() -> lora.Tree:
        return lora.empty(
            policy.arch,
            targets=inner.lora.targets,
            rank=inner.lora.rank,
            adapters=pool,
            dtype=policy.arch.dtype,
        )

    asked = [task.prompts(item) for item in items]
    # The longest of all is in some pool; that of another may be shorter.
    asked.sort(key=lambda prompts: -max(map(len, prompts), default=0))
    adapters = jax.eval_shape(like)
    policies.expect(policy, adapters, asked[:pool], exp.answer, call=call)
