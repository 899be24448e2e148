"""Where a model's parameters lie on a mesh: cut over the axis `model`."""

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seal_jax.models import float8_base
from seal_jax.models.decoder import Arch
from seal_jax.models.parameters import leaf_shapes, nested

# Per kind of leaf: its dimensions from the right, and the count that must divide by the
# size of the axis `model` for that dimension to be cut. Cutting by heads keeps every
# head whole. A linear's input is cut where the one before it is cut by output.
_COLUMNS = {"q_proj": "heads", "k_proj": "kv_heads", "v_proj": "kv_heads"}
_COLUMNS |= {"gate_proj": "ff", "up_proj": "ff", "lm_head": "vocab"}
_OF_LINEARS = (float8_base.KERNEL, "bias", float8_base.EIGHT, float8_base.SCALE)
_ROWS = {"o_proj": "heads", "down_proj": "ff", "embed": "vocab"}


def param_shardings(cfg: Arch, mesh: Mesh) -> dict:
    """A sharding for every parameter, in the shape of the parameter tree.

    Everything is replicated over `data`. Over `model`, linears are cut by heads or by
    feed-forward width and the embedding and head by vocabulary (Shoeybi et al. 2019,
    section 3); a count that does not divide stays whole, which is legal and only costs
    memory. Norms are replicated. Weights in eight bits are cut as those that they came
    from, but lie the other way round.
    """
    size = mesh.shape["model"]

    def spec(path: tuple[str, ...], rank: int) -> PartitionSpec:
        name = path[-2] if path[-1] in _OF_LINEARS else path[0]
        axes: list[str | None] = [None] * rank
        for table, axis in ((_COLUMNS, -1), (_ROWS, -2)):
            cut = name in table and getattr(cfg, table[name]) % size == 0
            if cut and axis >= -rank:
                axes[axis] = "model"
        return PartitionSpec(*(axes[::-1] if path[-1] == float8_base.EIGHT else axes))

    flat = leaf_shapes(cfg)
    return nested(
        {p: NamedSharding(mesh, spec(p, len(x.shape))) for p, x in flat.items()}
    )
