"""What can be wrong without compiling, checked before a workdir is touched."""

import dataclasses
import itertools
from typing import Any

from jax.sharding import Mesh

from seal_jax.experiment import kinds
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds.experiment import Experiment
from seal_jax.runtime import backend, distributed, meshes, records
from seal_jax.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Checked[Item]:
    """An experiment with everything that can be wrong without compiling checked.

    `train`: items to learn from, in lists; `blank`: the base without weights.
    """

    kind: kinds.Kind[Any, Item, Any]
    train: list[list[Item]]
    heldout: list[Item]
    blank: policies.Policy
    task: Task[Item]
    mesh: Mesh | None


def check(exp: Experiment, values: dict[str, Any]) -> Checked[Any]:
    """Loads what the experiment is about, and refuses what cannot be run.

    Raises:
      ValueError, OSError: bad input, in one line.
    """
    check_same(values)
    kind = kinds.kind_of(exp)
    train, heldout = kind.load(exp)
    blank = policies.describe(exp.model, turn_end=exp.turn_end)
    adapters = {"inner": exp.inner.lora}
    if exp.imitate is not None:
        adapters["imitate"] = exp.imitate.lora
    for name, cfg in adapters.items():
        lora.check(blank.arch, targets=cfg.targets, rank=cfg.rank, name=f"{name}.lora")
    task = kind.make(exp, blank, list(itertools.chain(*train)), heldout)
    backend.cache_programs()
    distributed.keep_cache_if_shared()
    mesh = meshes.of_devices(data=exp.mesh.data, model=exp.mesh.model)
    if mesh is not None:
        blank = policies.on_mesh(exp.model, blank)
    distributed.check_mesh(mesh)
    return Checked(kind, train, heldout, blank, task, mesh)


def check_same(values: dict[str, Any]) -> None:
    """Refuses processes that were given different configs.

    Raises:
      ValueError: see above.
    """
    hashes = distributed.everyone(records.config_hash(values))
    odd = [i for i, h in enumerate(hashes) if h != hashes[0]]
    if odd:
        raise ValueError(
            f"process {odd[0]} has another config than process 0; start all processes "
            "of a run with the same --config and the same --config.key=value"
        )
