"""The programs that train, at real sizes: a global step, and a step of imitation."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import arc_task
import hlo_cost
import jax
import jax.numpy as jnp
import matmul_flop
import round_task
from aot_common import Program, attending, like, trained

from seal_jax.models import cross_entropy, decoder
from seal_jax.training import capacity, imitate, influence, inner, packed
from seal_jax.training.settings import ImitateConfig

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# Loops of `packed.run_block`: its steps, the adapters that begin or end in one, and the
# chunks of tokens that need the head.
STEPS, TURNOVER = r"run_block\)/while$", r"run_block\)/while/body/while$"
# Places of adapters that have several, but for the first of each (no kernels for CUDA).
FOLDS = r"run_block\)/while/body/fold/while$"
HEAD_CHUNKS = r"run_block\)/while/body/jvp\(\)/while$"


def packed_step(
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
    *,
    turnover: float,
    head_chunks: float,
    span: float,
    adapters: float,
    lines: float = 1.0,
) -> Program:
    """A global step, as its kernels on a GPU would have it.

    Args:
      arch: the decoder.
      cfg: the inner loop.
      turnover: adapters that begin in a step and end, on the mean.
      head_chunks: chunks of `head_chunk` tokens that carry loss.
      span: keys before a query in its line, on the mean.
      adapters: that have lines in a step, on the mean, and how many each.
    """
    sizes = cfg.plan
    rows = sizes.step_tokens // sizes.row_tokens
    attended = attending(arch, rows, sizes.row_tokens, span)
    multiplied = trained(arch, cfg, adapters, lines)
    # Logits of line and teacher, and a slope.
    head_tokens = head_chunks * head_chunk(arch, cfg)
    taught = 6 * head_tokens * arch.width * arch.vocab if cfg.teach else 0
    return Program(
        run=functools.partial(packed.run_block, arch=arch, cfg=cfg),
        args=packed.arguments(arch, cfg),
        donated=(1,),
        options=packed.GPU_OPTIONS,
        per="global step",
        flop=matmul_flop.training(
            arch,
            tokens=sizes.step_tokens,
            head_tokens=head_tokens,
            pairs=0,
            rank=0,  # Kernels that count for themselves.
            targets=cfg.targets,
        )
        + taught,
        arch=arch,
        tokens=sizes.step_tokens,
        told=hlo_cost.Told(
            foreign={**attended.foreign, **multiplied.foreign},
            loops={TURNOVER: turnover, STEPS: 1, HEAD_CHUNKS: head_chunks},
        ),
        base_flop=2 * matmul_flop.linears(arch, sizes.step_tokens)
        - matmul_flop.unused_slopes(arch, sizes.step_tokens, 0, 0, cfg.targets),
    )


# Loop of `influence.run_block` over the places of a step.
PLACES = r"run_block\)/while/body/while$"


def influence_step(
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
    *,
    targets: int,
    most: int,
    head_chunks: float,
    span: float,
) -> Program:
    """A global step that reads texts, or targets, all of its places in use.

    `targets` and `most` are as of `influence.sizes`, the rest as of `packed_step`.
    """
    sizes = cfg.plan
    attended = attending(
        arch, sizes.step_tokens // sizes.row_tokens, sizes.row_tokens, span
    )
    multiplied = trained(arch, cfg, sizes.places)
    size = influence.sizes(cfg, targets=targets, most=most)
    return Program(
        run=functools.partial(influence.run_block, arch=arch, cfg=cfg),
        args=influence.arguments(arch, cfg, None, size),
        donated=(1,),
        options=packed.GPU_OPTIONS,
        per="global step",
        flop=matmul_flop.training(
            arch,
            tokens=sizes.step_tokens,
            head_tokens=head_chunks * head_chunk(arch, cfg),
            pairs=0,
            rank=0,  # Kernels that count for themselves.
            targets=cfg.targets,
        ),
        arch=arch,
        tokens=sizes.step_tokens,
        told=hlo_cost.Told(
            foreign={**attended.foreign, **multiplied.foreign},
            loops={PLACES: sizes.places, STEPS: 1, HEAD_CHUNKS: head_chunks},
        ),
    )


def head_chunk(arch: decoder.Arch, cfg: inner.EngineConfig) -> int:
    """Tokens whose logits are formed at a time."""
    most = min(cross_entropy.SKIPPED, cross_entropy.CHUNK // arch.vocab)
    return cross_entropy._chunk(cfg.plan.step_tokens, most)


# What adapters on all seven projections change in configs/squad.py.
ALL_SEVEN = {
    "inner.lora.targets": ALL,
    "inner.step_tokens": 2048,
    "inner.pool": 375,
}


def squad_engine(changes: Mapping[str, Any]) -> inner.EngineConfig:
    """The inner loop of configs/squad.py, with some of its values changed."""
    exp = round_task.settings(changes)
    adapters = exp.scale.passages * exp.scale.edits * exp.scale.seeds
    tokens = exp.inner.step_tokens or capacity.STEP_TOKENS
    return capacity.build(
        exp.inner, step_tokens=tokens, adapters=adapters, by_slot=True
    )


def continual_engine() -> inner.EngineConfig:
    """That of configs/continual.py, at the last of 8 edits of 64 sequences."""
    cfg = squad_engine({})
    return dataclasses.replace(cfg, frozen_rank=7 * cfg.rank, frozen_rows=64, pool=64)


def taught_engine() -> inner.EngineConfig:
    """That of configs/squad.py where lines have teachers: 512 targets an adapter."""
    return dataclasses.replace(squad_engine({}), teach="reverse", bank=512)


def arc_engine() -> inner.EngineConfig:
    """The inner loop of configs/arc.py."""
    exp = arc_task.settings({})
    tokens = exp.inner.step_tokens or exp.lines_per_step * exp.inner.row_tokens
    return capacity.build(
        exp.inner, step_tokens=tokens, adapters=exp.scale.adapters, by_slot=True
    )


# The loop of `imitate.train_step`.
MICRO_BATCHES = r"train_step\)/while$"


def imitation(
    arch: decoder.Arch,
    cfg: ImitateConfig,
    *,
    width: int,
    micro_batches: float,
    span: float,
) -> Program:
    """An optimizer step on so many micro-batches of rows `width` wide.

    `span` keys are before a query in its line, on the mean.
    """
    shape = (-(-cfg.batch // cfg.micro_batch), cfg.micro_batch, width)

    def args():
        state = imitate.begin(jax.random.key(0), arch=arch, cfg=cfg)
        integers = ("tokens", "targets", "positions", "segments")
        rows = {name: jnp.zeros(shape, jnp.int32) for name in integers}
        rows["weights"] = jnp.zeros(shape)
        params = decoder.init_params(jax.random.key(0), arch)
        return params, state, rows, jnp.int32(0), jnp.float32(0)

    tokens = cfg.micro_batch * width
    return Program(
        run=functools.partial(imitate.train_step.__wrapped__, arch=arch, cfg=cfg),
        args=like(args),
        donated=(1,),
        per="optimizer step",
        flop=micro_batches
        * matmul_flop.training(
            arch,
            tokens=tokens,
            head_tokens=tokens,
            pairs=0,
            rank=cfg.lora.rank,
            targets=cfg.lora.targets,
        ),
        arch=arch,
        tokens=tokens,
        told=dataclasses.replace(
            attending(arch, cfg.micro_batch, width, span),
            loops={MICRO_BATCHES: micro_batches},
        ),
    )


def squad_imitation(arch: decoder.Arch) -> Program:
    """The published round's pairs have up to 1,921 tokens; a step has 2.8 rows."""
    cfg = round_task.settings({}).imitate
    return imitation(arch, cfg, width=2048, micro_batches=2.8, span=343)


def arc_imitation(arch: decoder.Arch) -> Program:
    """The round's pairs have up to 1,144 tokens; a step of five has 2.3 rows."""
    cfg = arc_task.settings({}).imitate
    return imitation(arch, cfg, width=2048, micro_batches=2.3, span=355)
