"""Training in waves: slots of adapters that go on where an earlier wave left them.

Between two waves there is room to sample from the adapters, or to choose other lines.
A slot holds all that training knows of an adapter: the adapter in float32, Adam's
moments, how many steps it took, and the sum of its losses.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from seal_jax.models import decoder, lora
from seal_jax.runtime import meshes
from seal_jax.training import inner, plan
from seal_jax.training.inner import EngineConfig, Slot


def check(
    start: Slot | None,
    jobs: Sequence[plan.Job],
    arch: decoder.Arch,
    cfg: EngineConfig,
) -> None:
    """Refuses slots that the jobs cannot go on from.

    Raises:
      ValueError: no slots for jobs that are not at their beginning, slots that are not
        kept, too few, or of another shape.
    """
    if start is None:
        late = [job.span for job in jobs if job.span and job.span[0] > 0]
        if late:
            raise ValueError(
                f"span={late[0]} of a job is not its beginning; give start, the slots "
                "of the wave before it"
            )
        return
    if not cfg.resumes:
        raise ValueError(
            "start has slots to go on from, resumes=False keeps none; use resumes=True"
        )

    def fresh() -> Slot:
        key = jax.random.key(0)
        adapter = lora.init(key, arch, targets=cfg.targets, rank=cfg.rank)
        return inner.init_slot(adapter)

    want, have = jax.eval_shape(fresh), jax.tree.map(np.shape, start)
    shapes = [have[1:] for have in jax.tree.leaves(have, is_leaf=_is_shape)]
    if shapes != [leaf.shape for leaf in jax.tree.leaves(want)]:
        raise ValueError(
            f"start must have slots of rank {cfg.rank} on {list(cfg.targets)}, as "
            "packed.train returns them with the same settings"
        )
    if len(start.loss_sum) < len(jobs):
        raise ValueError(
            f"start has {len(start.loss_sum)} slots for {len(jobs)} jobs; give one for "
            "each"
        )


def _is_shape(x: object) -> bool:
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)


def of_rows(
    start: Slot,
    job_of_row: Sequence[int],
    mesh: Mesh | None,
    *,
    consume: bool = False,
) -> Slot:
    """Slots by job as slots by the pool's rows, on a mesh on its shards.

    They are copied; with `consume` what is not needed any more goes.
    """
    if consume and mesh is None and len(start.loss_sum) == len(job_of_row):
        return start  # One device trains job a in row a.
    made = _picked(mesh)(start, np.array(job_of_row, np.int32))
    for leaf in jax.tree.leaves(start) if consume else ():
        if isinstance(leaf, jax.Array):
            leaf.delete()
    return made


def of_jobs(slots: Slot | None, row_of_job: np.ndarray, mesh: Mesh) -> Slot | None:
    """Slots by the rows of a mesh's pools as slots by job, still on its shards."""
    return None if slots is None else _picked(mesh)(slots, row_of_job)


@functools.cache
def _picked(mesh: Mesh | None) -> Callable[[Slot, np.ndarray], Slot]:
    out = None if mesh is None else meshes.batch_sharding(mesh)
    return jax.jit(lora.select, out_shardings=out)
