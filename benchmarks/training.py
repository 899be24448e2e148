"""What inner_loop.py and scaling.py train: models, adapters and their flags."""

import argparse
import dataclasses
from collections.abc import Sequence

import common
import jax
import workload

from seal_jax.models import decoder, hf_config
from seal_jax.runtime import command_line
from seal_jax.training import inner, plan
from seal_jax.training.settings import MASKED, REFERENCE, LossConfig, PlanConfig

SEED = 0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is trained, and how the packed engine lays it out."""

    epochs: int
    loss: LossConfig
    targets: tuple[str, ...]
    rank: int
    tile: int
    row_tokens: int
    step_tokens: int
    slots: int
    active: int

    def inner(self, *, pool: int) -> inner.EngineConfig:
        """The engine's sizes; alpha is twice the rank, as in the reference."""
        layout = PlanConfig(
            self.tile, self.row_tokens, self.step_tokens, self.slots, self.active
        )
        return inner.EngineConfig(
            self.targets, self.rank, 2.0 * self.rank, layout, pool=pool
        )

    def jobs(self, lengths: Sequence[Sequence[int]], *, vocab: int) -> list[plan.Job]:
        """A job for each list of line lengths, of random tokens."""
        return [
            plan.Job(
                tuple(map(tuple, workload.token_ids(job, vocab=vocab, seed=number))),
                seed=(SEED, number),
                epochs=self.epochs,
                learning_rate=1e-3,
                clip=1.0,
                loss=self.loss,
            )
            for number, job in enumerate(lengths)
        ]


def lengths(
    adapters: int, *, scale: float = 1.0, longest: int | None = None
) -> list[list[int]]:
    """Line lengths of so many adapters, in the workload's order."""
    whole = workload.load()
    seeds = 1 if adapters <= len(whole.edits()) else workload.SEEDS
    jobs = whole.jobs(seeds, scale=scale, longest=longest)
    return [jobs[i] for i in sorted(workload.spread(jobs, adapters))]


def arch_of(shape: common.Shape, *, dtype: str, kernel: str) -> decoder.Arch:
    """The decoder of a named shape."""
    parsed = hf_config.parse(shape.config(), dtype=dtype)
    return dataclasses.replace(parsed, kernel=kernel)


# Flags


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `Sizes` and of the model."""
    add = parser.add_argument
    add("--shape", default="small", help=f"{', '.join(common.SHAPES)}, or NAME,FIELD=N")
    add("--dtype", default="float32", help="of the base: float32 or bfloat16")
    add("--kernel", default="auto", help="implementation of the low-rank matmul")
    add("--epochs", type=command_line.FEW, default=workload.EPOCHS)
    add("--rank", type=command_line.FEW, default=32)
    add("--targets", default="q_proj,v_proj", help="separated by commas")
    add(
        "--loss",
        choices=(MASKED, REFERENCE),
        default=MASKED,
    )
    add(
        "--pad-to",
        type=command_line.COUNT,
        default=2048,
        help="of the reference loss, and of PEFT",
    )
    add(
        "--pad-samples",
        type=command_line.whole(-1, 65_536),
        default=8,
        help="of the reference loss",
    )
    add("--tile", type=command_line.FEW, default=16)
    add(
        "--row-tokens",
        type=command_line.COUNT,
        default=400,
        help="the longest line has 387",
    )
    add(
        "--step-tokens", type=command_line.COUNT, help="default five rows, on a CPU one"
    )
    add("--slots", type=command_line.COUNT, help="default one for 16 tokens of a step")
    add("--active", type=command_line.COUNT, help="default half of the slots")


def sizes_of(args: argparse.Namespace) -> Sizes:
    """What the flags say; defaults that depend on others are written into `args`.

    Raises:
      ValueError: sizes that do not go together, or an unknown target.
    """
    if args.step_tokens is None:
        rows = 1 if jax.default_backend() == "cpu" else 5
        args.step_tokens = rows * args.row_tokens
    if args.slots is None:
        args.slots = max(1, args.step_tokens // 16)
    if args.active is None:
        args.active = max(1, args.slots // 2)
    targets = tuple(args.targets.split(","))
    known = common.shape(args.shape).linears()
    if not set(targets) <= set(known):
        raise ValueError(f"--targets={args.targets} must be of {', '.join(known)}")
    names = [field.name for field in dataclasses.fields(Sizes)]
    given = {name: getattr(args, name) for name in names}
    loss = LossConfig(args.loss, args.pad_to, args.pad_samples)
    return Sizes(**(given | {"loss": loss, "targets": targets}))


def arch_from(args: argparse.Namespace) -> decoder.Arch:
    """The decoder that the flags name."""
    shape = common.shape(args.shape)
    return arch_of(shape, dtype=args.dtype, kernel=args.kernel)
