"""The least time a round of SEAL can take on one device, from its shape alone.

    adapt      4 P + 6 N FLOP for each token that carries loss: forward and the
               activations' gradient through the frozen base (P weights that every
               token is multiplied by), three products with the adapter (N weights);
               then AdamW's traffic, `ADAM_BYTES` for each weight of an adapter and step
    propose    each distinct prompt read once, the head for its last token alone; then
               all texts decoded side by side, a step taking whichever is longer, the
               2 P FLOP of each text that still goes on or reading the weights once
    evaluate   the same for the questions, under every adapter (2 N more) and once
               under the base
    select     nothing
    imitate    as adapt, over prompt and completion, the head for completions alone;
               then the weights read and written once, to merge

Left out, as if they took no time: attention's scores, keys and values, norms and all
else elementwise, the embedding, drawing tokens, padding, recomputation, launches, the
host. Nothing overlaps that is added here, and everything fits in memory at once.

What a device attains of its data sheet is `ATTAINED`: large bfloat16 products have been
reported at just under 0.8 of an H200's peak, and long copies reach about 0.9 of its
bandwidth. Neither jax nor seal_jax is imported.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import common
import workload

ATTAINED_FLOPS = 0.8
ATTAINED_BYTES = 0.9

# Memory bandwidth of one device in bytes/s, from the vendors' data sheets. Of the A100
# there are several; this is the SXM module with 80 GB.
PEAK_BYTES = {
    "NVIDIA A100-SXM4-80GB": 2.039e12,
    "NVIDIA H100 80GB HBM3": 3.35e12,
    "NVIDIA H200": 4.8e12,
    "NVIDIA B200": 8.0e12,
    "TPU v4": 1.228e12,
    "TPU v5 lite": 0.819e12,
    "TPU v5": 2.765e12,
    "TPU v6 lite": 1.64e12,
}

# Per adapter weight and step: it and both its moments, float32, read and written (24);
# a bfloat16 copy for the matmuls, written once and read forward and backward (6). The
# gradient never leaves the product that makes it.
ADAM_BYTES = 30
WEIGHT_BYTES = 2  # bfloat16, the type of the peaks


class Machine(NamedTuple):
    """What a device attains, FLOP/s in bfloat16 and bytes/s."""

    flops_per_s: float
    bytes_per_s: float


def machine(kind: str, peak_flops: float | None) -> Machine | None:
    """The device of that kind, or None where a peak is not known.

    Args:
      kind: jax's `device_kind`.
      peak_flops: `runtime.peak_flops` of it.
    """
    kinds = [name for name in PEAK_BYTES if kind.startswith(name)]
    if peak_flops is None or not kinds:
        return None
    peak_bytes = PEAK_BYTES[max(kinds, key=len)]
    return Machine(ATTAINED_FLOPS * peak_flops, ATTAINED_BYTES * peak_bytes)


class Lora(NamedTuple):
    """An adapter's shape."""

    rank: int
    targets: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Round:
    """A round's work.

    Attributes:
      articles: lengths of what is read and written.
      trained_tokens: positions that carry loss, of all adapters.
      trained_steps: optimizer steps of all adapters.
      adapter: their shape.
      kept: tokens of prompt and completion of each imitated edit.
      imitated: the shape of the LoRA that imitates them.
      imitate_epochs, imitate_steps: how often it sees them, in how many steps.
    """

    articles: tuple[workload.Article, ...]
    trained_tokens: int
    trained_steps: int
    adapter: Lora
    kept: tuple[tuple[int, int], ...]
    imitated: Lora
    imitate_epochs: int
    imitate_steps: int


def by_phase(shape: common.Shape, work: Round, on: Machine) -> dict[str, float]:
    """Seconds of each phase."""
    head = shape.vocab * shape.width
    whole = shape.matmul_parameters()
    adapter, imitated = (
        shape.lora_parameters(rank=lora.rank, targets=lora.targets)
        for lora in (work.adapter, work.imitated)
    )

    def flop(count: float) -> float:
        return count / on.flops_per_s

    def moved(count: float) -> float:
        return count / on.bytes_per_s

    def continued(prompts: Sequence[int], texts: Sequence[int], extra: int) -> float:
        read = sum(prompts) * (whole - head + extra) + len(prompts) * head
        return flop(2 * read) + decoding(
            texts,
            seconds_per_row=flop(2 * (whole + extra)),
            seconds_per_step=moved(WEIGHT_BYTES * whole),
        )

    asked = [a.question_prompts for a in work.articles]
    answers = [e.answers for a in work.articles for e in a.edits]
    by_adapter = [
        prompts
        for a, prompts in zip(work.articles, asked, strict=True)
        for edit in a.edits
        for _ in edit.answers
    ]
    positions = sum(p + c for p, c in work.kept)
    completions = sum(c + 1 for _, c in work.kept)
    per_epoch = positions * (4 * (whole - head) + 6 * imitated) + completions * 4 * head
    return {
        "propose": continued(
            [a.proposal_prompt for a in work.articles],
            [edit.tokens for a in work.articles for edit in a.edits],
            0,
        ),
        "adapt": flop(work.trained_tokens * (4 * whole + 6 * adapter))
        + moved(work.trained_steps * adapter * ADAM_BYTES),
        "evaluate": continued(
            sum(by_adapter, ()),
            [n for by_seed in answers for row in by_seed for n in row],
            adapter,
        )
        + continued(
            sum(asked, ()), [n for a in work.articles for n in a.base_answers], 0
        ),
        "select": 0.0,
        "imitate": flop(work.imitate_epochs * per_epoch)
        + moved(work.imitate_steps * imitated * ADAM_BYTES)
        + moved(2 * WEIGHT_BYTES * whole),
    }


def decoding(
    texts: Sequence[int], *, seconds_per_row: float, seconds_per_step: float
) -> float:
    """Seconds to write texts of so many tokens, all side by side.

    A step takes `seconds_per_row` for each text that still goes on, and at least
    `seconds_per_step`.
    """
    total, ended = 0.0, 0
    ordered = sorted(texts)
    for step in range(ordered[-1] if ordered else 0):
        while ordered[ended] <= step:
            ended += 1
        total += max((len(ordered) - ended) * seconds_per_row, seconds_per_step)
    return total
