"""Training many adapters, one for each text; the engine does the work."""

import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Unpack

import jax
import numpy as np

from seal_jax.api import lines, settings, sizes
from seal_jax.api.adapters import Adapter, Adapters
from seal_jax.api.lines import Text
from seal_jax.api.models import Model, check_model
from seal_jax.api.settings import TrainOptions, TrainSettings
from seal_jax.models import decoder, lora
from seal_jax.rounds import pools
from seal_jax.runtime import prng
from seal_jax.runtime.config_rules import shown
from seal_jax.training import plan
from seal_jax.training.settings import MASKED, LossConfig

# One end-of-text ends a line; the loss is the mean over a step's targets.
_LOSS = LossConfig(mode=MASKED, pad_to=2, pad_samples=0)


def train_adapters(
    model: Model, texts: Sequence[Text], **options: Unpack[TrainOptions]
) -> Adapters:
    """Trains one LoRA adapter for each text, packed, on all devices of the model.

    An adapter depends on its own text, the settings and the seed: not on the other
    texts, its place, or how many train at a time, but for rounding. The optimizer is
    AdamW without weight decay (betas 0.9 and 0.999).

    Args:
      model: what `load` gave.
      texts: A entries, each a text, a (prompt, completion) tuple, of which only the
        completion carries loss, or a list of such lines.
      rank: of the adapters; 16.
      targets: names of linears, ("q_proj", "v_proj"), or "all".
      alpha: the scale is alpha / rank; twice the rank.
      learning_rate: at its highest; 1e-3.
      epochs: times that each line is trained; 10.
      batch: lines of an optimizer step; 1.
      warmup: steps over which the rate climbs from zero; 0.
      schedule: by which it falls to zero over the rest, "linear" or "cosine".
      clip: bound on the norm of an adapter's gradient; 1.0.
      seed: of fresh adapters, and of the shuffles of lines; 0.
      pool: adapters held on a device at a time; 0, what fits.
      progress: whether to show a progress bar, on standard error; True.

    Returns:
      A adapters, in the order of the texts, in the host's memory.

    Raises:
      ValueError: in one line, before anything is trained: texts that are none, blank
        or too long, an unknown target or keyword, a setting out of its bounds, or sizes
        that no device here holds.
    """
    parts = _pools(model, texts, options, "train_adapters")
    count, tree = len(texts), {}
    losses, finite = np.zeros(count, np.float32), np.zeros(count, bool)
    for part in parts:
        if not tree:
            tree = jax.tree.map(
                lambda leaf: np.empty((count, *leaf.shape[1:]), leaf.dtype), part.tree
            )
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(part.tree), strict=True)
        for whole, own in pairs:
            whole[part.rows] = own
        losses[part.rows], finite[part.rows] = part.losses, part.finite
    return Adapters(tree, model.base, losses, finite)


def iter_adapters(
    model: Model, texts: Sequence[Text], **options: Unpack[TrainOptions]
) -> Iterator[tuple[int, Adapter]]:
    """As `train_adapters`, but gives each adapter as soon as its pool is finished.

    The next pool trains when the last adapter of the one before has been taken. Those
    with most steps come first.

    Args:
      model, texts, options: of `train_adapters`.

    Yields:
      the index of a text, and its adapter.

    Raises:
      ValueError: as `train_adapters`, at the call.
    """
    return _one_by_one(_pools(model, texts, options, "iter_adapters"), model)


class _Finished(NamedTuple):
    """A pool's adapters on the host; `rows` are their texts' numbers."""

    rows: np.ndarray
    tree: lora.Tree
    losses: np.ndarray
    finite: np.ndarray


def _one_by_one(
    parts: Iterator[_Finished], model: Model
) -> Iterator[tuple[int, Adapter]]:
    for part in parts:
        for a, row in enumerate(part.rows):
            # A copy, or it would keep its whole pool in memory.
            tree = jax.tree.map(np.copy, lora.select(part.tree, a))
            loss, finite = float(part.losses[a]), bool(part.finite[a])
            yield int(row), Adapter(tree, model.base, loss, finite)


def _pools(
    model: Model, texts: Sequence[Text], options: TrainOptions, call: str
) -> Iterator[_Finished]:
    """Checks everything and sizes the engine; the iterator trains."""
    check_model(call, model)
    policy = model.policy
    if options.get("targets") == settings.ALL:
        options = {**options, "targets": tuple(policy.arch.linears())}
    chosen = settings.build(TrainSettings, call, options)
    _check_lora(policy.arch, chosen, call)
    laid = lines.encode(policy, texts)
    jobs = [_job(text, chosen) for text in laid]
    order = pools.longest_first([job.total for job in jobs])
    work = pools.Work([jobs[i] for i in order], [laid[i].words() for i in order])
    trained = pools.each(
        *(policy, work, _Passing()),
        key=prng.root(chosen.seed),
        cfg=sizes.training(policy.arch, chosen, jobs, model.mesh),
        mesh=model.mesh,
        title="train",
        say=lambda line: None,
        visible=chosen.progress,
    )
    return (part._replace(rows=np.array(order)[part.rows]) for part in trained)


def _job(text: lines.Lines, chosen: TrainSettings) -> plan.Job:
    return plan.Job(
        text.ids,
        (chosen.seed, *text.words()),
        epochs=chosen.epochs,
        learning_rate=chosen.learning_rate,
        clip=chosen.clip,
        loss=_LOSS,
        batch=chosen.batch,
        given=text.given,
        warmup=chosen.warmup,
        schedule=chosen.schedule,
    )


def _check_lora(arch: decoder.Arch, chosen: TrainSettings, call: str) -> None:
    """Refuses what the model cannot carry, with the nearest name that it has."""
    known = list(arch.linears())
    for name in chosen.targets:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"targets={shown(chosen.targets)}: the model has no linear {name!r:.60}"
                f"; {hint}use some of {', '.join(known)}, or {settings.ALL!r}"
            )
    lora.check(arch, targets=chosen.targets, rank=chosen.rank, name=call)


class _Passing:
    """A store that keeps a pool until it is asked for, and on the host."""

    def __init__(self):
        self._held: dict[int, _Finished] = {}

    def __contains__(self, index: int) -> bool:
        return index in self._held

    def put(self, index: int, pool: pools.Pool) -> None:
        count = len(pool.rows)
        trained = pool.trained
        self._held[index] = _Finished(
            np.array(pool.rows),
            jax.tree.map(lambda leaf: np.asarray(leaf)[:count], trained.adapters),
            trained.loss_A[:count],
            trained.finite_A[:count],
        )

    def get(self, index: int, rows: range) -> _Finished:
        del rows
        return self._held.pop(index)
