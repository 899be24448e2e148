"""The programs that write, at real sizes: reading prompts, and a step of decoding.

Their sizes are those that the queue gives itself on the published work (`occupancy`).
"""

import dataclasses
import functools
from typing import Any

import arc_task
import hlo_cost
import jax
import jax.numpy as jnp
import matmul_flop
import occupancy
import round_task
from aot_common import Program, attending, like, low_rank

from seal_jax.generation import policies, sample, schedule, side_by_side
from seal_jax.generation.settings import Decoding
from seal_jax.models import decoder, lora
from seal_jax.training.settings import LoraConfig


@dataclasses.dataclass(frozen=True)
class Queue:
    """What decodes: `adapters` are held beside the base, 0: there are none.

    `filled` is the share of its cache that a row has filled, on the mean.
    """

    arch: decoder.Arch
    decoding: Decoding
    sizes: schedule.Sizes
    filled: float
    adapters: int = 0
    adapter: LoraConfig | None = None

    def shape(self) -> dict[str, Any]:
        """Rank and targets of the adapters, for `matmul_flop`."""
        if self.adapter is None:
            return {}
        return {"rank": self.adapter.rank, "targets": self.adapter.targets}

    def stack(self) -> lora.Tree | None:
        if not self.adapters:
            return None
        return lora.empty(
            self.arch, adapters=self.adapters, dtype=self.arch.dtype, **self.shape()
        )

    def params(self) -> dict:
        return decoder.init_params(jax.random.key(0), self.arch)

    def sampling(self) -> sample.SampleConfig:
        own = self.decoding
        return sample.SampleConfig(
            own.max_tokens, own.temperature, own.top_p, own.top_k, own.min_tokens, (0,)
        )


def prefill(queue: Queue) -> Program:
    """A reading of prompts that lie side by side in rows."""
    sizes = queue.sizes
    tokens = sizes.reading * sizes.width

    def args():
        rows = jnp.zeros((sizes.reading, sizes.width), jnp.int32)
        slots = jnp.zeros(tokens // sizes.tile, jnp.int32)
        spans = (jnp.zeros(sizes.prompts, jnp.int32),) * 3
        return queue.params(), queue.stack(), slots, rows, rows, spans

    told = attending(queue.arch, sizes.reading, sizes.width, sizes.longest / 2)
    if queue.adapters:
        # Kernels that count for themselves; each prompt is under another adapter.
        products = low_rank(
            queue.arch,
            **queue.shape(),
            rows=tokens,
            adapters=sizes.prompts,
            held=queue.adapters,
        )
        told = hlo_cost.Told(foreign={**told.foreign, **products.foreign})
    return Program(
        run=functools.partial(sample.prefill.__wrapped__, arch=queue.arch),
        args=like(args),
        donated=(),
        per="reading",
        flop=matmul_flop.reading(
            queue.arch,
            tokens=tokens,
            head_tokens=sizes.prompts,
            pairs=0,
        ),
        arch=queue.arch,
        tokens=tokens,
        told=told,
    )


def decode(queue: Queue) -> Program:
    """One more token in every row."""
    sizes = queue.sizes

    def args():
        rows = sample.empty_rows(
            queue.stack(),
            arch=queue.arch,
            cfg=queue.sampling(),
            rows=sizes.rows,
            slots=sizes.longest + queue.decoding.max_tokens,
            pages=(1, sizes.pages, sizes.per_page) if queue.adapters else (1, 0, 1),
        )
        return queue.params(), rows, jnp.int32(0), jnp.int32(0)

    base = matmul_flop.reading(
        queue.arch, tokens=sizes.rows, head_tokens=sizes.rows, pairs=0
    )
    under = 0.0
    if queue.adapters:
        under = matmul_flop.low_rank(
            queue.arch, sizes.pages * sizes.per_page, **queue.shape()
        )
    run = functools.partial(
        sample.decode.__wrapped__, arch=queue.arch, cfg=queue.sampling()
    )
    return Program(
        run=run,
        args=like(args),
        donated=(1,),
        per="token of each row",
        flop=base + under,
        arch=queue.arch,
        tokens=sizes.rows,
        told=hlo_cost.Told(
            # A step, and the looks at a nucleus that its draws take.
            loops={r"decode\)/while$": 1, r"while/body/.*while$": 2},
            # Of its cache a row's filled part is read.
            foreign={"flash_attention": hlo_cost.Foreign(0.0, read=queue.filled)},
        ),
    )


def _sizes(wanted: occupancy.Wanted, decoding: Decoding, adapters: int):
    requests = [request for request, _ in wanted]
    return schedule.sizes(
        side_by_side.distinct(requests, adapters),
        adapters=adapters,
        batch=decoding.batch,
        per_page=policies.PER_PAGE,
        prompt_multiple=decoding.prompt_multiple,
    )


def squad_proposals(arch: decoder.Arch) -> Queue:
    wanted, decoding, _ = occupancy.squad()["squad propose"]
    return Queue(arch, decoding, _sizes(wanted, decoding, 0), 0.25)


def squad_answers(arch: decoder.Arch) -> Queue:
    wanted, decoding, adapters = occupancy.squad()["squad evaluate"]
    own = round_task.settings({}).inner.lora
    sizes = _sizes(wanted, decoding, adapters)
    return Queue(arch, decoding, sizes, 0.6, adapters, own)


def arc_answers(arch: decoder.Arch) -> Queue:
    wanted, decoding, adapters = occupancy.arc()["arc evaluate train"]
    own = arc_task.settings({}).inner.lora
    sizes = _sizes(wanted, decoding, adapters)
    return Queue(arch, decoding, sizes, 0.4, adapters, own)
