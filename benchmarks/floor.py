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

Of the few-shot round (`arc_plan.py`) the same, but that training needs the head for
those tokens of a line alone that carry loss.

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
      peak_flops: `backend.peak_flops` of it.
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


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a round consists of, in seconds, for a model's shape on a machine."""

    shape: common.Shape
    machine: Machine

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.shape.vocab * self.shape.width

    @property
    def whole(self) -> int:
        """Weights that every token is multiplied by, the head among them."""
        return self.shape.matmul_parameters()

    def weights(self, lora: Lora | None) -> int:
        """Weights of an adapter; None: there is none."""
        if lora is None:
            return 0
        return self.shape.lora_parameters(rank=lora.rank, targets=lora.targets)

    def flop(self, count: float) -> float:
        """Seconds of so many operations."""
        return count / self.machine.flops_per_s

    def moved(self, count: float) -> float:
        """Seconds of so many bytes."""
        return count / self.machine.bytes_per_s

    def continued(
        self, prompts: Sequence[int], texts: Sequence[int], under: Lora | None = None
    ) -> float:
        """Reading prompts of so many tokens, and writing texts, side by side.

        Every text is under an adapter of its own if `under` gives its shape.
        """
        extra = self.weights(under)
        read = sum(prompts) * (self.whole - self.head + extra)
        read += len(prompts) * self.head
        return self.flop(2 * read) + decoding(
            texts,
            seconds_per_row=self.flop(2 * (self.whole + extra)),
            seconds_per_step=self.moved(WEIGHT_BYTES * self.whole),
        )

    def trained_flop(self, tokens: int, targets: int, adapter: Lora) -> int:
        """Operations of training on so many tokens, `targets` of which carry loss."""
        body = 4 * (self.whole - self.head) + 6 * self.weights(adapter)
        return tokens * body + targets * 4 * self.head

    def trained(self, tokens: int, targets: int, steps: int, adapter: Lora) -> float:
        """Training adapters in so many optimizer steps, all of them together."""
        flop = self.flop(self.trained_flop(tokens, targets, adapter))
        return flop + self.moved(steps * self.weights(adapter) * ADAM_BYTES)

    def imitated(
        self, kept: Sequence[tuple[int, int]], lora: Lora, *, epochs: int, steps: int
    ) -> float:
        """Fine-tuning on pairs of so many tokens, and merging what was learned."""
        tokens = epochs * sum(p + c for p, c in kept)
        targets = epochs * sum(c + 1 for _, c in kept)
        merge = self.moved(2 * WEIGHT_BYTES * self.whole)
        return self.trained(tokens, targets, steps, lora) + merge


def by_phase(shape: common.Shape, work: Round, machine: Machine) -> dict[str, float]:
    """Seconds of each phase."""
    parts = Parts(shape, machine)
    asked = [a.question_prompts for a in work.articles]
    answers = [e.answers for a in work.articles for e in a.edits]
    by_adapter = [
        prompts
        for a, prompts in zip(work.articles, asked, strict=True)
        for edit in a.edits
        for _ in edit.answers
    ]
    return {
        "propose": parts.continued(
            [a.proposal_prompt for a in work.articles],
            [edit.tokens for a in work.articles for edit in a.edits],
        ),
        "adapt": parts.trained(
            work.trained_tokens, work.trained_tokens, work.trained_steps, work.adapter
        ),
        "evaluate": parts.continued(
            sum(by_adapter, ()),
            [n for by_seed in answers for row in by_seed for n in row],
            work.adapter,
        )
        + parts.continued(
            sum(asked, ()), [n for a in work.articles for n in a.base_answers]
        ),
        "select": 0.0,
        "imitate": parts.imitated(
            work.kept,
            work.imitated,
            epochs=work.imitate_epochs,
            steps=work.imitate_steps,
        ),
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
