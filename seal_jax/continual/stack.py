"""What many sequences have learned, side by side, over one base.

A sequence is an axis of the batch. What it has learned is a *stack*: deltas side by
side along the rank, one block for each step, over the one base that all sequences
share. With n blocks of rank r the sum of the blocks' A^T B is one delta of rank n r, so
nothing is lost against merging them into the weights.

Merged weights for each sequence would not do: 64 copies of a 7B model do not fit any
device, and the matmul with the base, which all tokens of all sequences now go through
together, would fall apart into 64. The stack is the cheaper one until
k r (D + F) > D F for k edits: of rank 32 on a 7B model that is 56 edits for q_proj and
14 for v_proj.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from seal_jax.continual import halves
from seal_jax.continual.settings import Stepped
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import trials
from seal_jax.runtime import meshes
from seal_jax.tasks import knowledge
from seal_jax.tasks.passage import Passage
from seal_jax.training import inner

type SteppedRun = trials.Run[Stepped, Passage]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every step of one arm needs.

    `generic`: token ids of texts on which the model shall not change, for "kl".
    `lengths`: how many passages each sequence learns in each step; none: one in each.
    `divided`: the halves, where they are not those that are drawn.
    """

    run: SteppedRun
    base: policies.Policy
    arm: str
    sequences: Sequence[Sequence[Passage]]
    probes: Sequence[Passage]
    generic: tuple[tuple[int, ...], ...]
    lengths: tuple[tuple[int, ...], ...] = ()
    divided: halves.AllHalves | None = None

    @property
    def exp(self) -> Stepped:
        return self.run.exp

    @property
    def controls(self) -> frozenset[str]:
        return self.exp.controls_of(self.arm)

    def upto(self, s: int, t: int) -> int:
        """Passages of sequence s that are learned in steps 1 to t."""
        return sum(self.lengths[s][:t]) if self.lengths else t

    @property
    def task(self) -> knowledge.Knowledge:
        assert isinstance(self.run.task, knowledge.Knowledge)
        return self.run.task

    @functools.cached_property
    def halves(self) -> halves.AllHalves:
        """Of each sequence's passages the questions that choose and that report."""
        if self.divided is not None:
            return self.divided

        def of(passage: Passage) -> halves.Halves:
            if self.exp.chooses:
                return halves.drawn(passage, seed=self.exp.seed)
            return halves.undivided(passage)

        return [[of(passage) for passage in sequence] for sequence in self.sequences]

    @functools.cached_property
    def choosing(self) -> list[list[Passage]]:
        """The sequences' passages with the questions that choose."""
        return [
            [half.chooses(p) for p, half in zip(sequence, parts, strict=True)]
            for sequence, parts in zip(self.sequences, self.halves, strict=True)
        ]

    @property
    def candidates(self) -> int:
        """Self-edits that are tried for a passage, of which one is committed."""
        return self.exp.candidates_of(self.arm)

    @property
    def empty(self) -> lora.Tree:
        """Stacks with room for all steps, nothing learned yet."""
        return meshes.put(self._zeros(self.exp.steps), self.run.mesh)

    @property
    def nothing(self) -> lora.Tree:
        """A block in which no sequence learns anything."""
        return meshes.put(self._zeros(1), self.run.mesh)

    @property
    def block(self) -> lora.Tree:
        """Shapes and dtypes of one step's block of every sequence."""
        return jax.eval_shape(lambda: self._zeros(1))

    def _zeros(self, steps: int) -> lora.Tree:
        arch, cfg = self.base.arch, self.exp.inner.lora
        return lora.empty(
            arch,
            targets=cfg.targets,
            rank=steps * cfg.rank,
            adapters=len(self.sequences),
            dtype=arch.dtype,
        )

    @property
    def engine(self) -> inner.EngineConfig:
        """The arm's inner loop, over the stacks that there are.

        Of logs there may be fewer than the config takes.
        """
        options = self.exp.engine_of(self.arm)
        if options.frozen_rows:
            options = dataclasses.replace(options, frozen_rows=len(self.sequences))
        return dataclasses.replace(self.run.inner, **dataclasses.asdict(options))

    def written(self, stack: lora.Tree, block: lora.Tree, t: int) -> lora.Tree:
        """The stacks after step t = 1, 2, ...: `block` in its place."""
        return _write(stack, block, (t - 1) * self.exp.inner.lora.rank)


_write = jax.jit(lora.write)
select = jax.jit(lora.select)


@jax.jit
def weakened(block: lora.Tree, scale_S: Array) -> lora.Tree:
    """Each sequence's block with B times its scale; zeros where that is 0.

    Zeros all through, so that a block that is not finite leaves nothing behind.
    """

    def scaled(leaf: Array, factor_S: Array) -> Array:
        shape = (len(factor_S), 1, 1)
        used = (scale_S > 0).reshape(shape)
        factor = factor_S.reshape(shape).astype(leaf.dtype)
        return jnp.where(used, leaf * factor, 0)

    ones_S = jnp.ones_like(scale_S)
    return lora.per_linear(
        block, lambda ab: {"a": scaled(ab["a"], ones_S), "b": scaled(ab["b"], scale_S)}
    )


@functools.partial(jax.jit, static_argnames="rank")
def kept_apart(stack: lora.Tree, *, rank: int) -> lora.Tree:
    """The blocks of all stacks as single adapters, and a block of zeros at the end.

    Block j of sequence s is adapter s n + j; the last one, s n, is the base.
    """

    def apart(leaf: Array) -> Array:
        rows = leaf.reshape(-1, rank, leaf.shape[-1])
        return jnp.pad(rows, ((0, 1), (0, 0), (0, 0)))

    return jax.tree.map(apart, stack)
