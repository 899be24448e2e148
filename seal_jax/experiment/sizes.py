"""The sizes of the inner loop, compiled for the devices here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from seal_jax.experiment import checks, workdirs
from seal_jax.models import decoder
from seal_jax.rounds.experiment import Experiment
from seal_jax.runtime import backend, compiling, distributed, formatting
from seal_jax.training import capacity, inner


def prepared(
    exp: Experiment,
    checked: checks.Checked[Any],
    workdir: Path,
    *,
    say: Callable[[str], None],
) -> inner.EngineConfig:
    """The inner loop's sizes (`size`); other programs are compiled beside its own.

    A run that goes on compiles what it still needs, when it needs it.

    Raises:
      ValueError: see `capacity.choose`.
    """
    kind, mesh, arch = checked.kind, checked.mesh, checked.blank.arch
    begun = (workdir / workdirs.JOURNAL).exists()
    if kind.expect is None or mesh is not None or begun or not exp.adapters:
        return size(exp, arch, mesh, say=say)
    if not compiling.pays():
        return size(exp, arch, mesh, say=say)
    with compiling.beside() as compiler:
        kind.expect(
            exp, checked.blank, checked.task, checked.train, checked.heldout, compiler
        )
        return size(exp, arch, mesh, say=say)


def size(
    exp: Experiment,
    arch: decoder.Arch,
    mesh: Mesh | None,
    *,
    say: Callable[[str], None],
) -> inner.EngineConfig:
    """The inner loop's sizes; where no adapter is trained nothing is compiled.

    Raises:
      ValueError: see `capacity.choose`.
    """
    if exp.adapters:
        return fitting(exp, arch, mesh, say=say)
    least = exp.inner.step_tokens or exp.inner.row_tokens
    return capacity.build(exp.inner, step_tokens=least, adapters=1)


def fitting(
    exp: Experiment,
    arch: decoder.Arch,
    mesh: Mesh | None,
    *,
    say: Callable[[str], None],
) -> inner.EngineConfig:
    """The inner loop's sizes for the devices here; compiles its program.

    Raises:
      ValueError: see `capacity.choose`.
    """
    limit = backend.memory_limit(jax.local_devices()[0])
    limit = min(distributed.everyone(limit))
    master = 0 if exp.imitate is None else capacity.master_bytes(arch, mesh)
    limit -= master
    if exp.imitate is not None and exp.imitate.start == "base":
        # It is kept beside the policy, for every round to start from.
        limit -= capacity.base_bytes(arch, mesh)
    cfg, memory = capacity.choose(
        arch,
        exp.inner,
        limit=limit,
        adapters=exp.adapters,
        lines=exp.lines_per_step,
        mesh=mesh,
        options=exp.engine,
    )
    say(
        f"inner loop: steps of {cfg.plan.step_tokens} tokens, {cfg.plan.slots} slots, "
        f"up to {cfg.pool} adapters at a time; memory {memory.line()}"
    )
    if master:
        say(
            f"model.base_dtype={arch.base_dtype!r}: beside it {formatting.size(master)}"
            f" of weights in {arch.dtype}, which rounds are merged into"
        )
    return cfg
