"""Fine-tuning of the policy on pairs and groups of edits: DPO, IPO, GRPO, RLOO.

The gradient of each of these losses is a sum over tokens, w_t * grad log p_t, in which
w_t is a number that the log-probabilities of the whole batch decide. So a step reads
the batch's rows once forward for their log-probabilities, forms the weights from them
(`outer_losses.weigh`), and is then the step of `imitate` on cross-entropies with those
weights. Lines are packed, cut into micro-batches and shared over a mesh as there, and
the two lines of a pair may be anywhere in a batch.

The reference is the policy without the adapter, read before the first step by the same
program: the adapter does nothing yet.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from seal_jax.models import decoder, float8_base, lora
from seal_jax.runtime import compiling, interrupts, meshes, prng
from seal_jax.training import imitate, outer_losses, sft_loss, sft_rows
from seal_jax.training.imitate import State
from seal_jax.training.outer_losses import Figures, Sides
from seal_jax.training.outer_rules import RULES
from seal_jax.training.settings import ImitateConfig


class Text(NamedTuple):
    """A prompt and its completion, as token ids.

    `cut`: it was not the policy that ended it, so no end-of-text is learned.
    """

    prompt: Sequence[int]
    completion: Sequence[int]
    cut: bool = False


class Example(NamedTuple):
    """What is trained together: the winner and the loser of a pair, or one edit.

    `advantage` is that of the one edit.
    """

    texts: tuple[Text, ...]
    advantage: float = 0.0


class Preferred(NamedTuple):
    """What `train` returns; as `imitate.TunedAdapter`, and each step's `figures`.

    `losses` are the rule's own, before each step. `tokens` counts the rows of a step
    once, however often they are read. `epoch`: steps of one.
    """

    delta: lora.Tree
    losses: list[float]
    tokens: int
    computed_tokens: int
    figures: dict[str, list[float]]
    epoch: int

    def last(self, name: str) -> list[float]:
        """A figure at the steps of the last epoch."""
        return self.figures[name][-self.epoch :]


@functools.partial(jax.jit, static_argnames=("arch", "cfg", "mesh"))
def log_probs(
    params: dict,
    delta: lora.Tree,
    rows: dict,
    count: Array | np.int32,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    mesh: Mesh | None = None,
) -> Array:
    """Of each target of the first `count` micro-batches `[N, B, T]`, float32.

    0 where a target has no weight. `delta` is as the optimizer has it.
    """
    params = float8_base.turned(params)
    scaled = lora.scaled(delta, cfg.lora.alpha / cfg.lora.rank)

    def read(i: Array, out_NBT: Array) -> Array:
        micro = meshes.split_rows(jax.tree.map(lambda leaf: leaf[i], rows), mesh)
        ce_BT = sft_loss.of_rows(params, scaled, micro, arch, frozen_head=True)
        log_p_BT = jnp.where(micro["weights"] > 0, -ce_BT, 0.0)
        return jax.lax.dynamic_update_index_in_dim(out_NBT, log_p_BT, i, 0)

    log_p_NBT = jnp.zeros(rows["weights"].shape, jnp.float32)
    log_p_NBT = jax.lax.fori_loop(0, count, read, log_p_NBT)
    if mesh is not None:
        whole = meshes.replicated(mesh)
        log_p_NBT = jax.lax.with_sharding_constraint(log_p_NBT, whole)
    return log_p_NBT


@functools.partial(
    jax.jit, static_argnames=("arch", "cfg", "mesh"), donate_argnames="state"
)
def train_step(
    params: dict,
    state: State,
    rows: dict,
    log_p_NBT: Array,
    reference_NBT: Array | np.ndarray,
    sides: Sides,
    count: Array | np.int32,
    each: Array | np.float32,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    mesh: Mesh | None = None,
) -> tuple[State, Figures]:
    """One optimizer step on the rule's loss; see `imitate.step`.

    `log_p_NBT` are the log-probabilities before it.
    """
    weights_NBT, figures = outer_losses.weigh(
        log_p_NBT, jnp.asarray(reference_NBT), rows, sides, cfg
    )
    weighed = {**rows, "weights": weights_NBT}
    state, _ = imitate.step(
        params,
        state,
        weighed,
        count,
        each,
        jnp.ones(()),
        arch=arch,
        cfg=cfg,
        mesh=mesh,
    )
    return state, figures


def train(
    params: dict,
    examples: Sequence[Example],
    key: Array,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    eos: int,
    mesh: Mesh | None = None,
    tick: Callable[[int], None] = lambda count: None,
) -> Preferred:
    """Trains a fresh adapter by `cfg.rule`, which has pairs or groups.

    Args:
      params, key, arch, eos, mesh, tick: as of `imitate.train`.
      examples: pairs, or edits with their advantages; `cfg.batch` of them a step.
      cfg: hyper-parameters.

    Raises:
      ValueError: no examples.
    """
    if not examples:
        raise ValueError(
            f"imitate.rule={cfg.rule!r} has nothing to learn from; lower "
            "imitate.prefer.margin, or use imitate.rule='best'"
        )
    data = _Lines.of(examples, cfg, eos=eos, shards=meshes.shards(mesh))
    state = meshes.put(imitate.begin(key, arch=arch, cfg=cfg), mesh)
    read = functools.partial(log_probs, params, arch=arch, cfg=cfg, mesh=mesh)
    reference_IT = data.read(
        lambda rows, count: read(state[0], *meshes.put((rows, count), mesh))
    )
    taken = imitate.batches(len(examples), cfg, key)
    steps = meshes.put(np.float32(1) / np.float32(len(taken)), mesh)
    found, tokens, computed = [], 0, 0
    for chosen in taken:
        interrupts.check()
        places, rows, sides, count = data.batch(chosen)
        tokens += sum(data.lines[i].positions for i in places)
        computed += int(count) * rows["tokens"][0].size
        reference_NBT = laid(reference_IT[places], rows)
        rows, reference_NBT, sides, count = meshes.put(
            (rows, reference_NBT, sides, count), mesh
        )
        state, figures = train_step(
            params,
            state,
            rows,
            read(state[0], rows, count),
            reference_NBT,
            sides,
            count,
            steps,
            arch=arch,
            cfg=cfg,
            mesh=mesh,
        )
        found.append(figures)
        # One step stays queued, so that the device never waits for this.
        jax.block_until_ready(found[-2:][0])
        tick(1)
    told = {name: [float(step[name]) for step in found] for name in found[0]}
    delta = imitate.applied(state[0], cfg)
    epoch = len(taken) // cfg.epochs
    return Preferred(delta, told["loss"], tokens, computed, told, epoch)


def expect(
    params: dict,
    positions: int,
    *,
    arch: decoder.Arch,
    cfg: ImitateConfig,
    eos: int,
    call: compiling.Call,
) -> None:
    """Calls the programs of `train`; as `imitate.expect`."""
    state = call(imitate.begin, prng.root(0), arch=arch, cfg=cfg)
    text = Text((eos,) * (positions - 1), (eos,))
    example = Example((text,) * RULES[cfg.rule].lines)
    data = _Lines.of([example], cfg, eos=eos, shards=1)
    _, rows, sides, count = data.batch([0])
    shape = {"arch": arch, "cfg": cfg, "mesh": None}
    log_p_NBT = call(log_probs, params, state[0], rows, count, **shape)
    reference_NBT, each = np.zeros_like(rows["weights"]), np.float32(1)
    given = (rows, log_p_NBT, reference_NBT, sides, count, each)
    call(train_step, params, state, *given, **shape)


def laid(values_IT: np.ndarray, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Values of a batch's lines, by position, where the lines lie in its rows."""
    inside = rows["segments"] >= 0
    found = values_IT[np.maximum(rows["segments"], 0), rows["positions"]]
    return np.where(inside, found, np.float32(0))


