"""The draws that the host makes for a round in one program: orders and ties, as tables.

Shuffles are numpy's and Python's own, and depend on how many lines an edit has, how
many edits were kept, or how many may be: numbers that only the device comes to know. So
each table has a row for every number that can be, and a program that looks its own up
does what the host-driven round does. No jax.
"""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seal_jax.training import plan
from seal_jax.training.settings import MASKED, ImitateConfig, InnerConfig, LossConfig


class Draws(NamedTuple):
    """Of one round on P items of E edits and S seeds.

    `orders`: uint8 `[P, E, S, L, steps]`, which line each step of an adapter with
    l + 1 lines trains. `ranks`: `[P, E]`, which edit comes first of equals. `batches`:
    int32 `[K + 1, steps, batch]`, which of n kept edits each step of imitation takes,
    -1 behind them. `chosen`: `[P, E + 1, k_best]`, which of n edits that may be kept
    are, where a random one is; -1 behind them.
    """

    orders: Any
    ranks: Any
    batches: Any
    chosen: Any


def orders(
    cfg: InnerConfig, seeds: Sequence[tuple[int, ...]], *, lines: int
) -> np.ndarray:
    """The training order of an adapter of each seed, for 1 to `lines` lines.

    Returns:
      uint8 `[A, lines, lines * epochs]`; zeros behind an adapter's last step.
    """
    out = np.zeros((len(seeds), lines, lines * cfg.epochs), np.uint8)
    for row, seed in zip(out, seeds, strict=True):
        for count in range(1, lines + 1):
            # As `plan.Job` draws them; a job itself would be checked each time.
            rng = np.random.default_rng(seed)
            for epoch in range(cfg.epochs):
                here = slice(epoch * count, (epoch + 1) * count)
                row[count - 1, here] = rng.permutation(count)
    return out


def rates(cfg: InnerConfig, *, lines: int) -> np.ndarray:
    """Learning rates of adapters of 1 to `lines` lines, float32 `[lines, steps]`."""
    out = np.zeros((lines, lines * cfg.epochs), np.float32)
    plain = LossConfig(MASKED, cfg.loss.pad_to, 0)
    for count in range(1, lines + 1):
        job = plan.Job(
            ((0,),) * count,
            (0,),
            epochs=cfg.epochs,
            learning_rate=cfg.learning_rate,
            clip=cfg.clip,
            loss=plain,
        )
        out[count - 1, : job.total] = job.rates()
    return out


def batches(cfg: ImitateConfig, key_data: Sequence[int], *, most: int) -> np.ndarray:
    """What `imitate.train` with that key trains at each step, for 0 to `most` edits."""
    per_epoch = -(-most // cfg.batch)
    out = np.full((most + 1, per_epoch * cfg.epochs, cfg.batch), -1, np.int32)
    for count in range(1, most + 1):
        rng, step = np.random.default_rng(key_data), 0
        for _ in range(cfg.epochs):
            order = rng.permutation(count)
            for start in range(0, count, cfg.batch):
                taken = order[start : start + cfg.batch]
                out[count, step, : len(taken)] = taken
                step += 1
    return out


def ranks(ties: str, seeds: Sequence[str], *, edits: int) -> np.ndarray:
    """The place of each edit among equals, int32 `[P, edits]`; see `select.best`."""
    out = np.tile(np.arange(edits, dtype=np.int32), (len(seeds), 1))
    if ties == "random":
        for row, seed in zip(out, seeds, strict=True):
            order = list(range(edits))
            random.Random(seed).shuffle(order)
            row[order] = np.arange(edits)
    return out


def chosen(seeds: Sequence[str], *, edits: int, k_best: int) -> np.ndarray:
    """Which of n edits are kept at random, int32 `[P, edits + 1, k_best]`, by n."""
    out = np.full((len(seeds), edits + 1, k_best), -1, np.int32)
    for row, seed in zip(out, seeds, strict=True):
        for count in range(1, edits + 1):
            taken = random.Random(seed).sample(range(count), min(k_best, count))
            row[count, : len(taken)] = taken
    return out
