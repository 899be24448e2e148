"""The programs that write, at real sizes: reading prompts, and a step of decoding."""

import dataclasses
import functools
from typing import Any

import arc_task
import hlo_cost
import jax
import jax.numpy as jnp
import matmul_flop
import round_task
from aot_common import Program, attending, like

from seal_jax.generation import generate, policies, sample
from seal_jax.generation.settings import Decoding
from seal_jax.models import decoder, lora
from seal_jax.training.settings import LoraConfig


@dataclasses.dataclass(frozen=True)
class Queue:
    """What decodes: `adapters` are held beside the base, 0: there are none.

    Prompts are padded to `width`; `filled` is the share of its cache that a row has
    filled, on the mean.
    """

    arch: decoder.Arch
    decoding: Decoding
    width: int
    filled: float
    adapters: int = 0
    adapter: LoraConfig | None = None

    @property
    def per_page(self) -> int:
        return policies.PER_PAGE if self.adapters else 1

    @property
    def pages(self) -> int:
        return max(1, self.decoding.batch // self.per_page)

    @property
    def some(self) -> int:
        """Pages that are read, and enter, at a time."""
        return max(1, -(-self.pages // generate.READ_SHARE))

    @property
    def slots(self) -> int:
        return self.width + self.decoding.max_tokens

    @property
    def shape(self) -> dict[str, Any]:
        """Rank and targets of the adapters, for `matmul_flop`."""
        if self.adapter is None:
            return {}
        return {"rank": self.adapter.rank, "targets": self.adapter.targets}

    def stack(self) -> lora.Tree | None:
        if not self.adapters:
            return None
        return lora.empty(
            self.arch, adapters=self.adapters, dtype=self.arch.dtype, **self.shape
        )

    def params(self) -> dict:
        return decoder.init_params(jax.random.key(0), self.arch)

    def sampling(self) -> sample.SampleConfig:
        own = self.decoding
        return sample.SampleConfig(
            own.max_tokens, own.temperature, own.top_p, own.top_k, own.min_tokens, (0,)
        )


def prefill(queue: Queue) -> Program:
    """Reading the prompts of the pages that enter together."""
    shape = (queue.some, queue.per_page)

    def args():
        tokens = jnp.zeros((*shape, queue.width), jnp.int32)
        slots = jnp.zeros(shape[0], jnp.int32)
        return queue.params(), queue.stack(), slots, tokens, jnp.zeros(shape, jnp.int32)

    rows = queue.some * queue.per_page
    return Program(
        run=functools.partial(sample.prefill.__wrapped__, arch=queue.arch),
        args=like(args),
        donated=(),
        per="prompts of an eighth of the pages",
        flop=matmul_flop.reading(
            queue.arch,
            tokens=rows * queue.width,
            head_tokens=rows,
            pairs=0,
            **queue.shape,
        ),
        arch=queue.arch,
        tokens=rows * queue.width,
        told=attending(queue.arch, rows, queue.width, queue.width / 2),
    )


def decode(queue: Queue) -> Program:
    """One more token in every row."""

    def args():
        rows = sample.empty_rows(
            queue.stack(),
            jax.random.key(0),
            arch=queue.arch,
            cfg=queue.sampling(),
            pages=queue.pages,
            per_page=queue.per_page,
            slots=queue.slots,
        )
        return queue.params(), rows, jnp.int32(0), jnp.int32(0)

    rows = queue.pages * queue.per_page
    run = functools.partial(
        sample.decode.__wrapped__, arch=queue.arch, cfg=queue.sampling()
    )
    return Program(
        run=run,
        args=like(args),
        donated=(1,),
        per="token of each row",
        flop=matmul_flop.reading(
            queue.arch,
            tokens=rows,
            head_tokens=rows,
            pairs=0,
            **queue.shape,
        ),
        arch=queue.arch,
        tokens=rows,
        told=hlo_cost.Told(
            loops={r"decode\)/while$": 1},
            # Of its cache a row's filled part is read.
            foreign={"flash_attention": hlo_cost.Foreign(0.0, queue.filled)},
        ),
    )


def squad_proposals(arch: decoder.Arch) -> Queue:
    return Queue(arch, round_task.settings({}).propose, 384, 0.25)


def squad_answers(arch: decoder.Arch) -> Queue:
    exp = round_task.settings({})
    adapters = exp.scale.passages * exp.scale.edits * exp.scale.seeds
    return Queue(arch, exp.answer, 64, 0.6, adapters, exp.inner.lora)


def arc_answers(arch: decoder.Arch) -> Queue:
    exp = arc_task.settings({})
    return Queue(arch, exp.answer, 5120, 0.4, exp.scale.adapters, exp.inner.lora)