class _Lines(NamedTuple):
    """All lines of the examples, `each` of one side by side, and how they are cut."""

    lines: list[sft_rows.Line]
    advantages: list[float]
    each: int
    width: int
    cfg: ImitateConfig
    eos: int
    shards: int

    @classmethod
    def of(
        cls, examples: Sequence[Example], cfg: ImitateConfig, *, eos: int, shards: int
    ) -> "_Lines":
        lines, advantages = [], []
        for example in examples:
            for prompt, completion, cut in example.texts:
                ids, first = [*prompt, *completion], len(prompt)
                line = sft_rows.line(ids, first_target=first, eos=eos, cut=cut)
                lines.append(line)
                advantages.append(example.advantage)
        positions = [line.positions for line in lines]
        wide = imitate.width(positions, cfg.length_multiple)
        each = RULES[cfg.rule].lines
        return cls(lines, advantages, each, wide, cfg, eos, shards)

    def batch(
        self, chosen: Sequence[int]
    ) -> tuple[list[int], dict[str, np.ndarray], Sides, np.int32]:
        """The places of a batch's lines, their rows and sides, and the rows' count."""
        places = [i * self.each + j for i in chosen for j in range(self.each)]
        rows, count = self._rows(places)
        room = self.cfg.batch * self.each - len(places)
        tokens = [sum(self.lines[i].weights[1:]) for i in places]
        advantages = [self.advantages[i] for i in places]
        sides = Sides(
            np.array(advantages + [0.0] * room, np.float32),
            np.array(tokens + [0.0] * room, np.float32),
        )
        return places, rows, sides, count

    def read(self, fn: Callable[[dict, np.int32], Array]) -> np.ndarray:
        """What `fn` makes of rows `[N, B, T]`, line by line: `[I, T]`."""
        out_IT = np.zeros((len(self.lines), self.width), np.float32)
        step = self.cfg.batch * self.each
        for start in range(0, len(self.lines), step):
            interrupts.check()
            places = [*range(start, min(start + step, len(self.lines)))]
            rows, count = self._rows(places)
            found_NBT, at = np.asarray(fn(rows, count)), rows["segments"] >= 0
            line = start + rows["segments"][at]
            out_IT[line, rows["positions"][at]] = found_NBT[at]
        return out_IT

    def _rows(self, places: Sequence[int]) -> tuple[dict[str, np.ndarray], np.int32]:
        return imitate.micro_batches(
            [self.lines[i] for i in places],
            self.cfg,
            width=self.width,
            shards=self.shards,
            eos=self.eos,
            each=self.each,
        )
