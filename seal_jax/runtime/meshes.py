"""Device meshes: rows over the axis `data`, weights over the axis `model`.

Where each weight lies: `models.placement`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def of_devices(*, data: int, model: int) -> Mesh | None:
    """The mesh of a run; None on a single device. `data = 0`: all that there are.

    Raises:
      ValueError: see `make_mesh`.
    """
    data = data or max(1, len(jax.devices()) // model)
    return None if data == model == 1 else make_mesh(data=data, model=model)


def make_mesh(*, data: int = 1, model: int = 1) -> Mesh:
    """A mesh of `data` x `model` over the first devices of this process.

    Raises:
      ValueError: a size below 1, or more devices than there are.
    """
    count = len(jax.devices())
    if data < 1 or model < 1 or data * model > count:
        raise ValueError(
            f"mesh data={data} x model={model} must be sizes of at least 1 within the "
            f"{count} devices here; use data={count}, model=1"
        )
    return jax.make_mesh(
        (data, model),
        ("data", "model"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=jax.devices()[: data * model],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows, the leading axis, over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def named(mesh: Mesh, specs: Any) -> Any:
    """A tree of partition specs as shardings."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def put(tree: Any, mesh: Mesh | None, axis: str | None = None) -> Any:
    """Host arrays on the mesh's devices: cut along `axis`, or whole on each.

    Every process holds the whole array and gives its own devices their part. Typed PRNG
    keys may be on a local device. Without a mesh nothing is done.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(axis))

    def place(x: Any) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(x)))
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])

    return jax.tree.map(place, tree)


def own_shards(mesh: Mesh | None, *, first: bool = False) -> list[int]:
    """The shards that have a device in this process; or whose `first` one is here."""
    if mesh is None:
        return [0]
    here = jax.process_index()
    rows = [[device.process_index == here for device in row] for row in mesh.devices]
    return [i for i, row in enumerate(rows) if (row[0] if first else any(row))]


def put_shards(parts: Mapping[int, Any], mesh: Mesh | None) -> Any:
    """Host arrays of this process's shards on their devices, side by side.

    `parts` has a tree for each of `own_shards`, all of the same shapes: of the arrays
    that come of it, cut along their first axis, each is one shard's piece. Without a
    mesh nothing is done.
    """
    if mesh is None:
        return parts[0]

    def place(*leaves: np.ndarray) -> jax.Array:
        of_shard, length = dict(zip(parts, leaves, strict=True)), len(leaves[0])
        shape = (length * shards(mesh), *leaves[0].shape[1:])

        def piece(at: Any) -> np.ndarray:
            return of_shard[(at[0].start or 0) // length]

        return jax.make_array_from_callback(shape, batch_sharding(mesh), piece)

    return jax.tree.map(place, *parts.values())


def holding(tree: Any) -> Mesh | None:
    """The mesh that arrays such as a policy's parameters lie on, if they do."""
    sharding = jax.tree.leaves(tree)[0].sharding
    if not isinstance(sharding, NamedSharding):
        return None
    assert isinstance(sharding.mesh, Mesh)  # Arrays lie on devices.
    return sharding.mesh


def shards(mesh: Mesh | None) -> int:
    """Size of the axis `data`; 1 without a mesh."""
    return 1 if mesh is None else mesh.shape["data"]


def split_rows(tree: Any, mesh: Mesh | None) -> Any:
    """Inside jit: arrays cut along their first axis, over `data`."""
    if mesh is None:
        return tree
    rows = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, rows), tree)


def gather(tree: Any, mesh: Mesh) -> Any:
    """Sharded arrays, whole on every device."""
    return jax.jit(_same, out_shardings=replicated(mesh))(tree)


def _same(tree: Any) -> Any:
    # By name: jit compiles anew for every new lambda.
    return tree
