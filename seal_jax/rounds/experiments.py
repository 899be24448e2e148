"""Whole experiments as one program: rounds, control and ladder, for many seeds.

Each seed is a scan over its rounds (`on_device.round_step`); every policy that it came
to, and every fixed arm, is then measured on the held-out passages. Seeds are mapped
over: `together` of them side by side, or all, spread over a mesh.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from seal_jax.rounds import on_device
from seal_jax.rounds.on_device import (
    Edits,
    Inputs,
    RoundConfig,
    State,
    Surprise,
    Trials,
)
from seal_jax.rounds.token_steps import Text
from seal_jax.runtime import meshes


class Plan(NamedTuple):
    """What one seed reads. A leading axis more for many.

    `rounds` and `control`, leaves `[rounds, ...]`, are of the training passages, the
    latter with the control's draws, or None; `heldout` of those held out. `fixed` has
    the edits of arms that no policy writes, ids `[arms, P, N]`.
    """

    rounds: Inputs
    control: Inputs | None
    heldout: Inputs
    fixed: Text


class Rows(NamedTuple):
    """The ladder on the held-out passages, leaves `[rows, P, ...]`.

    The rows: fixed arms, the base policy, the control if there is one, then the policy
    after each round. `base_right_P` and `base_empty_P` are without an adapter.
    """

    trials: Trials
    refused_PE: Any
    base_right_P: Any
    base_empty_P: Any


class Round(NamedTuple):
    """Numbers of a round, leaves `[rounds, ...]`; see `on_device.Metrics`."""

    edits: Edits
    surprise: Surprise
    trials: Trials
    baseline_P: Any
    kept_PK: Any
    losses: Any


class Outcome(NamedTuple):
    """What an experiment comes to; `control_kept_PK` is None without a control."""

    rows: Rows
    rounds: Round
    control_kept_PK: Any


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """`round` is made for the training passages, `heldout` for those held out."""

    round: RoundConfig
    heldout: RoundConfig


def experiment(base: State, plan: Plan, *, cfg: ExperimentConfig) -> Outcome:
    """One seed, from the base policy to the last row of the ladder."""

    def step(state: State, inputs: Inputs) -> tuple[State, tuple[State, Round]]:
        state, done = on_device.round_step(state, inputs, cfg=cfg.round)
        line = Round(
            done.edits,
            done.surprise,
            done.trials,
            done.baseline_P,
            done.kept_PK,
            done.losses,
        )
        return state, (state, line)

    _, (after, rounds) = jax.lax.scan(step, base, plan.rounds)
    writers, control_kept = [jax.tree.map(lambda x: x[None], base)], None
    if plan.control is not None:
        random_step = functools.partial(on_device.random_step, cfg=cfg.round)
        last, control_kept = jax.lax.scan(random_step, base, plan.control)
        writers.append(jax.tree.map(lambda x: x[None], last))
    writers = _joined(*writers, after)
    rows = ladder(base, writers, plan.heldout, plan.fixed, cfg=cfg.heldout)
    return Outcome(rows, rounds, control_kept)


def ladder(
    base: State, writers: State, inputs: Inputs, fixed: Text, *, cfg: RoundConfig
) -> Rows:
    """Fixed arms on the base, and what each of the writers writes, on itself or base.

    As in `ladder.row`: a policy after a round is adapted itself.
    """
    written = jax.lax.map(lambda state: on_device.propose(state, inputs, cfg), writers)
    arms, passages = fixed.size.shape
    of_arms = jax.tree.map(
        lambda x: jnp.repeat(x[:, :, None], cfg.edits, axis=2), fixed
    )
    # Nothing that no policy wrote is refused.
    never = jnp.zeros((arms, passages, cfg.edits), bool)
    edits = _joined(Edits(of_arms, never), written)
    on_base = jax.tree.map(lambda x: jnp.broadcast_to(x, (arms, *x.shape)), base)

    def row(at: tuple[State, Edits]) -> Trials:
        state, edits = at
        adapted = on_device.adapt(state, edits, inputs, cfg)
        return on_device.answer_and_grade(state, adapted, edits, inputs, cfg)

    tried = jax.lax.map(row, (_joined(on_base, writers), edits))
    right_P, empty_P = on_device.without_adapter(base, inputs, cfg)
    return Rows(tried, edits.refused_PE, right_P, empty_P)


def _joined[Tree](*trees: Tree) -> Tree:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)


@functools.partial(jax.jit, static_argnames=("cfg", "together", "mesh"))
def experiments(
    base: State,
    plans: Plan,
    *,
    cfg: ExperimentConfig,
    together: int = 1,
    mesh: Mesh | None = None,
) -> Outcome:
    """Many seeds in one call, leaves `[seeds, ...]`.

    Args:
      base: the policy that all begin with.
      plans: of the seeds; on a mesh, cut over `data` on their leading axis.
      cfg: what it is compiled for.
      together: seeds that are computed side by side; the others wait.
      mesh: devices that share the seeds, all side by side, or None for one.
    """

    def one(plan: Plan) -> Outcome:
        return experiment(base, plan, cfg=cfg)

    if mesh is None:
        return jax.lax.map(one, plans, batch_size=together if together > 1 else None)
    return meshes.split_rows(jax.vmap(one)(meshes.split_rows(plans, mesh)), mesh)
