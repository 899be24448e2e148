"""The matmul FLOP that a program must do, counted from the model's sizes alone.

Written apart from `hlo_cost.py`, which counts what a compiler has made of the program:
`make test-aot` holds the two together. A count is 2 for each product of two numbers.
"""

from collections.abc import Sequence

from seal_jax.models.decoder import Arch


def linears(arch: Arch, tokens: float) -> float:
    """All projections, forward; the same again for the slope of their inputs."""
    return 2.0 * tokens * arch.layers * sum(d * f for d, f in arch.linears().values())


def head(arch: Arch, positions: float) -> float:
    """Logits; the same again for the slope of what they are made from."""
    return 2.0 * positions * arch.vocab * arch.width


def low_rank(
    arch: Arch, tokens: float, rank: int, targets: Sequence[str], products: int = 1
) -> float:
    """`x A` and `(x A) B` of an adapter on every token, `products` times.

    Forward is 1; training 3: the slopes of x, and those of A and B, take as much each.
    Where all adapters are applied at once (`lora_matmul.dense`), `rank` is of all.
    """
    widths = sum(sum(arch.linears()[name]) for name in targets)
    return 2.0 * products * tokens * arch.layers * rank * widths


def tile_sums(
    arch: Arch, tiles: int, adapters: int, rank: int, targets: Sequence[str]
) -> float:
    """The gradients of tiles, summed by a product with zeros and ones."""
    return low_rank(arch, tiles, rank, targets) * adapters


def attention(arch: Arch, pairs: float, products: int) -> float:
    """Products of scores' size, over so many pairs of query and key in each layer."""
    return 2.0 * products * pairs * arch.layers * arch.heads * arch.head_dim


def unused_slopes(
    arch: Arch, tokens: float, pairs: float, rank: int, targets: Sequence[str]
) -> float:
    """What training need not do: slopes below the first layer's own adapters.

    The embedding is not trained, so q, k and v of the first layer hand nothing down;
    and what has no adapter there needs no slope of its own from the scores.
    """
    first = ("q_proj", "k_proj", "v_proj")
    sizes = arch.linears()
    base = sum(sizes[name][0] * sizes[name][1] for name in first)
    adapters = sum(rank * sizes[name][0] for name in first if name in targets)
    unused = sum(name not in targets for name in first)
    if not {"q_proj", "k_proj"} & {*targets}:
        unused += 1  # that of the weights, which only these two take
    scores = unused * pairs * arch.heads * arch.head_dim
    return 2.0 * (tokens * (base + adapters) + scores)


def training(
    arch: Arch,
    *,
    tokens: float,
    head_tokens: float,
    pairs: float,
    rank: int,
    targets: Sequence[str],
    sums: float = 0.0,
    recomputed: bool = True,
) -> float:
    """One step of training an adapter on a frozen base, or of many, packed.

    Forward and the inputs' slopes through the base; three products with the adapter; of
    attention two forward and four for its slopes, and the scores once more where they
    are `recomputed`; logits and their slope.

    Args:
      arch: the decoder.
      tokens: positions of the rows.
      head_tokens: those whose logits are formed.
      pairs: of query and key whose scores are formed, over all rows; 0 where a kernel
        does it that counts for itself.
      rank, targets: the adapters' shape; the rank is that of all adapters of a step
        where they are applied at once.
      sums: `tile_sums`, where they are not.
      recomputed: whether the backward pass forms the scores anew.
    """
    return (
        2 * linears(arch, tokens)
        + low_rank(arch, tokens, rank, targets, 3)
        - unused_slopes(arch, tokens, pairs, rank, targets)
        + attention(arch, pairs, 7 if recomputed else 6)
        + 2 * head(arch, head_tokens)
        + sums
    )


def reading(
    arch: Arch,
    *,
    tokens: float,
    head_tokens: float,
    pairs: float,
    rank: int = 0,
    targets: Sequence[str] = (),
) -> float:
    """A forward pass: of a prompt, or of one token in each row that decodes."""
    return (
        linears(arch, tokens)
        + low_rank(arch, tokens, rank, targets)
        + attention(arch, pairs, 2)
        + head(arch, head_tokens)
    )


def causal_pairs(width: int, block: int) -> int:
    """Of a row: blocks of queries, each with all keys up to its own end."""
    return sum(
        min(block, width - first) * min(first + block, width)
        for first in range(0, width, block)
    )
