"""The plan on a mesh: each process lays out what its own devices train.

Shards have plans of their own, but all run the same number of blocks: a shard that is
done idles. How many those are a process learns from the others, which costs a schedule
of lengths beforehand and one exchange; no process lays tokens of another's shards.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from seal_jax.runtime import distributed, meshes
from seal_jax.training import plan, plan_arrays
from seal_jax.training.inner import EngineConfig
from seal_jax.training.plan_arrays import Block

type Blocks = Mapping[int, Block]


def blocks(
    jobs: Sequence[plan.Job],
    shares: Sequence[Sequence[int]],
    cfg: EngineConfig,
    *,
    eos: int,
    mesh: Mesh | None,
    frozen_of: Sequence[int],
    shelved: Sequence[Sequence[int]] | None = None,
    short: plan.PlanConfig | None = None,
) -> Iterator[Blocks]:
    """The next block of each shard that has a device in this process, by shard.

    Args:
      jobs: of all shards.
      shares: the indices of each shard's.
      cfg: sizes, and what else there is in a plan.
      eos: end-of-text id.
      mesh: the devices, or None for one.
      frozen_of: each job's row of the frozen stacks, or of what else its caller has a
        row of for it; empty: there are none.
      shelved: where each job's teachers begin in its shard's bank; None: there is none.
      short: sizes of the last steps, if those may be shorter; without a mesh alone,
        whose shards would come to them at different times.

    Raises:
      ValueError: see `plan_arrays.blocks`.
    """
    own = meshes.own_shards(mesh)
    mine = {shard: [jobs[j] for j in shares[shard]] for shard in own}
    laid = [
        plan_arrays.blocks(
            mine[shard],
            cfg.plan,
            eos=eos,
            frozen_of=[frozen_of[j] for j in shares[shard]] if frozen_of else None,
            anchored=cfg.divergence,
            shelved=None if shelved is None else [shelved[j] for j in shares[shard]],
            short=short if mesh is None else None,
        )
        for shard in own
    ]
    idle = idle_block(cfg, eos=eos, rows=bool(frozen_of))
    # Of all that there are this process knows the end by itself.
    least = 0
    if len(own) < len(shares):
        here = max(plan_arrays.count_blocks(each, cfg.plan) for each in mine.values())
        least = max(distributed.everyone(here))
    for i in itertools.count():
        row = [next(each, None) for each in laid]
        if i >= least and all(block is None for block in row):
            return
        yield {s: b or idle for s, b in zip(own, row, strict=True)}


def idle_block(cfg: EngineConfig, *, eos: int, rows: bool = False) -> Block:
    """A block in which nobody trains anything; `rows`: the others have `frozen_of`."""
    extras = plan_arrays.empty_extras(
        cfg.plan,
        anchored=cfg.divergence,
        frozen=rows or cfg.frozen_rank > 0,
        taught=bool(cfg.teach),
    )
    return Block(plan_arrays.empty_steps(cfg.plan, eos=eos), 0, 0, 0, extras)


def put(of_shards: Blocks, mesh: Mesh | None) -> tuple:
    """Steps, how many of them to run, and extras: each shard's on its devices."""
    parts = {
        shard: (block.steps, np.array([block.length], np.int32), block.extras)
        for shard, block in of_shards.items()
    }
    return meshes.put_shards(parts, mesh)


class Totals:
    """What was laid: positions with loss, updates, global steps, all positions."""

    def __init__(self, mesh: Mesh | None):
        # A shard may have devices of two processes: the first one's counts.
        self._counted = meshes.own_shards(mesh, first=True)
        self._sums = [0, 0, 0, 0]

    def add(self, of_shards: Blocks) -> None:
        for shard in self._counted:
            block = of_shards[shard]
            computed = block.length * block.step_tokens
            counts = block.tokens, block.updates, block.length, computed
            for i, n in enumerate(counts):
                self._sums[i] += n

    def of_all(self) -> tuple[int, int, int, int]:
        """Over all shards, whosever they are; all processes must come here."""
        tokens, updates, steps, computed = map(
            sum, zip(*distributed.everyone(self._sums), strict=True)
        )
        return tokens, updates, steps, computed
