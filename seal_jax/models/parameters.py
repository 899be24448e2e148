"""The parameter tree by path: shapes without weights, trees from leaves and back."""

from typing import Any

import jax
from flax import traverse_util

from seal_jax.models import decoder
from seal_jax.models.decoder import Arch

# A leaf's place in the tree, such as ("layers_0", "q_proj", "kernel").
type Leaf = tuple[str, ...]


def leaf_shapes(cfg: Arch) -> dict[Leaf, jax.ShapeDtypeStruct]:
    """Shape and dtype of every parameter of the model, by path."""
    return flat(jax.eval_shape(lambda: decoder.init_params(jax.random.key(0), cfg)))


def nested(leaves: dict[Leaf, Any]) -> dict:
    """A tree from its leaves by path."""
    return traverse_util.unflatten_dict(leaves)


def flat(tree: dict) -> dict[Leaf, Any]:
    """The leaves of a tree by path; undoes `nested`."""
    return dict(traverse_util.flatten_dict(tree))
